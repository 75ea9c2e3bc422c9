"""The space around a default recipe: what may be drawn, when, and from which trial on.

Each hyperparameter has a distribution. A distribution may have a condition (`rand_ops` matters to RandAugment alone)
and a number of draws after which it joins: a search of a dozen trials is best spent on the rates, and only a long one
can learn anything about the rest.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError
from .recipe import Recipe

#: Draws of one arm after which the second and the third part of the space join.
WIDE_AFTER, FULL_AFTER = 12, 36

#: Images below which mixing two of them costs more than it brings (Kolesnikov et al. 2020, "Big Transfer").
MIXUP_IMAGES = 20_000

#: Peak rates that are drawn at the default batch size and scaled with the batch that is drawn beside them.
RATES = ("lr", "head_lr")

#: What a condition may ask about beside other hyperparameters.
STRATEGY = "strategy"

#: Hyperparameter (or `strategy`) -> the values under which a distribution is drawn from; all must hold.
Condition = Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, evenly spread or evenly spread in the logarithm."""

    low: float
    high: float
    log: bool = False
    when: Condition = field(default_factory=dict)
    after: int = 0

    def at(self, share: float) -> float:
        """The number at a share in [0, 1] of the range."""
        if self.log:
            return math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        return self.low + share * (self.high - self.low)

    def share(self, value: float) -> float:
        """The inverse of `at`."""
        if self.log:
            if value <= 0:
                return -math.inf
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    values: tuple[Any, ...]
    when: Condition = field(default_factory=dict)
    after: int = 0


Distribution = Range | Choice
Space = Mapping[str, Distribution]


def default_space(recipe: Recipe, strategy: str, *, large: bool, n_images: int) -> dict[str, Distribution]:
    """The space around a default recipe; its conditions on strategy, size and images are settled already.

    Args:
        recipe: the default.
        strategy: that trains with it.
        large: whether the backbone has `recipes.SMALL_BACKBONE` parameters or more.
        n_images: train rows of a fold.
    """
    body = strategy != "lora"  # whose body does not move
    decays = (1.0, 0.9, 0.8) if recipe.layer_decay > 0.8 else (0.9, 0.75, 0.65)
    batches = [b for b in (16, 32, 64, 128, 256) if b <= max(recipe.batch_size, n_images // 8)]
    space: dict[str, Distribution | None] = {
        "lr": Range(recipe.lr / (10 if large else 4), recipe.lr * (10 if large else 3), log=True),
        "head_lr": Range(recipe.head_lr / 8, recipe.head_lr * (10 if large else 3), log=True),
        "weight_decay": Range(1e-5 if large else 1e-4, 1e-1, log=True),
        "layer_decay": Choice(decays) if body else None,
        "label_smoothing": Choice((0.0, 0.05, 0.1)),
        "dropout": Choice((0.0, 0.2)),
        "frozen": Range(0.0, 0.8) if strategy == "partial" else None,
        "lora_rank": Choice((2, 4, 8, 16, 32)) if strategy == "lora" else None,
        "policy": Choice(("standard", "trivial", "rand"), after=WIDE_AFTER),
        "erasing": Range(0.0, 0.3, after=WIDE_AFTER),
        "warmup": Range(0.0, 0.2, after=WIDE_AFTER),
        "drop_path": Range(0.0, 0.3, after=WIDE_AFTER) if large else None,
        "ema": Choice(tuple(sorted({0.0, recipe.ema, 0.99, 0.998})), after=FULL_AFTER),
        "batch_size": Choice(tuple(sorted({*batches, recipe.batch_size})), after=FULL_AFTER),
        "l2_sp": Choice((0.0, 1e-4, 1e-3, 1e-2, 1e-1), after=FULL_AFTER) if body else None,
        "mixup": Choice((0.0, 0.1, 0.2, 0.4), after=FULL_AFTER) if n_images >= MIXUP_IMAGES else None,
        "cutmix": Choice((0.0, 0.5, 1.0), after=FULL_AFTER) if n_images >= MIXUP_IMAGES else None,
        "augment": Choice((0.5, 1.0, 1.5), when={"policy": ("standard",)}),
        "rand_ops": Choice((2, 3), when={"policy": ("rand",)}),
        "rand_magnitude": Range(5.0, 12.0, when={"policy": ("rand",)}),
    }
    return {key: d for key, d in space.items() if d is not None}


def read_space(
    overrides: Mapping[str, Any], fixed: Mapping[str, Any], strategy: str, around: Space
) -> dict[str, Distribution]:
    """The space of a config: the default one, with overrides, without what the config's recipe pins.

    What is overridden is drawn from the first trial on, where its condition holds.

    Raises:
        ConfigError: an override that is none; see `read_distribution`.
    """
    space = {key: d for key, d in around.items() if key not in fixed}
    for key, value in overrides.items():
        distribution = read_distribution(key, value)
        when = dict(distribution.when)
        if strategy in when.pop(STRATEGY, (strategy,)):
            space[key] = dataclasses.replace(distribution, when=when)
        else:
            space.pop(key, None)
    # A condition is judged by what has been drawn: what has one comes last.
    return dict(sorted(space.items(), key=lambda item: bool(item[1].when)))


def read_distribution(key: str, value: Any) -> Distribution:
    """`[values]`, `{values: [...]}` or `{low, high, log}`, the last two with `when: {other: [values]}`.

    Raises:
        ConfigError: anything else.
    """
    if isinstance(value, list) and value:
        return Choice(tuple(value))
    if isinstance(value, Mapping):
        when = _read_condition(key, value.get("when", {}))
        rest = {k: v for k, v in value.items() if k != "when"}
        if rest.keys() == {"values"} and isinstance(rest["values"], list) and rest["values"]:
            return Choice(tuple(rest["values"]), when)
        if {"low", "high"} <= rest.keys() <= {"low", "high", "log"}:
            low, high, log = float(rest["low"]), float(rest["high"]), bool(rest.get("log", False))
            if not low < high or (log and low <= 0):
                raise ConfigError(f"search.space.{key}: {rest}; expected low < high, above 0 if log")
            return Range(low, high, log, when)
    raise ConfigError(
        f"search.space.{key}: {value!r}; expected a list of values or {{low: ..., high: ..., log: true}}"
    )


def _read_condition(key: str, when: Any) -> dict[str, tuple[Any, ...]]:
    if not isinstance(when, Mapping):
        raise ConfigError(f"search.space.{key}: when {when!r}; expected such as {{policy: [rand]}}")
    condition = {k: tuple(v) if isinstance(v, list) else (v,) for k, v in when.items()}
    known = [STRATEGY, *Recipe.__dataclass_fields__]
    for other in condition:
        if other not in known or other == key:
            raise ConfigError(
                f"search.space.{key}: when {other!r}; expected `strategy` or another hyperparameter"
            )
    return condition


def draw(
    space: Space, recipe: Recipe, pick: Callable[[str, Distribution], Any], number: int | None = None
) -> dict[str, Any]:
    """One value each for what may be drawn.

    Args:
        space: conditional distributions after those they depend on.
        recipe: of the hyperparameters that are not drawn.
        pick: draws one value.
        number: of the draw, which tells how much of the space has joined; None is all of it.
    """
    values: dict[str, Any] = {}
    for key, distribution in space.items():
        joined = number is None or number >= distribution.after
        if joined and holds(distribution.when, values, recipe):
            values[key] = pick(key, distribution)
    return values


def holds(when: Condition, values: Mapping[str, Any], recipe: Recipe) -> bool:
    """Whether a condition holds, given what was drawn and the recipe for the rest."""
    return all(
        values.get(other, getattr(recipe, other, None)) in expected for other, expected in when.items()
    )


def rate_scale(batch_size: int, recipe: Recipe) -> float:
    """Factor on the rates when a batch of another size is drawn.

    Linear for plain gradients (Goyal et al. 2017), the square root for optimisers that normalise them (Malladi et
    al. 2022).
    """
    return float((batch_size / recipe.batch_size) ** (1.0 if recipe.optimizer == "sgd" else 0.5))


def cap_epochs(space: Space, epochs: int) -> dict[str, Distribution]:
    """The space without recipes of more epochs than a budget has time for."""
    capped = dict(space)
    found = capped.pop("epochs", None)
    if isinstance(found, Choice):
        capped["epochs"] = dataclasses.replace(
            found, values=tuple(v for v in found.values if v <= epochs) or (epochs,)
        )
    elif found is not None and found.low < epochs:
        capped["epochs"] = dataclasses.replace(found, high=min(found.high, epochs))
    return dict(sorted(capped.items(), key=lambda item: bool(item[1].when)))
