"""Backbones as shapes: on torch's meta device, where a tensor has a shape and no memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .backbone import count_parameters, create, timm_module
from .licences import forbids_commercial_use

#: What initialisations are made of. On the meta device they change nothing, and take most of the time.
_FILLING = frozenset(
    {
        Tensor.add_,
        Tensor.clamp_,
        Tensor.copy_,
        Tensor.div_,
        Tensor.erfinv_,
        Tensor.fill_,
        Tensor.mul_,
        Tensor.normal_,
        Tensor.sub_,
        Tensor.uniform_,
        Tensor.zero_,
    }
)


@dataclass(frozen=True)
class BackboneInfo:
    """What every run has to know of a backbone; what it costs is in `costs.py`, where it is asked for.

    Attributes:
        params: number of parameters without the head.
        transformer: whether its blocks are those of a plain vision transformer.
        licence: of the published weights, as timm states it; "" when unknown.
    """

    params: int
    transformer: bool
    licence: str

    @property
    def non_commercial(self) -> bool:
        """Whether the licence of the published weights forbids commercial use."""
        return forbids_commercial_use(self.licence)


class _Uninitialised(TorchFunctionMode):
    """Leaves out what would fill a tensor of the meta device with values."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _FILLING and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


def blueprint(name: str, image_size: int | None = None) -> nn.Module:
    """The model of a backbone without a head, on the meta device.

    Args:
        name: timm's name.
        image_size: see `create`.

    Raises:
        BackboneError: see `create`.
    """
    with torch.device("meta"), _Uninitialised():
        return create(name, 0, image_size=image_size)


def describe(name: str) -> BackboneInfo:
    """A backbone's size and licence, without allocating its weights.

    Raises:
        BackboneError: see `create`.
    """
    model = blueprint(name)
    cfg = timm_module().get_pretrained_cfg(name)
    return BackboneInfo(
        params=count_parameters(model),
        transformer=type(model).__name__
        in ("VisionTransformer", "Eva", "Beit", "DistilledVisionTransformer"),
        licence=getattr(cfg, "license", None) or "",
    )
