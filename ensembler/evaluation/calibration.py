"""Do the probabilities mean what they say? Temperature, and the numbers of a reliability diagram."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics import ECE_BINS, confidence_bins
from ..probability import fit_temperature

__all__ = ["Reliability", "fit_temperature", "reliability"]


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy, in equal-width bins of confidence.

    Attributes:
        low: float64 (bins,), left edge, open.
        high: float64 (bins,), right edge, closed.
        count: int64 (bins,), rows in the bin.
        confidence: float64 (bins,), mean largest probability; NaN in an empty bin.
        accuracy: float64 (bins,), share of right rows; NaN in an empty bin.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]


def reliability(labels: NDArray[np.int64], proba: NDArray[Any], n_bins: int = ECE_BINS) -> Reliability:
    """The reliability of (n, classes) probabilities; the default bins are those of the `ece` metric."""
    confidence, index = confidence_bins(proba, n_bins)
    count = np.bincount(index, minlength=n_bins)
    right = proba.argmax(axis=1) == labels
    edges = np.arange(n_bins + 1) / n_bins
    divisor = np.where(count, count, np.nan)
    return Reliability(
        low=edges[:-1],
        high=edges[1:],
        count=count,
        confidence=np.bincount(index, confidence, n_bins) / divisor,
        accuracy=np.bincount(index, right, n_bins) / divisor,
    )
