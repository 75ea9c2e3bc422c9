"""Backbones by name: the only place that knows timm.

Weights come to this module as a file, whatever the config said: see `weights.find_weights`.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..errors import BackboneError, WeightsError, did_you_mean
from .recipe import Recipe

_PROBLEMS = (RuntimeError, KeyError, ValueError, TypeError, AssertionError, SafetensorError, OSError)


def timm_module() -> Any:
    """The timm module, imported when first needed: it costs three seconds."""
    import timm

    return timm


def check_backbone(name: str) -> None:
    """Raises BackboneError, with the nearest names, unless timm knows the architecture and its tag."""
    timm = timm_module()
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        hint = did_you_mean(name, timm.list_models(), n=3)
        raise BackboneError(f"backbone {name!r}: unknown to timm; {hint}")
    tagged = timm.list_models(f"{architecture}.*", pretrained=True) if tag else []
    if tag and name not in tagged:
        way_out = did_you_mean(name, tagged, n=3) if tagged else f"write {architecture!r}"
        raise BackboneError(f"backbone {name!r}: timm knows no weights {tag!r} of it; {way_out}")


def list_backbones(pattern: str = "*") -> list[str]:
    """Names of timm's architectures that match a shell pattern."""
    return cast(list[str], timm_module().list_models(pattern))


def lineage(name: str) -> tuple[str, str]:
    """The file of timm that defines an architecture, such as "convnext", and the tag of its weights, or "".

    Raises:
        BackboneError: the name is unknown to timm.
    """
    check_backbone(name)
    timm = timm_module()
    architecture, _, tag = name.partition(".")
    if not tag:
        tag = getattr(timm.get_pretrained_cfg(name), "tag", None) or ""
    return str(timm.models.model_entrypoint(architecture).__module__).rsplit(".", 1)[-1], tag


def normalisation(name: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation (RGB, of pixels in [0, 1]) that a backbone was pretrained with."""
    cfg = timm_module().get_pretrained_cfg(name)
    if cfg is None:
        return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return tuple(cfg.mean), tuple(cfg.std)


def open_weights(file: Path) -> Any:
    """A safetensors file, opened to read its header and tensors; a context manager.

    Raises:
        WeightsError: it is none.
    """
    try:
        return safe_open(file, framework="np")
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"weights {str(file)!r}: no safetensors file ({error}); convert it first"
        ) from error


# ---------------------------------------------------------------------- models


def create(
    name: str,
    n_classes: int,
    weights: Path | None = None,
    *,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    hidden: Sequence[int] = (),
    image_size: int | None = None,
) -> nn.Module:
    """A timm model with a new head of `n_classes` outputs, in float32 on the CPU.

    Args:
        name: timm's name.
        n_classes: outputs of the new head.
        weights: safetensors under timm's parameter names, with a head of any size or none; None leaves the
            random initialisation, which follows torch's global seed.
        dropout: rate before the head, and after each hidden layer of it.
        drop_path: rate of stochastic depth; ignored by architectures without it.
        hidden: widths of the head's hidden layers; none is a linear head.
        image_size: passed on to models of a fixed input size (ViT); ignored by the others.

    Raises:
        BackboneError: the name is unknown or the model cannot be built.
        WeightsError: the file does not fit the architecture; names the first misfit.
    """
    check_backbone(name)
    timm = timm_module()
    options: dict[str, Any] = {"num_classes": n_classes, "drop_rate": dropout}
    cfg = timm.get_pretrained_cfg(name)
    if image_size and cfg is not None and getattr(cfg, "fixed_input_size", False):
        options["img_size"] = image_size
    if weights is not None:
        options["pretrained"] = True
        options["pretrained_cfg_overlay"] = {
            "file": str(weights),
            "hf_hub_id": None,
            "url": "",
            "num_classes": _head_size(weights, cfg),
        }
    logging.getLogger("timm").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), _recording_loads() as loads:
            warnings.simplefilter("ignore")  # timm's deprecations of its own registry are not the user's
            model = _with_drop_path(name, options, drop_path)
        if weights is not None:
            _refuse_gaps(model, loads)
            # timm keeps a head that happens to have as many outputs; those of other classes mean nothing here.
            cast(Any, model).reset_classifier(n_classes)
        return _with_hidden_layers(model, n_classes, hidden, dropout) if hidden else model
    except _PROBLEMS as error:
        reason = " ".join(str(error).split())
        if weights is None:
            raise BackboneError(
                f"backbone {name!r}: cannot be built: {reason[:300]}; choose another"
            ) from error
        raise WeightsError(
            f"backbone {name!r}: weights {str(weights)!r} do not fit: {reason[:300]}; "
            "give weights of this architecture"
        ) from error


def _with_drop_path(name: str, options: Mapping[str, Any], rate: float) -> nn.Module:
    """The model, with stochastic depth where its architecture knows it."""
    build = timm_module().create_model
    if rate:
        with suppress(TypeError):  # what an unknown keyword argument raises
            return cast(nn.Module, build(name, **options, drop_path_rate=rate))
    return cast(nn.Module, build(name, **options))


def _with_hidden_layers(model: nn.Module, n_classes: int, hidden: Sequence[int], dropout: float) -> nn.Module:
    old = head(model)
    name = next(n for n, module in model.named_modules() if module is old)
    model.set_submodule(name, HiddenHead(cast(nn.Linear, old).in_features, n_classes, hidden, dropout))
    return model


class HiddenHead(nn.Sequential):
    """A head of hidden layers: linear, GELU and dropout each, then a linear one.

    Args:
        width: of the features.
        n_classes: outputs.
        hidden: width of each hidden layer.
        dropout: after each hidden layer.
    """

    def __init__(self, width: int, n_classes: int, hidden: Sequence[int], dropout: float = 0.0) -> None:
        parts: list[nn.Module] = []
        for size in hidden:
            parts += [nn.Linear(width, size), nn.GELU(), nn.Dropout(dropout)]
            width = size
        super().__init__(*parts, nn.Linear(width, n_classes))


def hidden_widths(recipe: Recipe) -> tuple[int, ...]:
    """Widths of the hidden layers of a recipe's head."""
    return (recipe.head_width,) * recipe.head_layers


@contextmanager
def _recording_loads() -> Iterator[list[Any]]:
    """The results of every `load_state_dict` meanwhile: under a new head timm lets any other tensor be missing too."""
    results: list[Any] = []
    load = nn.Module.load_state_dict

    def record(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        results.append(load(self, *args, **kwargs))
        return results[-1]

    with patch.object(nn.Module, "load_state_dict", record):
        yield results


def _refuse_gaps(model: nn.Module, loads: list[Any]) -> None:
    own = set(head_names(model))
    missing = [key for result in loads for key in result.missing_keys if key not in own]
    if missing:
        raise KeyError(f"{len(missing)} tensors are missing, first {missing[0]}")


def _head_size(weights: Path, cfg: Any) -> int:
    """Outputs of the head stored in a file; 0 when it holds none, so that timm keeps its new head."""
    classifier = getattr(cfg, "classifier", None) or ()
    names = [classifier] if isinstance(classifier, str) else list(classifier)
    with open_weights(weights) as file:
        keys = set(file.keys())
        for name in names:
            if f"{name}.weight" in keys:
                return int(file.get_slice(f"{name}.weight").get_shape()[0])
    return 0


def head(model: nn.Module) -> nn.Linear | HiddenHead:
    """The classifier of a timm model: one linear layer, or the `hidden_head` that replaced it.

    Raises:
        BackboneError: when it is neither, as in distilled models of two heads.
    """
    layer = cast(Any, model).get_classifier()
    if not isinstance(layer, nn.Linear | HiddenHead):
        kind = type(layer).__name__
        raise BackboneError(
            f"backbone {type(model).__name__!r}: its head is a {kind}, and one linear layer is needed; choose another"
        )
    return layer


def head_names(model: nn.Module) -> list[str]:
    """Parameter names of the head."""
    inside = {id(p) for p in head(model).parameters()}
    return [n for n, p in model.named_parameters() if id(p) in inside]


def features(model: nn.Module, images: Tensor) -> Tensor:
    """What the head sees: (batch, features) for normalised images (batch, 3, height, width)."""
    network = cast(Any, model)
    return cast(Tensor, network.forward_head(network.forward_features(images), pre_logits=True))


def layers(model: nn.Module) -> dict[str, int]:
    """The layer of each parameter, counted from the input, as timm groups them."""
    from timm.models import group_parameters
    from timm.optim import auto_group_layers

    if hasattr(model, "group_matcher"):
        matcher = cast(Any, model).group_matcher(coarse=False)
        return cast(dict[str, int], group_parameters(model, matcher, reverse=True))
    return cast(dict[str, int], auto_group_layers(model))


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters by layer and decay: dicts of `params`, `weight_decay`, `decays`, `lr_scale`, `is_head`.

    timm maps parameters to layers, also for families without a `group_matcher`; the scales are applied by our
    own schedule, because timm's `lr_scale` is read by timm's schedulers alone (timm#2532).
    """
    from timm.optim._param_groups import param_groups_layer_decay

    no_decay = cast(Any, model).no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    groups = param_groups_layer_decay(
        model, weight_decay=1.0, no_weight_decay_list=no_decay, layer_decay=layer_decay
    )
    in_head = {id(p) for p in head(model).parameters()}
    # One group for all that share their settings: an optimiser works through a group in one call.
    merged: dict[tuple[bool, bool, float], dict[str, Any]] = {}
    for group in groups:
        for p in group["params"]:
            is_head = id(p) in in_head
            decays = bool(group["weight_decay"])
            scale = 1.0 if is_head else group["lr_scale"]
            settings = {
                "params": [],
                "weight_decay": group["weight_decay"] * weight_decay,
                "decays": decays,
                "lr_scale": scale,
                "is_head": is_head,
            }
            merged.setdefault((is_head, decays, scale), settings)["params"].append(p)
    return list(merged.values())


# ---------------------------------------------------------------------- tensors and arrays


def to_arrays(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """Contiguous numpy copies on the CPU, as safetensors stores them."""
    return {k: np.array(v.detach().cpu().numpy(), order="C") for k, v in tensors.items()}


def load_arrays(model: nn.Module, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Fills a model from `to_arrays` of one of the same architecture; missing names keep their values.

    Raises:
        WeightsError: a name is unknown to the model or a shape differs.
    """
    state = model.state_dict()
    for key, value in arrays.items():
        if key not in state or tuple(state[key].shape) != tuple(value.shape):
            found = tuple(state[key].shape) if key in state else "no such tensor"
            raise WeightsError(f"tensor {key!r}: shape {tuple(value.shape)}; the model has {found}")
    model.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in arrays.items()}, strict=False)


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, trainable or not."""
    return sum(p.numel() for p in model.parameters())


def batches(n: int, size: int) -> Iterator[slice]:
    """Slices that cover range(n) in steps of `size`."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
