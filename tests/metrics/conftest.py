import numpy as np
import pytest


def _draw(n_classes, seed, n=150, ties=False):
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_classes, size=n)
    proba = rng.dirichlet(np.ones(n_classes), size=n)
    if ties:
        proba = np.round(proba, 1) + 1e-3
        proba /= proba.sum(axis=1, keepdims=True)
    return labels, proba, rng.random(n)


@pytest.fixture(scope="session")
def draw():
    """(n_classes, seed, n, ties) -> labels, probabilities that know nothing of them, weights."""
    return _draw
