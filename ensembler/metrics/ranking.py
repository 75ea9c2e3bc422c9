"""Scores of the order of rows by the probability of a class: ROC AUC and average precision.

The usual way sorts all rows and sums along the curve, once a weighting. Here only the positive rows are sorted
and summed along, for all weightings at once; every other row then looks up the weight of the positive rows above
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Floats, Groups, Labels, in_chunks, mean_where_defined, ratio, zero_where_empty

Flags = NDArray[np.bool_]
Indices = NDArray[np.integer[Any]]

#: Most numbers looked up at once (2 MiB): they are used while the processor's cache still holds them.
_BLOCK = 2**18


class _Ranking:
    """Pairs of a positive row and another one: those that a value ranks right count 1, those that tie a half.

    Args:
        positive: bool (n,).
        value: (n,) by which rows are ranked.
    """

    def __init__(self, positive: Flags, value: NDArray[Any]) -> None:
        below, until, n_steps = _steps(positive, value)
        self._mine = np.flatnonzero(positive)
        self._steps = Groups(below[self._mine], n_steps)
        # The last step has nothing above it: a positive row gains nothing from positive rows.
        self._below, self._until = (np.where(positive, n_steps - 1, step) for step in (below, until))
        self._tied = not np.array_equal(self._below, self._until)

    def won(self, weights: Floats, parts: Sequence[slice]) -> Floats:
        """Weight of the pairs ranked right, by the part of the other row: (n, draws) -> (parts, draws)."""
        above = _from_the_end(self._steps.sums(weights[self._mine]))
        won = np.empty((len(parts), weights.shape[1]))
        for i, part in enumerate(parts):
            gain = above[self._below[part]]
            if self._tied:
                gain += above[self._until[part]]
                gain /= 2
            np.einsum("rd,rd->d", weights[part], gain, out=won[i])
        return won


def _steps(positive: Flags, value: NDArray[Any]) -> tuple[Indices, Indices, int]:
    """How many distinct positive values lie below each row's, and how many up to it; their number plus one."""
    cuts = np.unique(value[positive])
    below = np.searchsorted(cuts, value)
    if not len(cuts):
        return below, below, 1
    return below, below + (cuts[np.minimum(below, len(cuts) - 1)] == value), len(cuts) + 1


def _from_the_end(values: Floats) -> Floats:
    """Running sum over the first axis, from its end."""
    total: Floats = np.cumsum(values[::-1], axis=0)[::-1]
    return total


def _one_against_rest(n_classes: int) -> Sequence[int]:
    """The classes that are ranked against the rest: of two the second one, else each in turn."""
    return range(n_classes) if n_classes > 2 else [1]


# ---------------------------------------------------------------------- area under the ROC curve


def _auc_by_class(labels: Labels, proba: NDArray[Any]) -> Callable[[Floats], tuple[Floats, Floats]]:
    """AUC of each class against the rest and the weight of its rows: (classes, draws) twice; NaN where undefined."""
    n_samples, n_classes = proba.shape
    classes = _one_against_rest(n_classes)
    rankings = [_Ranking(labels == k, proba[:, k]) for k in classes]
    by_class = Groups(labels, n_classes)

    def of_weights(weights: Floats) -> tuple[Floats, Floats]:
        mass = by_class.sums(weights)
        blocks = list(_blocks(n_samples, max(1, _BLOCK // weights.shape[1])))
        won = np.stack([ranking.won(weights, blocks).sum(axis=0) for ranking in rankings])
        mine = mass[classes]
        return ratio(won, mine * (mass.sum(axis=0) - mine)), mine

    return of_weights


def _blocks(n_rows: int, height: int) -> Iterator[slice]:
    for start in range(0, n_rows, height):
        yield slice(start, start + height)


@in_chunks
def roc_auc(labels: Labels, proba: NDArray[Any]) -> Callable[[Floats], Floats]:
    """Area under the ROC curve: of class 1 for two classes, else each class against the rest, averaged.

    Classes without rows, or with all of them, are left out of the average.
    """
    by_class = _auc_by_class(labels, proba)
    return lambda weights: mean_where_defined(by_class(weights)[0])


@in_chunks
def roc_auc_weighted(labels: Labels, proba: NDArray[Any]) -> Callable[[Floats], Floats]:
    """The same, each class weighted with its share of the labels (Provost & Domingos 2001)."""
    by_class = _auc_by_class(labels, proba)

    def of_weights(weights: Floats) -> Floats:
        aucs, masses = by_class(weights)
        masses = np.where(np.isnan(aucs), 0, masses)
        return ratio((np.nan_to_num(aucs) * masses).sum(axis=0), masses.sum(axis=0))

    return of_weights


@in_chunks
def roc_auc_ovo(labels: Labels, proba: NDArray[Any]) -> Callable[[Floats], Floats]:
    """Area under the ROC curve of one class against one other, averaged over all pairs (Hand & Till 2001).

    A pair is ranked by the probability of either class, and the two areas are averaged. Pairs with a class
    that has no rows are left out. For two classes it is that of class 1.
    """
    n_classes = proba.shape[1]
    order = np.argsort(labels, kind="stable")
    labels, proba = labels[order], proba[order]
    ends = np.searchsorted(labels, np.arange(n_classes + 1))
    rows = [slice(start, end) for start, end in pairwise(ends)]
    ranked = _one_against_rest(n_classes)
    rankings = [_Ranking(labels == k, proba[:, k]) for k in ranked]

    def of_weights(weights: Floats) -> Floats:
        weights = weights[order]
        mass = np.stack([weights[part].sum(axis=0) for part in rows])
        total, defined = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
        for k, ranking in zip(ranked, rankings, strict=True):
            areas = np.delete(ratio(ranking.won(weights, rows), mass * mass[k]), k, axis=0)
            total += np.nansum(areas, axis=0)
            defined += (~np.isnan(areas)).sum(axis=0)
        return ratio(total, defined)

    return of_weights


# ---------------------------------------------------------------------- average precision


@in_chunks
def average_precision(labels: Labels, proba: NDArray[Any]) -> Callable[[Floats], Floats]:
    """Precision averaged over the steps of recall: of class 1 for two classes, else over classes one by one.

    Nothing is interpolated. Classes without rows are left out of the average.
    """
    curves = []
    for k in _one_against_rest(proba.shape[1]):
        positive = labels == k
        _, until, n_steps = _steps(positive, proba[:, k])
        curves.append((Groups(positive * n_steps + until, 2 * n_steps), n_steps))

    def of_weights(weights: Floats) -> Floats:
        return mean_where_defined(np.stack([_area(groups, n_steps, weights) for groups, n_steps in curves]))

    return of_weights


def _area(groups: Groups, n_steps: int, weights: Floats) -> Floats:
    rest, hits = groups.sums(weights).reshape(2, n_steps, -1)
    found, alarms = _from_the_end(hits), _from_the_end(rest)
    precision = zero_where_empty(found, found + alarms)
    return ratio((hits * precision).sum(axis=0), found[0])
