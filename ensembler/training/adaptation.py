"""What of a model moves, and when: the part of a strategy that touches the model.

The loop calls `begin` before it makes the optimiser, `epoch` before each epoch, `arrays` to store the weights as a
plain timm model of the same architecture has them, and `finish` before it loads them back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from . import backbone
from .recipe import Recipe


class Adaptation:
    """Everything moves, from the first step; the base of the others."""

    def begin(self, model: nn.Module, recipe: Recipe) -> None:
        """Freezes or wraps parts of a model, before it moves to its device."""

    def epoch(self, model: nn.Module, epoch: int, recipe: Recipe) -> None:
        """Called before each epoch, counted from 1."""

    def arrays(self, model: nn.Module) -> Mapping[str, NDArray[Any]]:
        """The weights under timm's names."""
        return backbone.to_arrays(model.state_dict())

    def finish(self, model: nn.Module) -> None:
        """Makes the model a plain one again, ready for `arrays` to be loaded."""


def freeze_below(model: nn.Module, share: float) -> None:
    """Freezes the first `share` of the body's layers, and unfreezes the others."""
    layers = backbone.layers(model)
    heads = set(backbone.head_names(model))
    n = 1 + max((layer for name, layer in layers.items() if name not in heads), default=0)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in heads or layers[name] >= round(share * n))


def hold_statistics(model: nn.Module, everywhere: bool) -> None:
    """Puts BatchNorm into eval mode where its weights are frozen, or everywhere: frozen statistics drift otherwise."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            weight = next(module.parameters(), None)
            if everywhere or (weight is not None and not weight.requires_grad):
                module.eval()
