"""The value of a set of members: the score of an ensemble of them alone.

Two kinds. A mean ensemble learns nothing, so its plain score is honest, and for log loss and the Brier score all the
sets that grow along one order of the members cost no more than a few passes. Any other combiner is cross-fitted on
every set.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..combiners import Combiner
from ..errors import PredictionsError
from ..metrics import Metric, clipped_log, true_class_proba
from ..predictions import Predictions
from .cross_fit import cross_fit

Floats = NDArray[np.float64]


class SubsetValue(ABC):
    """The score of every subset of members, in units of the metric.

    Attributes:
        members: names; subsets are given by their positions.
        metric: of the score.
        empty: score of the set without members: of the class frequencies, the best answer that knows no image.
    """

    def __init__(self, predictions: Predictions, metric: Metric) -> None:
        self.members = predictions.members
        self.metric = metric
        self._predictions = predictions
        counts = np.bincount(predictions.labels, minlength=predictions.n_classes)
        prior = np.tile(counts / counts.sum(), (predictions.n_samples, 1))
        self.empty = metric(predictions.labels, prior)
        if np.isnan(self.empty):
            raise PredictionsError(
                f"{metric.name}: undefined on these {predictions.n_samples} rows; choose another metric, "
                "such as log_loss"
            )

    @abstractmethod
    def growing(self, order: Sequence[int]) -> Floats:
        """Scores of the sets that grow along an order of members: float64 (len(order),), of 1, 2, ... of them."""

    @abstractmethod
    def of(self, subset: Sequence[int]) -> float:
        """Score of one set; the empty one is allowed."""


class MeanValue(SubsetValue):
    """The plain score of the mean of the members' probabilities.

    Log loss needs the probability of the true class alone. The Brier score of a mean is a mean of inner products of
    the members' errors, which are taken once: after that no pass looks at rows at all.
    """

    def __init__(self, predictions: Predictions, metric: Metric) -> None:
        super().__init__(predictions, metric)
        self._true = (
            true_class_proba(predictions.labels, predictions.proba) if metric.name == "log_loss" else None
        )
        self._products = _error_products(predictions) if metric.name == "brier" else None

    def growing(self, order: Sequence[int]) -> Floats:
        """All in one pass; see the class."""
        rows = list(order)
        sizes = np.arange(1, len(rows) + 1)
        if self._true is not None:
            means = np.cumsum(self._true[rows], axis=0) / sizes[:, None]
            return np.asarray(-clipped_log(means).mean(axis=1))
        if self._products is not None:
            part = self._products[np.ix_(rows, rows)]
            return np.asarray(np.diagonal(part.cumsum(axis=0).cumsum(axis=1)) / sizes**2)
        total = np.zeros(self._predictions.proba.shape[1:])
        scores = np.empty(len(rows))
        for i, row in enumerate(rows):
            total += self._predictions.proba[row]
            scores[i] = self.metric(self._predictions.labels, total / (i + 1))
        return scores

    def of(self, subset: Sequence[int]) -> float:
        """Score of the mean of one set."""
        if not len(subset):
            return self.empty
        rows = list(subset)
        if self._true is not None:
            return -float(clipped_log(self._true[rows].mean(axis=0)).mean())
        if self._products is not None:
            return float(self._products[np.ix_(rows, rows)].mean())
        mean = self._predictions.proba[rows].mean(axis=0, dtype=np.float64)
        return self.metric(self._predictions.labels, mean)


class CrossFittedValue(SubsetValue):
    """The cross-fitted score of a combiner that is given the members of the set alone; each set is fitted once."""

    def __init__(self, predictions: Predictions, metric: Metric, combiner: Combiner) -> None:
        super().__init__(predictions, metric)
        self._combiner = combiner
        self._known: dict[frozenset[int], float] = {}

    def growing(self, order: Sequence[int]) -> Floats:
        """One fit a set that is not known yet."""
        rows = list(order)
        return np.array([self.of(rows[: i + 1]) for i in range(len(rows))])

    def of(self, subset: Sequence[int]) -> float:
        """Cross-fitted score of one set."""
        key = frozenset(subset)
        if not key:
            return self.empty
        if key not in self._known:
            part = self._predictions.select([self.members[i] for i in sorted(key)])
            self._known[key] = cross_fit(self._combiner, part, self.metric).score
        return self._known[key]


def _error_products(predictions: Predictions) -> Floats:
    """Mean inner product of two members' errors, (members, members), scaled as the metric is."""
    errors = predictions.proba.astype(np.float64)
    errors[:, np.arange(predictions.n_samples), predictions.labels] -= 1
    flat = errors.reshape(predictions.n_members, -1)
    halved = 2 if predictions.n_classes == 2 else 1
    return np.asarray(flat @ flat.T / (predictions.n_samples * halved))
