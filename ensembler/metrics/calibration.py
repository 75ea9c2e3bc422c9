"""Scores of the confidence: is a class that is predicted with probability p right p of the time?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Floats, Groups, Labels, in_chunks, ratio
from .rows import accuracy_rows

ECE_BINS = 15

#: Sums of weights closer than this share of the whole are equal: rounding must not move a row to another bin.
_ROUNDING = 1e-12


def confidence_bins(proba: NDArray[Any], n_bins: int = ECE_BINS) -> tuple[Floats, NDArray[np.intp]]:
    """Confidence of each row (its largest probability) and its equal-width bin, closed on the right.

    Returns:
        confidence float64 (n,), bin index (n,) from 0 to `n_bins` - 1.
    """
    confidence = proba.max(axis=1).astype(np.float64)
    return confidence, np.clip(np.ceil(confidence * n_bins).astype(np.intp) - 1, 0, n_bins - 1)


@in_chunks
def ece(labels: Labels, proba: NDArray[Any]) -> Callable[[Floats], Floats]:
    """Expected calibration error (Naeini et al. 2015) of the predicted class, `ECE_BINS` equal-width bins."""
    confidence, index = confidence_bins(proba)
    gaps = Groups(index, ECE_BINS, accuracy_rows(labels, proba) - confidence)
    return lambda weights: ratio(np.abs(gaps.sums(weights)).sum(axis=0), weights.sum(axis=0))


@in_chunks
def ece_mass(labels: Labels, proba: NDArray[Any]) -> Callable[[Floats], Floats]:
    """Expected calibration error of the predicted class, `ECE_BINS` bins of equal weight (Nguyen & O'Connor 2015).

    Bin b ends at the smallest confidence up to which b / `ECE_BINS` of the weight lies, so rows of equal
    confidence share a bin, and each weighting has bins of its own.
    """
    confidence = proba.max(axis=1).astype(np.float64)
    order = np.argsort(confidence, kind="stable")
    first = np.flatnonzero(np.diff(confidence[order], prepend=np.nan))
    # The row after the last one that is as confident: where the bin of a row may end.
    after = np.repeat(np.append(first[1:], len(order)), np.diff(first, append=len(order)))
    gap = (accuracy_rows(labels, proba) - confidence)[order]
    shares = np.arange(1, ECE_BINS) / ECE_BINS - _ROUNDING

    def of_weighting(weights: Floats) -> float:
        mass = np.cumsum(weights)
        if mass[-1] == 0:
            return np.nan
        starts = np.append(0, after[np.searchsorted(mass, mass[-1] * shares)])
        starts = starts[(np.diff(starts, append=len(order)) > 0)]  # bins without rows add nothing
        return float(np.abs(np.add.reduceat(weights * gap, starts)).sum() / mass[-1])

    def of_weights(weights: Floats) -> Floats:
        return np.array([of_weighting(rows) for rows in np.ascontiguousarray(weights[order].T)])

    return of_weights
