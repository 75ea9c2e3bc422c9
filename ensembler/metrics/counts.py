"""Scores of the confusion counts: what was predicted how often for which class.

They see the class of the largest probability alone. All counts under all weightings come from one sparse
product (see `Groups`), over the (true, predicted) pairs that occur, so a thousand classes cost no million cells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Floats, Groups, Labels, Score, in_chunks, mean_where_defined, ratio, zero_where_empty

Indices = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Confusion:
    """Weight of each (true class, predicted class) that occurs, under many weightings.

    Attributes:
        true: (cells,) index of a class.
        chosen: (cells,) index of the class that was predicted.
        count: float64 (cells, draws), weight of such rows.
        n_classes: of the probabilities.
    """

    true: Indices
    chosen: Indices
    count: Floats
    n_classes: int

    @cached_property
    def support(self) -> Floats:
        """Weight of the rows of each class, (classes, draws)."""
        return Groups(self.true, self.n_classes).sums(self.count)

    @cached_property
    def predicted(self) -> Floats:
        """Weight of the rows predicted as each class, (classes, draws)."""
        return Groups(self.chosen, self.n_classes).sums(self.count)

    @cached_property
    def hits(self) -> Floats:
        """Weight of the rows of each class that are predicted as it, (classes, draws)."""
        right = self.true == self.chosen
        return Groups(self.true[right], self.n_classes).sums(self.count[right])

    @property
    def mass(self) -> Floats:
        """Weight of all rows, (draws,)."""
        total: Floats = self.support.sum(axis=0)
        return total


def from_counts(of_counts: Callable[[Confusion], Floats]) -> Score:
    """A score from its function of the counts."""

    def prepare(labels: Labels, proba: NDArray[Any]) -> Callable[[Floats], Floats]:
        n_classes = proba.shape[1]
        index = labels * n_classes + proba.argmax(axis=1)
        if n_classes**2 <= len(labels):
            cells = np.arange(n_classes**2)
        else:
            cells, index = np.unique(index, return_inverse=True)
        true, chosen = np.divmod(cells, n_classes)
        groups = Groups(index, len(cells))
        return lambda weights: of_counts(Confusion(true, chosen, groups.sums(weights), n_classes))

    return in_chunks(prepare)


# ---------------------------------------------------------------------- by class


def _precision(c: Confusion) -> Floats:
    return zero_where_empty(c.hits, c.predicted)


def _recall(c: Confusion) -> Floats:
    return zero_where_empty(c.hits, c.support)


def _f1(c: Confusion) -> Floats:
    return zero_where_empty(2 * c.hits, c.support + c.predicted)


def macro(by_class: Callable[[Confusion], Floats]) -> Score:
    """Mean over the classes that occur among the labels or the predictions."""

    def of_counts(c: Confusion) -> Floats:
        return mean_where_defined(np.where(c.support + c.predicted > 0, by_class(c), np.nan))

    return from_counts(of_counts)


def weighted(by_class: Callable[[Confusion], Floats]) -> Score:
    """Mean over the classes, each weighted with its share of the labels."""

    def of_counts(c: Confusion) -> Floats:
        return ratio((c.support * by_class(c)).sum(axis=0), c.mass)

    return from_counts(of_counts)


#: 0 for a class that is never predicted.
macro_precision, weighted_precision = macro(_precision), weighted(_precision)
#: 0 for a class that is predicted and never the label.
macro_recall = macro(_recall)
#: Harmonic mean of precision and recall of each class.
macro_f1, weighted_f1 = macro(_f1), weighted(_f1)


@from_counts
def balanced_accuracy(c: Confusion) -> Floats:
    """Recall averaged over the classes that occur among the labels."""
    return mean_where_defined(ratio(c.hits, c.support))


# ---------------------------------------------------------------------- agreement beyond chance


@from_counts
def mcc(c: Confusion) -> Floats:
    """Matthews' correlation coefficient for any number of classes (Gorodkin 2004).

    0 where all labels, or all predictions, are of one class.
    """
    # Each square is that of the very sum it is compared with, so that one class leaves exactly nothing.
    spread = [side.sum(axis=0) ** 2 - (side**2).sum(axis=0) for side in (c.support, c.predicted)]
    together = c.hits.sum(axis=0) * c.mass - (c.support * c.predicted).sum(axis=0)
    score = zero_where_empty(together, np.sqrt(spread[0] * spread[1]))
    return np.where(c.mass > 0, score, np.nan)


@from_counts
def kappa(c: Confusion) -> Floats:
    """Agreement of labels and predictions beyond that of chance (Cohen 1960).

    NaN where labels and predictions are all of the same class.
    """
    return _kappa(c, np.asarray(c.true != c.chosen, np.float64), _by_chance)


@from_counts
def quadratic_kappa(c: Confusion) -> Floats:
    """Kappa with the squared distance between classes as their disagreement (Cohen 1968).

    It is for classes in a meaningful order, equally spaced; those that do not occur keep their place. NaN
    where labels and predictions are all of the same class.
    """
    return _kappa(c, np.asarray((c.true - c.chosen) ** 2, np.float64), _squares_by_chance)


def _kappa(c: Confusion, disagreement: Floats, by_chance: Callable[[Confusion], Floats]) -> Floats:
    """1 - disagreement found / disagreement by chance, (draws,)."""
    found: Floats = disagreement @ c.count * c.mass
    agreement: Floats = 1 - ratio(found, by_chance(c))
    return agreement


def _by_chance(c: Confusion) -> Floats:
    """Weight of the pairs of a label and a prediction that differ."""
    pairs = c.support.sum(axis=0) * c.predicted.sum(axis=0)
    differing: Floats = pairs - (c.support * c.predicted).sum(axis=0)
    return differing


def _squares_by_chance(c: Confusion) -> Floats:
    """The same, each pair times the squared distance of its classes."""
    place = np.arange(c.n_classes, dtype=np.float64)
    distance = (place[:, None] - place) ** 2
    weight: Floats = (c.support * (distance @ c.predicted)).sum(axis=0)
    return weight
