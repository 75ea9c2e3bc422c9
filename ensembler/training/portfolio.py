"""Backbones worth trying first, and the family of any backbone: members of different families err differently.

Sizes and licences are asked of timm where they are needed; only what timm's package does not hold is typed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ..errors import BackboneError
from .backbone import lineage
from .blueprint import describe

Family = Literal["CNN", "ViT", "hybrid", "MLP", "self-supervised", "CLIP"]


@dataclass(frozen=True)
class Entry:
    """A backbone that `ensembler init` may propose.

    Attributes:
        name: timm's, with the tag of the weights.
        top1: of these weights on ImageNet, percent; None where they have no ImageNet classes.
        small: light enough to fine-tune without a GPU.
    """

    name: str
    top1: float | None
    small: bool


#: In the order in which they are proposed. top1: `results/results-imagenet.csv` in timm's repository, its line at
#: 224 pixels (256 for edgenext_xx_small); of vit_so150m2 the notes to timm's release of February 2025, at 256 pixels.
PORTFOLIO: tuple[Entry, ...] = (
    Entry("mobilenetv4_conv_small.e2400_r224_in1k", 73.7, small=True),
    Entry("resnet10t.c3_in1k", 68.4, small=True),
    Entry("edgenext_xx_small.in1k", 71.1, small=True),
    Entry("mobilenetv3_small_100.lamb_in1k", 67.7, small=True),
    Entry("vit_tiny_patch16_224.augreg_in21k_ft_in1k", 75.5, small=True),
    Entry("efficientnet_lite0.ra_in1k", 75.5, small=True),
    Entry("resnet18.a1_in1k", 71.5, small=True),
    Entry("tiny_vit_11m_224.dist_in22k_ft_in1k", 83.2, small=False),
    Entry("vit_small_patch14_reg4_dinov2.lvd142m", None, small=False),
    Entry("caformer_s18.sail_in22k_ft_in1k", 84.1, small=False),
    Entry("convnext_tiny.in12k_ft_in1k", 84.2, small=False),
    Entry("vit_base_patch16_clip_224.laion2b_ft_in12k_in1k", 86.2, small=False),
    Entry("vit_base_patch16_siglip_224.v2_webli", None, small=False),
    Entry("vit_so150m2_patch16_reg1_gap_256.sbb_e200_in12k_ft_in1k", 87.3, small=False),
)

#: Words of the name and the tag that tell what the weights were first trained on: pairs of image and text, or images
#: without labels. Fine-tuned weights keep the family of their pre-training, because that is what sets them apart.
_TEXT = re.compile(
    r"\w*clip.*|openai|laion.*|datacomp.*|dfn.*|.*webli|cc12m|yfcc15m|merged2b|pali.*|florence.*"
)
_UNLABELLED = re.compile(
    r"dino.*|(fc)?mae|ijepa|mim|beit.*|seer|eupe|aimv2|lvd\d+m|sat493m|ssl|sapiens2|radio|nepa"
)

#: Files of timm's architectures, by what their blocks are made of; those of neither list are convolutional.
_TRANSFORMERS = frozenset({
    "beit", "cait", "crossvit", "davit", "deepseek_vit", "deit", "eva", "gcvit", "gemma4_vit", "hiera", "hieradet_sam2",
    "mvitv2", "naflexvit", "nest", "pit", "pvt_v2", "qwen3_vit", "swin_transformer", "swin_transformer_v2",
    "swin_transformer_v2_cr", "tnt", "twins", "vision_transformer", "vision_transformer_relpos",
    "vision_transformer_sam", "volo", "xcit",
})  # fmt: skip
_HYBRIDS = frozenset({
    "byoanet", "coat", "convit", "edgenext", "efficientformer", "efficientformer_v2", "efficientvit_mit",
    "efficientvit_msra", "efficientvim", "fastvit", "iformer", "levit", "lowformer", "maxxvit", "metaformer",
    "mobilenetv5", "mobilevit", "nextvit", "shvit", "swiftformer", "tiny_vit", "vision_transformer_hybrid", "visformer",
    "vitamin",
})  # fmt: skip
_MLPS = frozenset({"mlp_mixer", "sequencer"})


def family_of(name: str) -> Family:
    """The family of a backbone, by its weights' pre-training first and its architecture second.

    >>> family_of("resnet18"), family_of("vit_base_patch16_clip_224.openai")
    ('CNN', 'CLIP')

    Raises:
        BackboneError: the name is unknown to timm.
    """
    module, tag = lineage(name)
    words = re.split(r"[._]", f"{name}.{tag}".lower())
    if any(_TEXT.fullmatch(word) for word in words):
        return "CLIP"
    if any(_UNLABELLED.fullmatch(word) for word in words):
        return "self-supervised"
    if module in _TRANSFORMERS:
        return "ViT"
    if module in _HYBRIDS or "hybrid" in words:
        return "hybrid"
    return "MLP" if module in _MLPS else "CNN"


def cost_table(names: list[str], image_size: int = 224) -> Iterator[list[str]]:
    """A header and a line of text a backbone: name, family, parameters, operations, memory, top-1, licence.

    Memory is what training keeps of one image; operations and memory of a backbone that takes no pictures of this
    size are "impossible".

    Args:
        names: timm's.
        image_size: side in pixels that operations and memory are for.

    Raises:
        BackboneError: see `create`.
    """
    from .costs import flops, training_bytes

    known = {entry.name: entry.top1 for entry in PORTFOLIO}
    yield ["name", "family", "M params", f"GFLOP at {image_size}", "MB an image", "top-1", "licence"]
    for name in names:
        info, top1 = describe(name), known.get(name)
        try:
            operations = f"{flops(name, image_size) / 1e9:.2f}"
            image = training_bytes(name, image_size, 1) - training_bytes(name, image_size, 0)
            memory = f"{image / 1e6:.0f}"
        except (
            BackboneError
        ):  # some architectures take pictures of one size alone; the others are still of interest
            operations = memory = "impossible"
        licence = info.licence or "unknown"
        yield [
            name,
            family_of(name),
            f"{info.params / 1e6:.1f}",
            operations,
            memory,
            "" if top1 is None else f"{top1:.1f}",
            f"{licence} (not commercial)" if info.non_commercial else licence,
        ]
