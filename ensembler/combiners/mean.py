"""Averages that learn nothing: the ensembles every other one has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..metrics import clipped_log
from .base import Combiner, Floats, Fold, Labels, Proba, WeightedMean


@dataclass(eq=False, kw_only=True)
class Mean(WeightedMean):
    """Arithmetic mean of the members' probabilities, which is soft voting."""

    name: ClassVar[str] = "mean"

    def _fit(self, proba: Proba, labels: Labels, fold: Fold) -> None:  # noqa: ARG002
        self.weights_ = np.full(len(proba), 1 / len(proba))


@dataclass(eq=False, kw_only=True)
class Geometric(Combiner):
    """Geometric mean of the members' probabilities, normalised: softmax of their mean log-probabilities.

    A class that one member all but rules out stays improbable, whatever the others say.
    """

    name: ClassVar[str] = "geometric"

    def _fit(self, proba: Proba, labels: Labels, fold: Fold) -> None:
        """Nothing to learn."""

    def _combine(self, proba: Proba) -> Floats:
        total = np.zeros(proba.shape[1:])
        for slab in proba:
            total += clipped_log(slab)
        geometric: Floats = np.exp(total / len(proba))
        return geometric
