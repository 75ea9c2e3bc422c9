"""Expected calibration error, in bins of equal width and of equal weight."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from ensembler.metrics import ECE_BINS, METRICS

ECE, ECE_MASS = METRICS["ece"], METRICS["ece_mass"]


def by_curve(labels, proba, strategy):
    """From scikit-learn's reliability curve of the predicted class; it tells no counts, so edges are found again."""
    confidence, right = proba.max(axis=1), proba.argmax(axis=1) == labels
    observed, mean = calibration_curve(right, confidence, n_bins=ECE_BINS, strategy=strategy)
    shares = np.linspace(0, 1, ECE_BINS + 1)
    edges = shares if strategy == "uniform" else np.quantile(confidence, shares)
    counts = np.bincount(np.searchsorted(edges[1:-1], confidence))
    return np.average(np.abs(observed - mean), weights=counts[counts > 0])


@pytest.mark.parametrize("n_classes", [2, 3, 10])
@pytest.mark.parametrize("ties", [False, True])
def test_equal_width_is_scikit_learns_uniform_curve(draw, n_classes, ties):
    labels, proba, _ = draw(n_classes, seed=n_classes, n=1001, ties=ties)
    assert ECE(labels, proba) == pytest.approx(by_curve(labels, proba, "uniform"), abs=1e-9)


@pytest.mark.parametrize("n_classes", [2, 3, 10])
@pytest.mark.parametrize("ties", [False, True])
def test_equal_mass_is_scikit_learns_quantile_curve(draw, n_classes, ties):
    # Where the bins divide the rows; elsewhere its edges are interpolated between two rows, ours are rows.
    labels, proba, _ = draw(n_classes, seed=n_classes, n=66 * ECE_BINS, ties=ties)
    assert ECE_MASS(labels, proba) == pytest.approx(by_curve(labels, proba, "quantile"), abs=1e-9)


def test_equal_width_by_hand():
    # Bins of 1/15: 0.95 in the last, twice, one right: |0.5 - 0.95|; 0.6 in the ninth, right: |1 - 0.6|.
    labels, proba = [0, 1, 0], [[0.95, 0.05], [0.95, 0.05], [0.6, 0.4]]
    assert ECE(labels, proba) == pytest.approx((2 * 0.45 + 1 * 0.4) / 3)
    assert ECE(labels, proba, [1, 1, 0]) == pytest.approx(0.45)


def test_equal_mass_by_hand():
    # Thirty rows in fifteen bins: two a bin, in the order of confidence, the first of each right.
    confidence = np.linspace(0.6, 0.9, 30)
    proba, labels = np.stack([confidence, 1 - confidence], axis=1), np.arange(30) % 2
    expected = np.mean([abs(0.5 - confidence[i : i + 2].mean()) for i in range(0, 30, 2)])
    assert ECE_MASS(labels, proba) == pytest.approx(expected)


def test_fewer_rows_than_bins_have_one_each():
    labels, confidence = np.array([0, 1, 0]), np.array([0.9, 0.8, 0.8])
    proba = np.stack([confidence, 1 - confidence], axis=1)
    # The two that are equal share a bin, wherever they stand.
    for order in ([0, 1, 2], [1, 2, 0], [2, 0, 1]):
        assert ECE_MASS(labels[order], proba[order]) == pytest.approx((0.1 + 2 * abs(0.5 - 0.8)) / 3)


def test_a_constant_confidence_is_one_bin():
    labels, proba = np.array([0, 0, 0, 1]), np.tile([0.8, 0.2], (4, 1))
    assert ECE(labels, proba) == pytest.approx(0.05)
    assert ECE_MASS(labels, proba) == pytest.approx(0.05)


@pytest.mark.parametrize("scale", [0.1, 1 / 3, 7.0])
def test_equal_weights_make_the_same_bins_whatever_they_are(draw, scale):
    labels, proba, _ = draw(3, seed=1, n=20 * ECE_BINS)
    expected = ECE_MASS(labels, proba)
    assert ECE_MASS(labels, proba, np.full(len(labels), scale)) == pytest.approx(expected, abs=1e-12)
