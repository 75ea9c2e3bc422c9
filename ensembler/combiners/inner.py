"""The split inside a fit: a combiner that has something to tune tunes it on its own rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from ..predictions import Predictions
from .base import Combiner, Fold, Labels, Proba

#: Parts of an inner split: a combiner with something to tune is fitted four times, inside each outer fold.
N_INNER = 3


def inner_parts(labels: Labels, fold: Fold) -> NDArray[np.intp]:
    """The part of each row, (samples,), numbered from 0.

    Where the fold column holds two folds or more, a part is made of whole folds: they know the groups, and
    rows of one fold share their base models. Else rows are dealt to `N_INNER` parts class by class.
    """
    folds, rank = np.unique(fold, return_inverse=True)
    return rank % N_INNER if len(folds) > 1 else _dealt(labels)


def inner_splits(labels: Labels, fold: Fold) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """(fitted rows, held-out rows) pairs, one a part of `inner_parts`; every row is held out once.

    One row gives no pair.
    """
    part = inner_parts(labels, fold)
    parts = np.unique(part)
    for value in parts if len(parts) > 1 else ():
        held_out = part == value
        yield np.flatnonzero(~held_out), np.flatnonzero(held_out)


def inner_cross_fit(combiner: Combiner, predictions: Predictions) -> Proba | None:
    """What a combiner says of rows it was not fitted on: float32 (samples, classes).

    Each part is predicted by a clone that was fitted on the others, so whoever learns from the answer learns
    from rows that do not know their own label. None for one row, which nobody can be fitted without.
    """
    proba = np.full(predictions.proba.shape[1:], np.nan, np.float32)
    for fitted, held_out in inner_splits(predictions.labels, predictions.fold):
        model = combiner.clone().fit(predictions.rows(fitted))
        proba[held_out] = model.predict(predictions.rows(held_out)).proba[0]
    return None if np.isnan(proba).any() else proba


def best_step(losses: Iterable[float], patience: int) -> tuple[int, float]:
    """The step of least loss, counted from 0, and its loss; ends after `patience` steps that are no better.

    Args:
        losses: of each step, held out; as many are asked for as are needed.
        patience: 1 or more.
    """
    best, best_loss = 0, float(np.inf)
    for step, loss in enumerate(losses):
        if loss < best_loss:
            best, best_loss = step, loss
        elif step - best >= patience:
            break
    return best, best_loss


def _dealt(labels: Labels) -> NDArray[np.intp]:
    part = np.empty(len(labels), np.intp)
    part[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % N_INNER
    return part
