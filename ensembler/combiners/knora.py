"""Dynamic selection by the oracles of the neighbourhood (Ko, Sabourin & Britto 2008): KNORA-E and KNORA-U."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..predictions import Predictions
from .base import Floats
from .neighbours import NeighbourCombiner, Points


@dataclass(eq=False, kw_only=True)
class Knora(NeighbourCombiner):
    """Asks for each row the members that are right about the fitted rows nearest to it; says how much each counts.

    Nothing is learned but the rows themselves, so on rows it was fitted on every member seems to know its
    answer: only the cross-fitted score means anything. The answer is the weighted mean of the probabilities;
    the paper counts votes, which forget how sure a member is.

    Attributes:
        k: neighbours of a row, 1 or more.
        correct_: bool (rows, members), which member's first choice is right about each of `points_`.
    """

    learned: ClassVar[tuple[str, ...]] = (*NeighbourCombiner.learned, "correct_")

    k: int = 7
    points_: Points = field(init=False, repr=False)
    correct_: NDArray[np.bool_] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("k", int, 1)

    def _member_weights(self, correct: NDArray[np.bool_]) -> Floats:
        """(samples, k, members) of the neighbours, nearest first -> (samples, members), no row of zeros alone."""
        raise NotImplementedError

    def _fit_rows(self, predictions: Predictions) -> None:
        kept = self._kept(predictions)
        self.points_ = self._locate(kept)
        self.correct_ = np.ascontiguousarray((kept.proba.argmax(axis=2) == kept.labels).T)

    def _combine_rows(self, predictions: Predictions) -> Floats:
        near = self._neighbours(predictions, self.points_, self.k)
        return weigh(predictions, self._member_weights(self.correct_[near]))


@dataclass(eq=False, kw_only=True)
class KnoraE(Knora):
    """KNORA-ELIMINATE: the mean of the members that are right about all of the nearest neighbours.

    Where no member is right about all k, the farthest is left out, and so on, until one is; where none is
    right about the nearest, all members answer.
    """

    name: ClassVar[str] = "knora_e"

    def _member_weights(self, correct: NDArray[np.bool_]) -> Floats:
        reach = correct.cumprod(axis=1).sum(
            axis=1
        )  # how many of the nearest a member is right about in a row
        return np.asarray(reach == reach.max(axis=1, keepdims=True), np.float64)


@dataclass(eq=False, kw_only=True)
class KnoraU(Knora):
    """KNORA-UNION: each member counts as often as it is right about a neighbour.

    Where no member is right about any, all count the same.
    """

    name: ClassVar[str] = "knora_u"

    def _member_weights(self, correct: NDArray[np.bool_]) -> Floats:
        counts = correct.sum(axis=1).astype(np.float64)
        return np.where(counts.any(axis=1, keepdims=True), counts, 1.0)


def weigh(predictions: Predictions, weights: Floats) -> Floats:
    """Mean of the members under weights (samples, members) of each row: float64 (samples, classes)."""
    total = np.zeros(predictions.proba.shape[1:])
    for slab, column in zip(predictions.proba, weights.T, strict=True):
        total += column[:, None] * slab
    return np.asarray(total / weights.sum(axis=1, keepdims=True))
