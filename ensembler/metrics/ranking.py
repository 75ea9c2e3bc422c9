"""Scores of the order of rows by the probability of a class: ROC AUC and average precision.

The usual way sorts all rows and sums along the curve, once a weighting. Here the rows are first grouped between
the distinct probabilities of the positive rows, which is one sparse product for all weightings; only the groups, as
many as there are positive rows, are then summed along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Floats, Groups, Labels, in_chunks, mean_where_defined, ratio, zero_where_empty

Flags = NDArray[np.bool_]
Indices = NDArray[np.integer[Any]]


class _Pairs:
    """Pairs of a positive row and another one that a value ranks right, by the group of the other; a tie is half.

    Args:
        positive: bool (n,).
        group: int (n,), from 0 to `n_groups` - 1; positive rows are group `own`, and no others are.
        n_groups: how many.
        own: the group of the positive rows.
        value: (n,) by which rows are ranked.
    """

    def __init__(self, positive: Flags, group: Indices, n_groups: int, own: int, value: NDArray[Any]) -> None:
        below, until, self._steps = _steps(positive, value)
        self._own, self._n_groups = own, n_groups
        self._below = Groups(group * self._steps + below, n_groups * self._steps)
        tied = not np.array_equal(below[~positive], until[~positive])
        self._until = Groups(group * self._steps + until, n_groups * self._steps) if tied else None

    def won(self, weights: Floats) -> tuple[Floats, Floats]:
        """Weight of the pairs ranked right, and of each group: (n_groups, draws) twice.

        The own group's entry of the first is without meaning.
        """
        shape = (self._n_groups, self._steps, weights.shape[1])
        rows = self._below.sums(weights).reshape(shape)
        mass = rows.sum(axis=1)
        above = _from_the_end(rows[self._own])
        if self._until is not None:
            rows = (rows + self._until.sums(weights).reshape(shape)) / 2
        return np.einsum("gsd,sd->gd", rows, above), mass


def _steps(positive: Flags, value: NDArray[Any]) -> tuple[Indices, Indices, int]:
    """How many distinct positive values lie below each row's, and how many up to it; their number plus one."""
    cuts = np.unique(value[positive])
    return np.searchsorted(cuts, value), np.searchsorted(cuts, value, "right"), len(cuts) + 1


def _from_the_end(values: Floats) -> Floats:
    """Running sum over the first axis, from its end."""
    total: Floats = np.cumsum(values[::-1], axis=0)[::-1]
    return total


def _one_against_rest(labels: Labels, proba: NDArray[Any]) -> Iterator[tuple[Flags, NDArray[Any]]]:
    """What is positive, and by which value it is ranked: class 1 of two classes, else each class in turn."""
    for k in range(proba.shape[1]) if proba.shape[1] > 2 else [1]:
        yield labels == k, proba[:, k]


# ---------------------------------------------------------------------- area under the ROC curve


def _auc_by_class(labels: Labels, proba: NDArray[Any]) -> Callable[[Floats], tuple[Floats, Floats]]:
    """AUC of each class against the rest and the weight of its rows: (classes, draws) twice; NaN where undefined."""
    pairs = [
        _Pairs(positive, positive.astype(np.intp), 2, 1, value)
        for positive, value in _one_against_rest(labels, proba)
    ]

    def of_weights(weights: Floats) -> tuple[Floats, Floats]:
        aucs, masses = [], []
        for pair in pairs:
            won, (rest, own) = pair.won(weights)
            aucs.append(ratio(won[0], rest * own))
            masses.append(own)
        return np.stack(aucs), np.stack(masses)

    return of_weights


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
    if n_classes == 2:
        by_class = _auc_by_class(labels, proba)
        return lambda weights: mean_where_defined(by_class(weights)[0])
    pairs = [_Pairs(labels == k, labels, n_classes, k, proba[:, k]) for k in range(n_classes)]

    def of_weights(weights: Floats) -> Floats:
        total, defined = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
        for k, pair in enumerate(pairs):
            won, mass = pair.won(weights)
            aucs = np.delete(ratio(won, mass * mass[k]), k, axis=0)
            total += np.nansum(aucs, axis=0)
            defined += (~np.isnan(aucs)).sum(axis=0)
        return ratio(total, defined)

    return of_weights


# ---------------------------------------------------------------------- average precision


@in_chunks
def average_precision(labels: Labels, proba: NDArray[Any]) -> Callable[[Floats], Floats]:
    """Precision averaged over the steps of recall: of class 1 for two classes, else over classes one by one.

    Nothing is interpolated. Classes without rows are left out of the average.
    """
    curves = []
    for positive, value in _one_against_rest(labels, proba):
        _, until, steps = _steps(positive, value)
        curves.append((Groups(positive * steps + until, 2 * steps), steps))

    def of_weights(weights: Floats) -> Floats:
        return mean_where_defined(np.stack([_area(groups, steps, weights) for groups, steps in curves]))

    return of_weights


def _area(groups: Groups, steps: int, weights: Floats) -> Floats:
    rest, hits = groups.sums(weights).reshape(2, steps, -1)
    found, alarms = _from_the_end(hits), _from_the_end(rest)
    precision = zero_where_empty(found, found + alarms)
    return ratio((hits * precision).sum(axis=0), found[0])
