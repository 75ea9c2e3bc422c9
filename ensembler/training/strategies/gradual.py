"""The head first, then one share of the layers more each epoch, from the top (Howard & Ruder 2018).

Thawing is spread over the first half of the epochs, so that everything has time to settle together.
"""

from __future__ import annotations

from torch import nn

from ..adaptation import Adaptation, freeze_below
from ..recipe import Recipe
from .lp_ft import LpFt


class Thaw(Adaptation):
    """Unfreezes from the top; the optimiser knows every parameter from the start."""

    def epoch(self, model: nn.Module, epoch: int, recipe: Recipe) -> None:
        """See `Adaptation.epoch`."""
        freeze_below(model, 1 - thawed(epoch, recipe.epochs))


def thawed(epoch: int, epochs: int) -> float:
    """Share of the layers that move in an epoch, counted from 1."""
    return min(1.0, epoch / max(1, epochs // 2))


class Gradual(LpFt):
    """Linear probe, then fine-tuning from the top down."""

    name = "gradual"
    adaptation = Thaw
