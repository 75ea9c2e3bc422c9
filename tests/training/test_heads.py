"""The linear head: equal to scikit-learn's at its penalty, which the monitor rows choose."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ensembler.training.heads import PENALTIES, fit_head


def _blobs(n: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int64) % 3
    centres = np.random.default_rng(9).normal(size=(3, 6)) * [1, 10, 0.1, 1, 1, 1]
    return (centres[labels] + rng.normal(0, noise, (n, 6))).astype(np.float32), labels


def test_it_is_the_logistic_regression_of_scikit_learn() -> None:
    x, y = _blobs(120, 1.5, 0)
    monitor = _blobs(60, 1.5, 1)
    head = fit_head(x, y, *monitor, 3)
    scaled = (x - x.mean(0)) / x.std(0)
    # scikit-learn sums the loss and halves the penalty: C = 1 / (n * penalty)
    peer = LogisticRegression(C=1 / (len(x) * head.penalty), tol=1e-8, max_iter=5000).fit(scaled, y)
    expected = peer.predict_proba((monitor[0] - x.mean(0)) / x.std(0))
    logits = head.logits(monitor[0])
    ours = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(ours, expected, atol=2e-3)


def test_noise_wants_a_strong_penalty_and_clear_classes_a_weak_one() -> None:
    rng = np.random.default_rng(0)
    noise = fit_head(
        rng.normal(size=(30, 6)).astype(np.float32), rng.integers(0, 3, 30), *_blobs(60, 1, 1), 3
    )
    clear = fit_head(*_blobs(120, 0.3, 0), *_blobs(60, 0.3, 1), 3)
    assert noise.penalty == max(PENALTIES)
    assert clear.penalty < noise.penalty


def test_a_class_without_images_has_a_column_and_a_constant_feature_does_no_harm() -> None:
    x, y = _blobs(60, 1, 0)
    x[:, 2] = 7
    head = fit_head(x, y, x, y, 5)
    assert head.weight.shape == (5, 6)
    assert np.isfinite(head.logits(x)).all()
    assert head.weight.dtype == head.bias.dtype == np.float32
    assert (head.logits(x).argmax(1) == y).mean() > 0.8


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_rows_give_the_same_bits(seed: int) -> None:
    rows = (*_blobs(60, 1, seed), *_blobs(30, 1, seed + 5))
    first, second = fit_head(*rows, 3), fit_head(*rows, 3)
    np.testing.assert_array_equal(first.weight, second.weight)
    np.testing.assert_array_equal(first.bias, second.bias)
