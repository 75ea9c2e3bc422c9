"""Default recipes: what every search tries first; the space around them is in `space.py`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from .recipe import Recipe

#: Below this many parameters a backbone wants rates about ten times those of a large one (measured: see
#: docs/design.md, "The default recipe").
SMALL_BACKBONE = 10_000_000

#: Least rate of low-rank updates: they want about ten times that of the whole matrices of a large backbone (Hu et
#: al. 2021 train with 2e-4 to 5e-3), and no more than a small one has already.
LORA_LR = 1e-3


def default_recipe(params: int, transformer: bool, strategy: str = "lp-ft") -> Recipe:
    """The recipe that every search tries first.

    Args:
        params: number of parameters of the backbone.
        transformer: whether it is a ViT-like model, whose lower layers are to move less.
        strategy: that trains with it.
    """
    if params < SMALL_BACKBONE:
        return Recipe(batch_size=64, lr=4e-3, head_lr=4e-3, layer_decay=1.0, augment=0.5)
    recipe = Recipe(batch_size=32, lr=1e-4, head_lr=1e-3, layer_decay=0.75 if transformer else 0.9)
    return dataclasses.replace(recipe, lr=LORA_LR, layer_decay=1.0) if strategy == "lora" else recipe


def apply(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """A recipe with some values replaced; whole numbers stay whole, floats keep six digits."""
    typed = {
        key: round(value) if isinstance(getattr(recipe, key), int) and not isinstance(value, bool) else value
        for key, value in values.items()
    }
    typed = {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in typed.items()}
    return dataclasses.replace(recipe, **typed)
