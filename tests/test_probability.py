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
    np.testing.assert_allclose(proba, scipy_softmax(logits.astype(np.float64), axis=1), rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(proba.sum(1, dtype=np.float64), 1, atol=1e-6)


def test_huge_logits_neither_overflow_nor_underflow_in_the_logarithm() -> None:
    logits = np.array([[1e4, 0.0, -1e4], [-1e5, -1e5, -1e5]])
    assert np.isfinite(softmax(logits)).all()
    np.testing.assert_allclose(log_softmax(logits), scipy_log_softmax(logits, axis=1))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_by_which_logits_were_spoilt_is_found(temperature: float) -> None:
    logits, labels = _drawn()
    assert fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.08)


def test_scaling_the_logits_scales_the_temperature() -> None:
    logits, labels = _drawn()
    assert fit_temperature(logits * 2, labels) == pytest.approx(2 * fit_temperature(logits, labels), rel=1e-2)


def test_against_many_rows_the_minimum_of_the_log_loss_is_found() -> None:
    logits, labels = _drawn(20_000)

    def loss(t: float) -> float:
        return float(-scipy_log_softmax(logits / t, axis=1)[np.arange(len(labels)), labels].mean())

    found = fit_temperature(logits * 3, labels) / 3
    assert all(loss(found) <= loss(t) + 1e-5 for t in np.geomspace(0.1, 10, 200))


@pytest.mark.parametrize("n", [4, 12])
def test_a_handful_of_rows_that_are_always_right_do_not_make_the_model_boundlessly_sure(n: int) -> None:
    labels = np.arange(n) % 3
    found = fit_temperature(np.eye(3)[labels] * 5, labels)
    assert 0.2 < found < 1
    assert 0.9 < softmax(np.eye(3) * 5 / found).max() < 1


def test_the_temperature_stays_in_its_range_when_every_answer_is_wrong() -> None:
    labels = np.arange(300) % 3
    found = fit_temperature(np.eye(3)[(labels + 1) % 3] * 50, labels)
    assert 5 < found <= TEMPERATURE_RANGE[1]
