"""Mean of the members' ranks, as probabilities again (quantile normalisation: Bolstad et al. 2003)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from .base import Combiner, Floats, Fold, Labels, Proba

#: Order statistics kept of each member and class; between two of them ranks are interpolated.
_N_QUANTILES = 128


@dataclass(eq=False, kw_only=True)
class Rank(Combiner):
    """Averages how high each member puts an image among the others, rather than its probability.

    A member that is too sure, or not sure enough, counts as much as any other: only the order in which it puts the
    images of a class matters. `fit` keeps the distribution of each member's probabilities of each class, as quantiles.
    A new image is ranked against these, so one image alone can be predicted and no row depends on another. The mean
    rank is turned back by the mean of the members' quantile functions, and rows are normalised. So identical members
    give the member.

    Equal probabilities share the middle of their ranks. The distributions are anchored at probability 0 with rank 0 and
    at probability 1 with rank 1, so that no image falls outside.

    Attributes:
        quantiles_: float32 (members, classes, quantiles), ascending from 0 to 1.
        levels_: float64 (quantiles,), the rank of each, from 0 to 1.
    """

    name: ClassVar[str] = "rank"
    learned: ClassVar[tuple[str, ...]] = ("quantiles_", "levels_")

    quantiles_: NDArray[np.float32] = field(init=False, repr=False)
    levels_: Floats = field(init=False, repr=False)

    def _fit(self, proba: Proba, labels: Labels, fold: Fold) -> None:  # noqa: ARG002
        n_members, n_rows, n_classes = proba.shape
        kept = np.unique(np.linspace(0, n_rows - 1, _N_QUANTILES).round().astype(np.intp))
        self.levels_ = np.concatenate([[0], (kept + 0.5) / n_rows, [1]])
        self.quantiles_ = np.zeros((n_members, n_classes, len(kept) + 2), np.float32)
        self.quantiles_[:, :, -1] = 1
        for quantiles, slab in zip(self.quantiles_, proba, strict=True):
            columns = np.sort(np.ascontiguousarray(slab.T), axis=1)
            quantiles[:, 1:-1] = columns[:, kept].clip(0, 1)

    def _combine(self, proba: Proba) -> Floats:
        combined = np.zeros(proba.shape[1:])
        for k in range(proba.shape[2]):
            ranks = np.zeros(proba.shape[1])
            for column, (values, levels) in zip(proba[:, :, k], self.distributions(k), strict=True):
                ranks += np.interp(column, values, levels)
            ranks /= len(proba)
            for values, levels in self.distributions(k):
                combined[:, k] += np.interp(ranks, levels, values)
        return combined

    def distributions(self, k: int) -> Iterator[tuple[NDArray[np.float32], Floats]]:
        """Each member's values of a class, all different, and their ranks, both ascending."""
        for quantiles in self.quantiles_[:, k]:
            values, first, counts = np.unique(quantiles, return_index=True, return_counts=True)
            yield values, (self.levels_[first] + self.levels_[first + counts - 1]) / 2
