"""The split inside a fit: a combiner that has something to tune tunes it on its own rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .base import Fold, Labels

#: Parts of an inner split: a combiner with something to tune is fitted four times, inside each outer fold.
N_INNER = 3


def inner_splits(labels: Labels, fold: Fold) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """(fitted rows, held-out rows) pairs; every row is held out once.

    Where the fold column holds two folds or more, a part is made of whole folds: they know the groups, and
    rows of one fold share their base models. Else rows are dealt to `N_INNER` parts class by class. One row
    gives no pair.
    """
    folds, rank = np.unique(fold, return_inverse=True)
    part = rank % N_INNER if len(folds) > 1 else _dealt(labels)
    parts = np.unique(part)
    for value in parts if len(parts) > 1 else ():
        held_out = part == value
        yield np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _dealt(labels: Labels) -> NDArray[np.intp]:
    part = np.empty(len(labels), np.intp)
    part[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % N_INNER
    return part
