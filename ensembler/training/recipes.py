"""Default recipes and the space around them: what a search tries, whatever tool draws the numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from .recipe import Recipe

#: Below this many parameters a backbone wants rates about ten times those of a large one (measured: see
#: docs/design.md, "The default recipe").
SMALL_BACKBONE = 10_000_000


def default_recipe(params: int, transformer: bool) -> Recipe:
    """The recipe that every search tries first.

    Args:
        params: number of parameters of the backbone.
        transformer: whether it is a ViT-like model, whose lower layers are to move less.
    """
    if params < SMALL_BACKBONE:
        return Recipe(batch_size=64, lr=4e-3, head_lr=4e-3, layer_decay=1.0, augment=0.5)
    return Recipe(batch_size=32, lr=1e-4, head_lr=1e-3, layer_decay=0.75 if transformer else 0.9)


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, evenly spread or evenly spread in the logarithm."""

    low: float
    high: float
    log: bool = False

    def at(self, share: float) -> float:
        """The number at a share in [0, 1] of the range."""
        if self.log:
            return math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        return self.low + share * (self.high - self.low)

    def share(self, value: float) -> float:
        """The inverse of `at`."""
        if self.log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    values: tuple[Any, ...]


Distribution = Range | Choice


def default_space(recipe: Recipe) -> dict[str, Distribution]:
    """The space around a default recipe: rates by factors, the rest by the values the field uses."""
    decays = (1.0, 0.9, 0.8) if recipe.layer_decay > 0.8 else (0.9, 0.75, 0.65)
    return {
        "lr": Range(recipe.lr / 4, recipe.lr * 3, log=True),
        "head_lr": Range(recipe.head_lr / 8, recipe.head_lr * 3, log=True),
        "weight_decay": Range(1e-4, 1e-1, log=True),
        "layer_decay": Choice(decays),
        "label_smoothing": Choice((0.0, 0.05, 0.1)),
        "dropout": Choice((0.0, 0.2)),
        "augment": Choice((0.5, 1.0, 1.5)),
    }


def read_space(
    overrides: Mapping[str, Any], fixed: Mapping[str, Any], recipe: Recipe
) -> dict[str, Distribution]:
    """The space of a config: the default one, with overrides, without what the config's recipe pins.

    Raises:
        ConfigError: an override that is neither `{low, high}` nor a list of values.
    """
    space = {k: v for k, v in default_space(recipe).items() if k not in fixed}
    for key, value in overrides.items():
        if isinstance(value, list) and value:
            space[key] = Choice(tuple(value))
        elif isinstance(value, Mapping) and {"low", "high"} <= value.keys() <= {"low", "high", "log"}:
            low, high, log = float(value["low"]), float(value["high"]), bool(value.get("log", False))
            if not low < high or (log and low <= 0):
                raise ConfigError(f"search.space.{key}: {dict(value)}; expected low < high, above 0 if log")
            space[key] = Range(low, high, log)
        else:
            raise ConfigError(
                f"search.space.{key}: {value!r}; expected a list of values or {{low: ..., high: ..., log: true}}"
            )
    return space


def apply(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """A recipe with some values replaced; whole numbers stay whole, floats keep six digits."""
    typed = {
        key: round(value) if isinstance(getattr(recipe, key), int) and not isinstance(value, bool) else value
        for key, value in values.items()
    }
    typed = {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in typed.items()}
    return dataclasses.replace(recipe, **typed)
