"""Softmax and temperature: known answers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax as scipy_log_softmax
from scipy.special import softmax as scipy_softmax

from ensembler.probability import TEMPERATURE_RANGE, fit_temperature, log_softmax, softmax


def _drawn(n: int = 4000, n_classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their softmax: calibrated at temperature 1."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, n_classes))
    cumulated = scipy_softmax(logits, axis=1).cumsum(1)
    return logits, (rng.random((n, 1)) > cumulated).sum(1).clip(max=n_classes - 1)


def test_softmax_is_scipys_in_float32_and_rows_sum_to_one() -> None:
    logits = np.random.default_rng(0).normal(0, 30, (50, 7)).astype(np.float32)
    proba = softmax(logits)
    assert proba.dtype == np.float32
    np.testing.assert_allclose(proba, scipy_softmax(logits.astype(np.float64), axis=1), rtol=1e-6)
    np.testing.assert_allclose(proba.sum(1, dtype=np.float64), 1, atol=1e-6)


def test_huge_logits_neither_overflow_nor_underflow_in_the_logarithm() -> None:
    logits = np.array([[1e4, 0.0, -1e4], [-1e5, -1e5, -1e5]])
    assert np.isfinite(softmax(logits)).all()
    np.testing.assert_allclose(log_softmax(logits), scipy_log_softmax(logits, axis=1))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_by_which_logits_were_spoilt_is_found(temperature: float) -> None:
    logits, labels = _drawn()
    assert fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.08)


def test_scaling_the_logits_scales_the_temperature_exactly() -> None:
    logits, labels = _drawn()
    assert fit_temperature(logits * 2, labels) == pytest.approx(2 * fit_temperature(logits, labels), rel=1e-3)


def test_the_loss_has_its_minimum_there() -> None:
    logits, labels = _drawn(300)

    def loss(t: float) -> float:
        return float(-scipy_log_softmax(logits / t, axis=1)[np.arange(len(labels)), labels].mean())

    found = fit_temperature(logits, labels)
    assert all(loss(found) <= loss(t) + 1e-9 for t in np.geomspace(0.1, 10, 200))


def test_logits_that_are_always_right_get_the_lowest_temperature_and_stay_finite() -> None:
    logits = np.eye(3)[[0, 1, 2, 0]] * 5
    found = fit_temperature(logits, np.array([0, 1, 2, 0]))
    assert found == pytest.approx(TEMPERATURE_RANGE[0], rel=1e-2)
    assert np.isfinite(softmax(logits / found)).all()
