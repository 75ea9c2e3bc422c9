"""What a sweep chooses among: a backbone with its weights, a strategy, a default recipe and the space around it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config import Config
from ..training.backbone import BackboneInfo
from ..training.candidate import Candidate
from ..training.recipe import Recipe
from ..training.recipes import Distribution, apply, default_recipe, read_space
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
        """The candidate with some hyperparameters replaced."""
        return Candidate(self.backbone, self.weights, self.strategy, apply(self.recipe, values))

    def covers(self, candidate: Candidate) -> bool:
        """Whether a candidate could come out of a search of this arm."""
        own = (self.backbone, self.weights, self.strategy)
        return own == (candidate.backbone, candidate.weights, candidate.strategy) and all(
            value == getattr(self.recipe, key)
            for key, value in dataclasses.asdict(candidate.recipe).items()
            if key not in self.space
        )

    @property
    def key(self) -> list[Any]:
        """What tells it from other arms, JSON-able."""
        return [self.backbone, self.weights, self.strategy, self.recipe.epochs]


def make_arms(config: Config, backbones: Sequence[ReadyBackbone]) -> list[Arm]:
    """What may be searched: every backbone with every strategy that makes sense for its weights."""
    arms: list[Arm] = []
    for backbone in backbones:
        base = default_recipe(backbone.info.params, backbone.info.transformer)
        if config.search:
            base = dataclasses.replace(base, epochs=config.search.epochs)
        base = apply(base, config.recipe)
        overrides = config.search.space if config.search else {}
        space = read_space(overrides, config.recipe, base)
        for strategy in config.strategies:
            if strategy == "probe":
                continue  # screening trains it, without a recipe to search
            # A head fitted on random features is no better start than a random head.
            effective = "full" if backbone.weights.label == "random" else strategy
            arm = Arm(backbone.name, backbone.weights.label, effective, base, space)
            if arm not in arms:
                arms.append(arm)
    return arms
