"""Scores that are a weighted mean over rows: log loss, Brier score, accuracy, top-k accuracy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Floats, Labels, PerRow, Score, clipped_log, in_chunks, ratio, true_class_proba


def mean_of(per_row: PerRow) -> Score:
    """The weighted mean of a value of each row; NaN where the weights are all 0."""

    def prepare(labels: Labels, proba: NDArray[Any]) -> Callable[[Floats], Floats]:
        table = np.stack([per_row(labels, proba), np.ones(len(labels))])

        def of_weights(weights: Floats) -> Floats:
            total, mass = table @ weights
            return ratio(total, mass)

        return of_weights

    return in_chunks(prepare)


def log_loss_rows(labels: Labels, proba: NDArray[Any]) -> Floats:
    """Minus the logarithm of the probability of each row's own class, which is held within `PROBA_EPS`."""
    return -clipped_log(true_class_proba(labels, proba))


def brier_rows(labels: Labels, proba: NDArray[Any]) -> Floats:
    """Squared distance to the one-hot label (Brier 1950); halved for two classes, as scikit-learn does."""
    errors = proba.astype(np.float64)
    errors[np.arange(len(labels)), labels] -= 1
    squares = (errors**2).sum(axis=1)
    return np.asarray(squares / 2 if proba.shape[1] == 2 else squares)


def accuracy_rows(labels: Labels, proba: NDArray[Any]) -> Floats:
    """1 where the largest probability, of equal ones the first, is that of the row's own class."""
    return np.asarray(proba.argmax(axis=1) == labels, np.float64)


def top_rows(k: int) -> PerRow:
    """1 where the row's own class is among the `k` most probable.

    Of classes with equal probabilities the later ones count as more probable, which is scikit-learn's order
    (`top_k_accuracy_score`) and the reverse of what accuracy does: `top_rows(1)` differs from it in ties.
    With `k` classes or fewer every row is right.
    """

    def per_row(labels: Labels, proba: NDArray[Any]) -> Floats:
        own = proba[np.arange(len(labels)), labels][:, None]
        later = np.arange(proba.shape[1]) > labels[:, None]
        ahead = (proba > own) | ((proba == own) & later)
        return np.asarray(ahead.sum(axis=1) < k, np.float64)

    return per_row
