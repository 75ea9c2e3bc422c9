"""How differently the members err: what an ensemble lives on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..predictions import Predictions


def disagreement(predictions: Predictions) -> NDArray[np.float64]:
    """Share of the rows on which two members choose different classes.

    Returns:
        float64 (members, members) in [0, 1], symmetric, 0 on the diagonal.
    """
    chosen = predictions.proba.argmax(axis=2)
    return np.stack([(chosen != own).mean(axis=1) for own in chosen])


def error_correlation(predictions: Predictions) -> NDArray[np.float64]:
    """Correlation of the members' errors (the phi coefficient of "is wrong on this row").

    Returns:
        float64 (members, members) in [-1, 1], symmetric, 1 on the diagonal; 0 between others where one of
        them is always right or always wrong, since nothing varies there.
    """
    wrong = (predictions.proba.argmax(axis=2) != predictions.labels).astype(np.float64)
    wrong -= wrong.mean(axis=1, keepdims=True)
    covariance = wrong @ wrong.T
    spread = np.sqrt(np.diag(covariance))
    scale = np.outer(spread, spread)
    correlation: NDArray[np.float64] = np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0)
    np.fill_diagonal(correlation, 1.0)
    return np.clip(correlation, -1.0, 1.0)
