"""Median of the members' probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..metrics import PROBA_EPS
from .base import Combiner, Floats, Fold, Labels, Proba, weighted_mean

#: Numbers of all members that are sorted at once (8 MiB): no second cube.
_AT_ONCE = 2**21


@dataclass(eq=False, kw_only=True)
class Median(Combiner):
    """Median over the members, class by class, normalised: fewer than half of them can be as wrong as they like.

    Where certain members are so divided that no class has a median above 0, the row is their mean: it is added with
    the weight `PROBA_EPS`, which makes no difference to other rows.
    """

    name: ClassVar[str] = "median"

    def _fit(self, proba: Proba, labels: Labels, fold: Fold) -> None:
        """Nothing to learn."""

    def _combine(self, proba: Proba) -> Floats:
        n_members, n_rows, n_classes = proba.shape
        combined = PROBA_EPS * weighted_mean(proba, None)
        height = max(1, _AT_ONCE // (n_members * n_classes))
        for start in range(0, n_rows, height):
            rows = slice(start, start + height)
            block = np.array(proba[:, rows].transpose(1, 2, 0), order="C")
            combined[rows] += np.median(block, axis=2, overwrite_input=True)
        return combined
