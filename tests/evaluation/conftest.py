import numpy as np
import pytest

from ensembler.predictions import Predictions


@pytest.fixture
def library():
    """Makes members of different quality that share some of their errors."""

    def make(n_members=3, n_samples=240, n_classes=3, n_folds=3, seed=0, signal=2.0):
        rng = np.random.default_rng(seed)
        labels = rng.integers(n_classes, size=n_samples)
        shared = rng.normal(size=(n_samples, n_classes))
        own = rng.normal(size=(n_members, n_samples, n_classes))
        logits = signal * np.eye(n_classes)[labels] + 0.5 * shared + own
        proba = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
        return Predictions.from_arrays(proba, labels, np.arange(n_samples) % n_folds)

    return make
