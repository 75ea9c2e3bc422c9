"""What a stacker sees of a row: log-probabilities, how far the members disagree, and features of the image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import CombinerError
from ..metrics import clipped_log
from ..predictions import Predictions
from .base import Combiner, Floats, Fold, Labels, Proba, weighted_mean


@dataclass(eq=False, kw_only=True)
class Stacker(Combiner):
    """A combiner that learns from a matrix of meta-features, one row a sample.

    A subclass implements `_fit_design` and `_combine_design` in place of `_fit` and `_combine`.

    Attributes:
        disagreement: add the four columns of `disagreement`.
        passthrough: add the columns of `Predictions.features`. An ensemble that needs them cannot be exported,
            because a bundle has its members' probabilities alone.
        centre_: float64 (extra columns,), subtracted from the added columns.
        spread_: float64 (extra columns,), divides them; so they come in the units of the fitted rows.
    """

    learned: ClassVar[tuple[str, ...]] = ("centre_", "spread_")
    by_name: ClassVar[bool] = True

    disagreement: bool = False
    passthrough: bool = False
    centre_: Floats = field(init=False, repr=False)
    spread_: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("disagreement", "passthrough"):
            if not isinstance(getattr(self, name), bool):
                raise CombinerError(f"{self.name}: {name} is {getattr(self, name)!r}; expected true or false")

    @property
    def needs_features(self) -> bool:
        """Whether they are passed through."""
        return self.passthrough

    def _fit_design(self, design: Floats, proba: Proba, labels: Labels, fold: Fold) -> None:
        """Learns from `design` float64 (samples, columns), the members' `proba`, `labels` and `fold`."""
        raise NotImplementedError

    def _combine_design(self, design: Floats, proba: Proba) -> NDArray[np.floating]:
        """(samples, classes), non-negative, from the same columns."""
        raise NotImplementedError

    def _fit_rows(self, predictions: Predictions) -> None:
        extra = self._extra(predictions)
        self.centre_, self.spread_ = extra.mean(axis=0), extra.std(axis=0)
        self.spread_[self.spread_ < 1e-6 * (1 + np.abs(self.centre_))] = 1.0  # a column that says nothing
        self._fit_design(
            self._design(predictions, extra), predictions.proba, predictions.labels, predictions.fold
        )

    def _combine_rows(self, predictions: Predictions) -> NDArray[np.floating]:
        extra = self._extra(predictions)
        if extra.shape[1] != len(self.centre_):
            raise CombinerError(
                f"{self.label}: fitted with {len(self.centre_)} columns beside the probabilities, given "
                f"{extra.shape[1]}; give features of the same backbone"
            )
        return self._combine_design(self._design(predictions, extra), predictions.proba)

    def _design(self, predictions: Predictions, extra: Floats) -> Floats:
        return np.concatenate(
            [centred_logs(predictions.proba), (extra - self.centre_) / self.spread_], axis=1
        )

    def _extra(self, predictions: Predictions) -> Floats:
        parts = [np.empty((predictions.n_samples, 0))]
        if self.disagreement:
            parts.append(disagreement(predictions.proba))
        if self.passthrough:
            parts.append(required_features(predictions, f"{self.label}: passthrough"))
        return np.concatenate(parts, axis=1)


def required_features(predictions: Predictions, who: str) -> Floats:
    """The features of the rows, float64 (samples, dims).

    Raises:
        CombinerError: the predictions carry none.
    """
    if predictions.features is None:
        raise CombinerError(
            f"{who} needs the features of the images, which these predictions do not carry; give them as the "
            "array `features`, or do without"
        )
    return predictions.features.astype(np.float64)


def centred_logs(proba: Proba) -> Floats:
    """float64 (samples, members x classes): log-probabilities, each member's centred over the classes."""
    logs = clipped_log(proba.transpose(1, 0, 2))
    logs -= logs.mean(axis=2, keepdims=True)
    return logs.reshape(len(logs), -1)


def disagreement(proba: Proba) -> Floats:
    """How far the members disagree about each row: float64 (samples, 4), each column in [0, 1].

    The entropy of their mean and the mean of their entropies, in units of the entropy of not knowing, whose
    difference is what is disputed rather than unclear (Lakshminarayanan, Pritzel & Blundell 2017; Gal 2016);
    the share of the most frequent first choice; the standard deviation over members of a class's probability,
    the largest over the classes, doubled.
    """
    n_members, n_samples, n_classes = proba.shape
    mean = weighted_mean(proba, None)
    entropies, squares = np.zeros(n_samples), np.zeros(mean.shape)
    votes = np.zeros((n_samples, n_classes))
    for slab in proba:
        entropies += _entropy(slab)
        squares += (slab - mean) ** 2
        votes[np.arange(n_samples), slab.argmax(axis=1)] += 1
    deviation = 2 * np.sqrt(squares / n_members).max(axis=1)
    return np.stack([_entropy(mean), entropies / n_members, votes.max(axis=1) / n_members, deviation], axis=1)


def _entropy(proba: NDArray[np.floating]) -> Floats:
    """Of each row, in [0, 1]."""
    nats = -(proba * clipped_log(proba)).sum(axis=1)
    return np.asarray(np.clip(nats / np.log(proba.shape[1]), 0, 1), np.float64)
