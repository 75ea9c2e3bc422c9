"""Portfolio, families, costs and licences: known answers, and equality with a count by hand."""

from __future__ import annotations

import time

import pytest
import torch

from ensembler.errors import BackboneError, WeightsError
from ensembler.training.backbone import create, timm_module
from ensembler.training.blueprint import describe
from ensembler.training.costs import BYTES_PER_PARAMETER, flops, training_bytes
from ensembler.training.licences import forbids_commercial_use, refuse_unaccepted
from ensembler.training.portfolio import PORTFOLIO, cost_table, family_of

FAMILIES = {
    "resnet18": "CNN",
    "convnext_tiny.in12k_ft_in1k": "CNN",
    "mobilenetv4_conv_small": "CNN",
    "mobilenetv4_hybrid_medium": "hybrid",
    "tiny_vit_11m_224": "hybrid",
    "caformer_s18.sail_in22k_ft_in1k": "hybrid",
    "vit_tiny_patch16_224": "ViT",
    "swin_tiny_patch4_window7_224": "ViT",
    "mixer_b16_224": "MLP",
    "vit_small_patch14_reg4_dinov2.lvd142m": "self-supervised",
    "convnextv2_atto.fcmae": "self-supervised",
    "resnet18.fb_ssl_yfcc100m_ft_in1k": "self-supervised",
    "hgnet_small.ssld_in1k": "CNN",
    "vit_base_patch16_clip_224.laion2b_ft_in12k_in1k": "CLIP",
    "vit_base_patch16_siglip_224": "CLIP",
}


@pytest.mark.parametrize("name", FAMILIES)
def test_families(name: str) -> None:
    assert family_of(name) == FAMILIES[name]


def test_a_family_of_nothing_is_refused() -> None:
    with pytest.raises(BackboneError, match="unknown to timm"):
        family_of("resnt18")


def test_every_entry_has_published_weights_that_anybody_may_use() -> None:
    published = set(timm_module().list_models(pretrained=True))
    assert {entry.name for entry in PORTFOLIO} <= published
    assert len({entry.name for entry in PORTFOLIO}) == len(PORTFOLIO)
    assert not [entry.name for entry in PORTFOLIO if describe(entry.name).non_commercial]
    assert {family_of(entry.name) for entry in PORTFOLIO} == {
        "CNN",
        "hybrid",
        "ViT",
        "self-supervised",
        "CLIP",
    }


def test_operations_of_a_known_network() -> None:
    # He et al. 2016 give 1.8e9 multiply-adds for a ResNet-18 at 224 pixels; ours leave its head out.
    assert flops("resnet18", 224) / 2 == pytest.approx(1.8e9, rel=0.02)
    assert flops("resnet18", 96) * 4 == pytest.approx(flops("resnet18", 192), rel=0.01)


def test_operations_equal_a_count_of_the_convolutions() -> None:
    model = create("resnet10t", 0).eval()
    total = 0

    def count(layer: torch.nn.Module, _: object, out: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(layer, torch.nn.Conv2d)
        total += 2 * out[0].numel() * layer.weight[0].numel()

    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        model(torch.zeros(1, 3, 64, 64))
    assert flops("resnet10t", 64) == total


@pytest.mark.parametrize("name", ["vit_base_patch16_siglip_224.v2_webli", "test_vit", "test_convnext"])
def test_operations_and_memory_of_other_families_are_counted(name: str) -> None:
    assert flops(name, 64) > 0
    assert (
        training_bytes(name, 64, 2)
        > training_bytes(name, 64, 1)
        > BYTES_PER_PARAMETER * describe(name).params
    )


def test_memory_grows_with_the_batch_and_the_picture_by_what_is_saved() -> None:
    nothing, one, four = (training_bytes("resnet10t", 64, batch) for batch in (0, 1, 4))
    assert nothing == 16 * describe("resnet10t").params
    assert four - nothing == 4 * (one - nothing)
    assert training_bytes("resnet10t", 128, 1) - nothing == pytest.approx(4 * (one - nothing), rel=0.05)


def test_the_saved_bytes_of_a_real_training_step() -> None:
    model = create("resnet10t", 0).train()
    own = {p.data_ptr() for p in [*model.parameters(), *model.buffers()]}
    saved: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = model(torch.zeros(8, 3, 64, 64))
    total = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    assert out.requires_grad
    estimate = training_bytes("resnet10t", 64, 8) - training_bytes("resnet10t", 64, 0)
    # The rest are statistics of batch normalisation, which do not grow with the batch.
    assert estimate == pytest.approx(total, rel=0.02)


def test_the_facts_of_a_run_start_are_found_fast() -> None:
    describe("convnext_tiny")
    began = time.thread_time()
    describe("vit_base_patch16_224")
    assert time.thread_time() - began < 3  # some 0.1 s; the rest is for a slow machine


def test_the_table_says_what_it_does_not_know() -> None:
    header, nc, plain, fixed = cost_table(["convnextv2_atto.fcmae", "test_resnet", "efficientformer_l1"], 64)
    assert fixed[3:5] == ["impossible", "impossible"]
    assert header[0] == "name"
    assert nc[-1] == "cc-by-nc-4.0 (not commercial)"
    assert nc[1] == "self-supervised"
    assert plain[-2:] == ["", "apache-2.0"]


def test_a_picture_that_an_architecture_cannot_take_is_one_line() -> None:
    with pytest.raises(
        BackboneError, match=r"backbone 'efficientformer_l1': cannot take 64 pixels: "
    ) as caught:
        flops("efficientformer_l1", 64)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------- licences


@pytest.mark.parametrize(
    ("licence", "forbids"),
    [
        ("apache-2.0", False),
        ("mit", False),
        ("bsd-3-clause", False),
        ("cc-by-4.0", False),
        ("dinov3-license", False),
        ("nvidia-open-model-license", False),
        ("apple-ascl", False),
        ("", False),
        ("unknown", False),
        ("cc-by-nc-4.0", True),
        ("CC-BY-NC-SA-4.0", True),
        ("fair-noncommercial-research-license", True),
        ("some-non-commercial", True),
        ("apple-amlr", True),
        ("seer-license", True),
    ],
)
def test_which_licences_forbid_commercial_use(licence: str, forbids: bool) -> None:
    assert forbids_commercial_use(licence) is forbids


@pytest.mark.parametrize("weights", ["pretrained", "pretrained-or-random"])
def test_published_weights_need_their_licence_accepted(weights: str) -> None:
    with pytest.raises(WeightsError) as caught:
        refuse_unaccepted("convnextv2_atto", "cc-by-nc-4.0", weights, ["mit"])
    message = str(caught.value)
    assert "'convnextv2_atto'" in message
    assert "`accept_licenses: [cc-by-nc-4.0]`" in message
    assert "\n" not in message
    refuse_unaccepted("convnextv2_atto", "cc-by-nc-4.0", weights, ["CC-BY-NC-4.0"])


@pytest.mark.parametrize("weights", ["random", "mine.safetensors"])
def test_other_weights_are_the_users_own_matter(weights: str) -> None:
    refuse_unaccepted("convnextv2_atto", "cc-by-nc-4.0", weights, [])
