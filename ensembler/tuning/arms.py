"""What a sweep chooses among: a backbone with its weights, a strategy, a default recipe and the space around it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config import Config
from ..training.blueprint import BackboneInfo
from ..training.candidate import FROZEN_BODY, Candidate
from ..training.recipe import Recipe
from ..training.recipes import SMALL_BACKBONE, apply, default_recipe
from ..training.space import RATES, Distribution, cap_epochs, default_space, holds, rate_scale, read_space
from ..training.weights import Weights


@dataclass(frozen=True)
class ReadyBackbone:
    """A backbone whose weights have been found."""

    name: str
    weights: Weights
    info: BackboneInfo


@dataclass(frozen=True)
class Arm:
    """A backbone with its weights, strategy, default recipe and the space around it."""

    backbone: str
    weights: str
    strategy: str
    recipe: Recipe
    space: Mapping[str, Distribution]

    @property
    def default(self) -> Candidate:
        """The candidate of the default recipe: what every search tries first."""
        return self.candidate({})

    def candidate(self, values: Mapping[str, Any]) -> Candidate:
        """The candidate with some hyperparameters replaced by drawn ones; rates follow a drawn batch size."""
        factor = rate_scale(values.get("batch_size", self.recipe.batch_size), self.recipe)
        scaled = {k: v * factor if k in RATES and factor != 1 else v for k, v in values.items()}
        return Candidate(self.backbone, self.weights, self.strategy, apply(self.recipe, scaled))

    def drawn(self, candidate: Candidate) -> dict[str, Any]:
        """The inverse of `candidate`: what would have to be drawn for one of this arm's candidates."""
        recipe = candidate.recipe
        factor = rate_scale(recipe.batch_size, self.recipe) if "batch_size" in self.space else 1.0
        values = {key: getattr(recipe, key) for key in self.space}
        return {
            key: value / factor if key in RATES else value
            for key, value in values.items()
            if holds(self.space[key].when, values, recipe)
        }

    def is_of(self, candidate: Candidate) -> bool:
        """Whether a candidate has this arm's backbone, weights and strategy."""
        own = (self.backbone, self.weights, self.strategy)
        return own == (candidate.backbone, candidate.weights, candidate.strategy)

    def with_epochs(self, epochs: int) -> Arm:
        """The arm whose recipes have no more epochs."""
        recipe = dataclasses.replace(self.recipe, epochs=epochs)
        return dataclasses.replace(self, recipe=recipe, space=cap_epochs(self.space, epochs))

    def covers(self, candidate: Candidate) -> bool:
        """Whether a candidate could come out of a search of this arm."""
        return self.is_of(candidate) and all(
            value == getattr(self.recipe, key)
            for key, value in dataclasses.asdict(candidate.recipe).items()
            if key not in self.space
        )

    @property
    def key(self) -> list[Any]:
        """What tells it from other arms, JSON-able."""
        return [self.backbone, self.weights, self.strategy, self.recipe.epochs]


def make_arms(config: Config, backbones: Sequence[ReadyBackbone], n_images: int) -> list[Arm]:
    """What may be searched: every backbone with every strategy that makes sense for its weights.

    Args:
        config: the experiment's.
        backbones: with their weights found.
        n_images: train rows of a fold.
    """
    arms: list[Arm] = []
    for backbone in backbones:
        for strategy in config.strategies:
            if strategy in FROZEN_BODY:
                continue  # screening trains it, without a recipe to search
            # A head fitted on random features is no better start than a random head.
            effective = "full" if backbone.weights.label == "random" else strategy
            arm = _arm(config, backbone, effective, n_images)
            if arm not in arms:
                arms.append(arm)
    return arms


def _arm(config: Config, backbone: ReadyBackbone, strategy: str, n_images: int) -> Arm:
    recipe = default_recipe(backbone.info.params, backbone.info.transformer, strategy)
    if config.search and config.search.epochs != "auto":
        recipe = dataclasses.replace(recipe, epochs=config.search.epochs)
    recipe = apply(recipe, config.recipe)
    large = backbone.info.params >= SMALL_BACKBONE
    around = default_space(recipe, strategy, large=large, n_images=n_images)
    overrides = config.search.space if config.search else {}
    space = read_space(overrides, config.recipe, strategy, around)
    return Arm(backbone.name, backbone.weights.label, strategy, recipe, space)
