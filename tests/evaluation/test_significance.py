import numpy as np
import pytest
from scipy.stats import poisson

from ensembler.evaluation.significance import (
    bootstrap_scores,
    bootstrap_weights,
    holm,
    includes_zero,
    interval,
    weighted_means,
)
from ensembler.metrics import METRICS


def test_weights_are_poisson():
    weights = bootstrap_weights(2000, 500, seed=0)
    assert weights.dtype == np.uint8
    assert weights.shape == (2000, 500)
    assert weights.mean() == pytest.approx(1, abs=0.005)
    assert weights.var() == pytest.approx(1, abs=0.01)
    assert (weights == 0).mean() == pytest.approx(np.exp(-1), abs=0.002)
    np.testing.assert_array_equal(weights, bootstrap_weights(2000, 500, seed=0))
    assert not np.array_equal(weights, bootstrap_weights(2000, 500, seed=1))


def test_rows_of_a_group_are_drawn_together():
    groups = np.array(["b", "a", "b", "c", "a"])
    weights = bootstrap_weights(5, 50, seed=0, groups=groups)
    np.testing.assert_array_equal(weights[0], weights[2])
    np.testing.assert_array_equal(weights[1], weights[4])
    assert not np.array_equal(weights[0], weights[1])


def test_no_resample_is_empty():
    assert bootstrap_weights(1, 200, seed=0).min() == 1


@pytest.mark.parametrize("name", METRICS)
def test_scores_equal_a_loop_over_resamples(library, name, monkeypatch):
    monkeypatch.setattr("ensembler.evaluation.significance._CHUNK", 1000)  # several chunks
    predictions, metric = library(), METRICS[name]
    weights = bootstrap_weights(240, 20, seed=0)
    scores = bootstrap_scores(predictions, metric, weights)
    loop = [[metric(predictions.labels, slab, w) for w in weights.T] for slab in predictions.proba]
    np.testing.assert_allclose(scores, loop, atol=1e-9)


def test_intervals_cover_the_truth():
    """In 300 experiments the 95 % interval of an accuracy of 0.7 contains 0.7 in 91 to 98 % of them."""
    rng = np.random.default_rng(0)
    weights = bootstrap_weights(200, 400, seed=1).astype(np.float64)
    right = (rng.random((300, 200)) < 0.7).astype(np.float64)
    resampled = right @ weights / weights.sum(axis=0)
    ends = np.array([interval(row) for row in resampled])
    covered = (ends[:, 0] <= 0.7) & (ends[:, 1] >= 0.7)
    assert 0.91 <= covered.mean() <= 0.98


def test_interval_is_the_percentiles_of_what_is_defined():
    samples = np.arange(101.0)
    assert interval(samples) == pytest.approx((2.5, 97.5))
    assert interval(np.append(samples, np.nan), level=0.5) == pytest.approx((25, 75))
    assert np.isnan(interval([np.nan])).all()
    assert includes_zero(-1, 2)
    assert not includes_zero(0.1, 2)
    assert includes_zero(0.0, 0.0)


def test_holm_by_hand():
    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1 lifted to 0.06.
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1, 1])
    assert holm([]).shape == (0,)


def test_weights_do_not_depend_on_how_many_are_drawn_at_once(monkeypatch):
    weights = bootstrap_weights(300, 70, seed=0)
    monkeypatch.setattr("ensembler.evaluation.significance._DRAWS", 1000)
    np.testing.assert_array_equal(bootstrap_weights(300, 70, seed=0), weights)


def test_counts_of_weights_are_those_of_the_poisson_distribution():
    counts = np.bincount(bootstrap_weights(4000, 1000, seed=0).ravel(), minlength=9) / 4e6
    np.testing.assert_allclose(counts[:9], poisson.pmf(np.arange(9), 1), atol=1.2e-3)
    assert counts[6:].sum() == pytest.approx(poisson.sf(5, 1), rel=0.1)


def test_weighted_means_in_chunks(monkeypatch):
    monkeypatch.setattr("ensembler.evaluation.significance._CHUNK", 60)
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=(3, 50)), rng.random((50, 6))
    weights[:, 4] = 0
    means = weighted_means(values, weights)
    for column in (0, 1, 2, 3, 5):
        np.testing.assert_allclose(means[:, column], np.average(values, axis=1, weights=weights[:, column]))
    assert np.isnan(means[:, 4]).all()
