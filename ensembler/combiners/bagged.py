"""Any combiner, fitted to many bootstrap samples of the rows and averaged (Breiman 1996, "Bagging predictors")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..predictions import Predictions
from .base import Floats
from .composite import Wrapper
from .inner import inner_parts


@dataclass(eq=False, kw_only=True)
class Bagged(Wrapper):
    """Fits the base to bags of rows drawn with replacement; the probabilities are averaged.

    Rows are drawn within their fold, as many as it has, so the copies of a row stay in one part of whatever
    the base splits: its inner held-out rows are not among those it learned from.

    Attributes:
        base: key of any combiner.
        base_params: its hyperparameters.
        bags: 1 or more.
        seed: of the draws.
    """

    name: ClassVar[str] = "bagged"

    base: str = "stacking_nonneg"
    bags: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("bags", int, 1)
        self._require("seed", int, 0)

    def _fit_rows(self, predictions: Predictions) -> None:
        if len(predictions.folds) < 2:  # the base would deal the copies of a row to several parts
            predictions = predictions.with_fold(inner_parts(predictions.labels, predictions.fold))
        rng = np.random.default_rng(self.seed)
        self.inner_ = {
            f"bag{i}": self._new_base().fit(predictions.rows(draw_rows(predictions.fold, rng)))
            for i in range(self.bags)
        }

    def _combine_rows(self, predictions: Predictions) -> Floats:
        total = np.zeros(predictions.proba.shape[1:])
        for key in self.inner_:
            total += self._ask(key, predictions)
        return total / len(self.inner_)


def draw_rows(fold: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.intp]:
    """Positions of rows drawn with replacement within each fold, as many as it has; ascending."""
    drawn = [rng.choice(np.flatnonzero(fold == f), int((fold == f).sum())) for f in np.unique(fold)]
    return np.sort(np.concatenate(drawn))
