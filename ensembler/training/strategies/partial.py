"""The first layers stay as they are: general features need no change, and cost no memory for gradients."""

from __future__ import annotations

from torch import nn

from ..adaptation import Adaptation, freeze_below
from ..recipe import Recipe
from .lp_ft import LpFt


class FreezeShare(Adaptation):
    """Leaves the share `recipe.frozen` of the body's layers alone, counted from the input."""

    def begin(self, model: nn.Module, recipe: Recipe) -> None:
        """See `Adaptation.begin`."""
        freeze_below(model, recipe.frozen)


class Partial(LpFt):
    """Linear probe, then fine-tuning of the upper layers and the head."""

    name = "partial"
    adaptation = FreezeShare
