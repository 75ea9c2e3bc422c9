"""Stacking by the rows of which the members said nearly the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import CombinerError
from ..metrics import METRICS
from ..predictions import Predictions
from .base import Floats, weighted_mean
from .inner import inner_splits
from .neighbours import NeighbourCombiner, Points, nearest

#: Rows that the mean ensemble counts for, beside the k neighbours; infinite: the mean ensemble alone.
PRIORS = (np.inf, 64.0, 16.0, 4.0, 1.0)


@dataclass(eq=False, kw_only=True)
class StackingKnn(NeighbourCombiner):
    """The labels of the k nearest rows, counted on top of the mean ensemble.

    The probabilities are (counts of the neighbours' labels + prior x mean ensemble) / (k + prior): the mean of
    a Dirichlet distribution whose prior is the mean ensemble. k, from `ks`, and the prior, from `PRIORS`, have
    the least log loss over inner held-out rows.

    Attributes:
        ks: numbers of neighbours tried, each 1 or more.
        labels_: int64 (rows,), of `points_`.
        k_: int64 (1,), the number chosen.
        prior_: float64 (1,), the prior chosen; infinite when the mean was best.
    """

    name: ClassVar[str] = "stacking_knn"
    learned: ClassVar[tuple[str, ...]] = (*NeighbourCombiner.learned, "labels_", "k_", "prior_")

    ks: tuple[int, ...] = (5, 15, 45, 135)
    points_: Points = field(init=False, repr=False)
    labels_: NDArray[np.int64] = field(init=False, repr=False)
    k_: NDArray[np.int64] = field(init=False, repr=False)
    prior_: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.ks = tuple(self.ks)
        if not self.ks or not all(type(k) is int and k >= 1 for k in self.ks):
            raise CombinerError(f"{self.name}: ks is {self.ks}; expected whole numbers of 1 or more")

    def _fit_rows(self, predictions: Predictions) -> None:
        kept = self._kept(predictions)
        points, labels, mean = self._locate(kept), kept.labels, weighted_mean(kept.proba, None)
        choices = [(k, prior) for k in sorted(self.ks) for prior in PRIORS]
        losses = np.zeros(len(choices))
        for fitted, held_out in inner_splits(labels, kept.fold):
            near = labels[fitted][nearest(points[held_out], points[fitted], max(self.ks))]
            for i, (k, prior) in enumerate(choices):
                posterior = _posterior(near[:, :k], mean[held_out], prior)
                losses[i] += METRICS["log_loss"](labels[held_out], posterior) * len(held_out)
        k, prior = choices[int(losses.argmin())]
        self.points_, self.labels_ = points, labels.copy()
        self.k_, self.prior_ = np.array([k]), np.array([prior])

    def _combine_rows(self, predictions: Predictions) -> Floats:
        mean = weighted_mean(predictions.proba, None)
        if np.isinf(self.prior_[0]):
            return mean
        near = self._neighbours(predictions, self.points_, int(self.k_[0]))
        return _posterior(self.labels_[near], mean, float(self.prior_[0]))


def _posterior(near: NDArray[np.int64], mean: Floats, prior: float) -> Floats:
    """(samples, classes) from the labels (samples, k) of the neighbours and the mean ensemble."""
    if np.isinf(prior):
        return mean
    counts = label_counts(near, mean.shape[1])
    return np.asarray((counts + prior * mean) / (near.shape[1] + prior), np.float64)


def label_counts(near: NDArray[np.int64], n_classes: int) -> Floats:
    """How often each class occurs in each row of (samples, k): float64 (samples, classes)."""
    rows = np.arange(len(near))[:, None] * n_classes
    counts = np.bincount((rows + near).ravel(), minlength=len(near) * n_classes)
    return np.asarray(counts.reshape(-1, n_classes), np.float64)
