"""A combiner over the fold models of its members, as an ensemble is deployed.

A combiner learns from out-of-fold rows, each of which one fold's models have predicted. The average of k fold models is
sharper and errs less than any of them, so a combiner that is more than a weighted mean would be given something that it
has never seen. Therefore the models of each fold are combined with each other, and the k answers averaged: the average
of what was cross-validated. For a weighted mean the order makes no difference.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..predictions import Predictions
from .base import Combiner


def combine_folds(
    combiner: Combiner,
    proba: NDArray[np.float32],
    members: Sequence[str],
    classes: Sequence[str],
    features: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Probabilities of images that no fold's model was trained on.

    Args:
        combiner: fitted.
        proba: (members, folds, images, classes), what each fold model says.
        members: names, those of the combiner.
        classes: as at `fit`.
        features: (images, dims), for a combiner that needs them.

    Returns:
        float32 (images, classes), rows sum to 1.

    Raises:
        CombinerError: members or classes are not those of `fit`.
    """
    n_folds, n_images = proba.shape[1:3]
    unknown = np.zeros(n_images, np.int64)  # no combiner looks at labels when it predicts
    total = np.zeros(proba.shape[2:])
    for fold in range(n_folds):
        rows = Predictions.from_arrays(
            proba[:, fold], unknown, members=members, classes=classes, split="test", features=features
        )
        total += combiner.predict(rows).proba[0]
    return np.asarray(total / n_folds, np.float32)


def average_folds(proba: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the members say by themselves: (members, folds, images, classes) to float32 (members, images, classes)."""
    return np.asarray(proba.mean(axis=1, dtype=np.float64), np.float32)
