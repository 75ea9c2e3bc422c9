import numpy as np
import pytest

from ensembler.evaluation.calibration import fit_temperature, reliability
from ensembler.metrics import METRICS


def test_finds_the_temperature_that_made_the_logits_overconfident():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 4)) * 2
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (proba.cumsum(axis=1) > rng.random((20_000, 1))).argmax(axis=1)
    assert fit_temperature(logits * 2.5, labels) == pytest.approx(2.5, rel=0.03)


def test_reliability_by_hand():
    labels = np.array([0, 1, 0, 0])
    proba = np.array([[0.95, 0.05], [0.95, 0.05], [0.6, 0.4], [0.45, 0.55]])
    bins = reliability(labels, proba, n_bins=5)
    np.testing.assert_array_equal(bins.count, [0, 0, 2, 0, 2])
    np.testing.assert_allclose(bins.accuracy, [np.nan, np.nan, 0.5, np.nan, 0.5])
    np.testing.assert_allclose(bins.confidence, [np.nan, np.nan, 0.575, np.nan, 0.95])
    np.testing.assert_allclose([bins.low[2], bins.high[2]], [0.4, 0.6])


def test_gaps_average_to_the_ece(library):
    predictions = library()
    bins = reliability(predictions.labels, predictions.proba[0])
    gap = np.nansum(bins.count * np.abs(bins.accuracy - bins.confidence)) / bins.count.sum()
    assert gap == pytest.approx(METRICS["ece"](predictions.labels, predictions.proba[0]))
