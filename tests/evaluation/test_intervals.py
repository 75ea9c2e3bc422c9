import numpy as np
import pytest
from scipy import stats

from ensembler.evaluation.intervals import (
    bootstrap_moments,
    difference_interval,
    p_value,
    proportion_interval,
    score_interval,
    t_quantile,
)
from ensembler.evaluation.significance import bootstrap_weights, interval, weighted_means


def symmetric(error, n_boot=400):
    """Samples without skewness whose standard deviation is `error`."""
    values = np.linspace(-1, 1, n_boot)
    return values / values.std(ddof=1) * error


def means_and_resamples(draw, n_samples, n_draws, seed=0, groups=None):
    rng = np.random.default_rng(seed)
    values = draw(rng, (n_draws, n_samples))
    weights = bootstrap_weights(n_samples, 1000, seed=1, groups=groups)
    return values.mean(axis=1), weighted_means(values, weights)


def covered(low, high, truth):
    return ((low <= truth) & (truth <= high)).mean()


def test_moments_are_those_of_scipy():
    samples = np.random.default_rng(0).gamma(2, size=(3, 500))
    moments = bootstrap_moments(samples)
    np.testing.assert_allclose(moments.error, samples.std(axis=1, ddof=1))
    biased = stats.skew(samples, axis=1) * (499 / 500) ** 1.5  # over the same standard deviation as the error
    np.testing.assert_allclose(moments.skew, biased)
    holed = np.insert(samples, 7, np.nan, axis=1)
    np.testing.assert_allclose(bootstrap_moments(holed).error, moments.error)
    np.testing.assert_allclose(bootstrap_moments(holed).skew, moments.skew)


def test_without_skewness_it_is_the_t_interval_and_the_t_test():
    values = np.random.default_rng(0).normal(0.3, 1, size=40)
    error = values.std(ddof=1) / np.sqrt(40)
    expected = stats.t.interval(0.95, 39, values.mean(), error)
    for find in (score_interval, difference_interval):
        low, high = find(values.mean(), symmetric(error), 40)
        assert (float(low), float(high)) == pytest.approx(expected)
    assert float(p_value(values.mean(), symmetric(error), 40)) == pytest.approx(
        stats.ttest_1samp(values, 0).pvalue
    )


def test_an_interval_reaches_further_to_the_side_of_the_tail():
    samples = np.random.default_rng(0).gamma(1, size=2000)
    low, high = score_interval(samples.mean(), samples, 50)
    assert high - samples.mean() > 1.5 * (samples.mean() - low)


@pytest.mark.parametrize("skewness", [-1, 0, 1])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_p_value_is_where_the_interval_begins_to_include_zero(skewness, level):
    samples = np.random.default_rng(0).gamma(4, size=1000)
    samples = symmetric(1.0) if skewness == 0 else skewness * samples
    low, high = difference_interval(0.0, samples, 30, level)
    for end in (low, high):  # an estimate of -end has an interval that ends in zero
        assert float(p_value(-end, samples, 30)) == pytest.approx(1 - level)


def test_a_difference_keeps_the_further_end():
    samples = np.random.default_rng(0).gamma(4, size=2000)
    low, high = score_interval(0.0, samples, 50)
    reach = t_quantile(50, 0.95) * samples.std(ddof=1)
    assert -reach < low
    assert high > reach
    assert difference_interval(0.0, samples, 50) == pytest.approx((-reach, float(high)))


def test_every_row_of_a_table_is_worked_on_alone():
    samples = np.random.default_rng(0).gamma(2, size=(5, 300))
    delta = np.linspace(-1, 1, 5)
    low, high = score_interval(delta, samples, 20)
    for row in range(5):
        assert score_interval(delta[row], samples[row], 20) == (low[row], high[row])
        assert p_value(delta[row], samples[row], 20) == p_value(delta, samples, 20)[row]


def test_where_nothing_varies_the_interval_is_the_estimate():
    assert score_interval(0.2, np.full(50, 0.2), 10) == (0.2, 0.2)
    assert p_value(0.2, np.full(50, 0.2), 10) == 0
    assert p_value(0.0, np.zeros(50), 10) == 1
    assert np.isnan(score_interval(0.2, np.full(50, np.nan), 10)).all()
    assert p_value(0.2, np.full(50, np.nan), 10) == 1


def test_one_unit_is_the_widest_t():
    assert t_quantile(1, 0.95) == t_quantile(2, 0.95) == pytest.approx(12.706, abs=1e-3)


def test_proportion_by_hand():
    # 50 of 50 right: 50 / (50 + t^2), the rule of three with t instead of the normal quantile.
    low, high = proportion_interval(1.0, np.ones(100), 50)
    assert float(high) == 1
    assert float(low) == pytest.approx(50 / (50 + t_quantile(50, 0.95) ** 2))
    # Wilson's interval for 81 of 263 (Newcombe 1998, table I): 0.2553 to 0.3662 with the normal quantile.
    p, n = 81 / 263, 263
    low, high = proportion_interval(p, symmetric(np.sqrt(p * (1 - p) / n)), 10**9)
    assert (float(low), float(high)) == pytest.approx((0.2553, 0.3662), abs=1e-4)


def test_groups_count_as_fewer_rows():
    p, n = 0.8, 200
    alone, together = symmetric(np.sqrt(p * (1 - p) / n)), symmetric(2 * np.sqrt(p * (1 - p) / n))
    low, high = proportion_interval(p, together, 200)
    assert low == pytest.approx(float(proportion_interval(p, symmetric(np.sqrt(p * (1 - p) / 50)), 200)[0]))
    assert high - low > 1.8 * np.subtract(*proportion_interval(p, alone, 200)[::-1])


def test_covers_the_mean_of_a_skewed_loss_where_percentiles_do_not():
    """Gamma losses of skewness 4 over 50 rows."""
    means, samples = means_and_resamples(lambda rng, size: rng.gamma(0.25, size=size), 50, 2000)
    assert 0.935 <= covered(*score_interval(means, samples, 50), 0.25) <= 0.97
    assert covered(*np.transpose([interval(row) for row in samples[:1000]]), 0.25) < 0.93


def test_skewness_that_a_few_rows_call_for_narrows_nothing():
    """Differences in a fifth of 50 rows, to both sides: the skewness of such a sample is luck."""
    means, samples = means_and_resamples(
        lambda rng, size: (rng.random(size) < 0.2) * rng.normal(size=size), 50, 2000
    )
    assert 0.94 <= covered(*difference_interval(means, samples, 50), 0) <= 0.97
    assert (p_value(means, samples, 50) <= 0.05).mean() <= 0.055


def test_covers_a_high_accuracy_over_few_rows():
    means, samples = means_and_resamples(lambda rng, size: (rng.random(size) < 0.95).astype(float), 50, 2000)
    assert 0.93 <= covered(*proportion_interval(means, samples, 50), 0.95) <= 0.985  # it steps by 1 / 50


def test_p_values_are_uniform_without_a_difference_over_20_rows():
    means, samples = means_and_resamples(lambda rng, size: rng.normal(size=size), 20, 2000)
    p_values = p_value(means, samples, 20)
    assert 0.035 <= (p_values < 0.05).mean() <= 0.065
    assert 0.45 <= (p_values < 0.5).mean() <= 0.55


def test_covers_with_groups():
    groups = np.repeat(np.arange(40), 5)

    def draw(rng, size):
        shared = rng.exponential(size=(size[0], 40))[:, groups]
        return shared + rng.exponential(size=size)

    means, samples = means_and_resamples(draw, 200, 2000, groups=groups)
    assert covered(*score_interval(means, samples, 40), 2) >= 0.93
    rows_alone = means_and_resamples(draw, 200, 2000)
    assert covered(*score_interval(*rows_alone, 200), 2) < 0.85
