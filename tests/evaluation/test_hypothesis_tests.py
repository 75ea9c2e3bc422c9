import numpy as np
import pytest
from scipy import stats

from ensembler.errors import PredictionsError
from ensembler.evaluation.hypothesis_tests import (
    corrected_t_test,
    critical_difference,
    fold_scores,
    fold_test,
    mcnemar,
    mcnemar_of,
    nemenyi_difference,
)
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions

# ---------------------------------------------------------------------- McNemar


def test_mcnemar_by_hand():
    exact = mcnemar(8, 1)  # 2 (C(9, 0) + C(9, 1)) / 2^9
    assert (exact.statistic, exact.exact) == (1, True)
    assert exact.p_value == pytest.approx(20 / 512)
    assert mcnemar(1, 8).p_value == exact.p_value
    corrected = mcnemar(40, 20, exact=False)  # (|40 - 20| - 1)^2 / 60
    assert corrected.statistic == pytest.approx(361 / 60)
    assert corrected.p_value == pytest.approx(stats.chi2.sf(361 / 60, 1))


def test_mcnemar_is_the_binomial_test():
    for first, second in [(0, 5), (3, 9), (12, 12), (30, 17)]:
        expected = stats.binomtest(first, first + second, 0.5).pvalue
        assert mcnemar(first, second, exact=True).p_value == pytest.approx(expected)


def test_mcnemar_without_a_discordant_row_finds_nothing():
    assert mcnemar(0, 0).p_value == mcnemar(0, 0, exact=False).p_value == 1


def test_mcnemar_is_exact_where_rows_are_few():
    assert mcnemar(12, 12).exact
    assert not mcnemar(13, 12).exact


@pytest.mark.parametrize("exact", [True, False])
def test_mcnemar_equals_statsmodels(exact):
    contingency = pytest.importorskip("statsmodels.stats.contingency_tables", reason="statsmodels")
    for first, second in [(1, 8), (12, 5), (40, 20), (7, 7), (0, 3)]:
        theirs = contingency.mcnemar([[50, first], [second, 9]], exact=exact, correction=True)
        ours = mcnemar(first, second, exact)
        assert ours.statistic == pytest.approx(theirs.statistic)
        assert ours.p_value == pytest.approx(theirs.pvalue)


def test_mcnemar_of_two_members_counts_their_discordant_rows():
    labels = np.zeros(6, int)
    chosen = np.array([[0, 0, 0, 0, 1, 1], [0, 1, 1, 1, 0, 1]])
    found = mcnemar_of(Predictions.from_arrays(np.eye(2)[chosen], labels, [0, 1] * 3), "m0", "m1")
    assert (found.only_first, found.only_second) == (3, 1)


# ---------------------------------------------------------------------- folds


def test_corrected_t_test_by_hand():
    # Mean 0.02, standard deviation 0.0158; error = 0.0158 sqrt(1/5 + 1/4) = 0.01061; t = 1.886, 4 degrees.
    found = corrected_t_test([0.0, 0.01, 0.02, 0.03, 0.04], 1 / 4)
    assert found.delta == pytest.approx(0.02)
    assert found.statistic == pytest.approx(1.8856, abs=1e-4)
    assert found.freedom == 4
    assert found.p_value == pytest.approx(2 * stats.t.sf(1.8856, 4), abs=1e-5)
    assert found.high - found.delta == pytest.approx(2.7764 * 0.0106066, abs=1e-5)


def test_without_overlap_it_is_the_plain_t_test():
    values = np.random.default_rng(0).normal(0.5, 1, size=12)
    found, plain = corrected_t_test(values, 1e-15), stats.ttest_1samp(values, 0)
    assert found.statistic == pytest.approx(plain.statistic)
    assert found.p_value == pytest.approx(plain.pvalue)


def test_an_interval_that_includes_zero_goes_with_a_large_p_value():
    found = corrected_t_test([0.1, 0.3, 0.2], 0.5)
    assert found.low * found.delta < 0  # too few folds to say
    assert found.p_value > 0.05


def test_folds_that_all_agree():
    assert corrected_t_test([0.1, 0.1, 0.1], 0.5).p_value == 0
    assert corrected_t_test([0.0, 0.0, 0.0], 0.5).p_value == 1


@pytest.mark.parametrize("bad", [[0.1], [0.1, np.nan], [[0.1, 0.2]]])
def test_what_is_no_list_of_differences_is_refused(bad):
    with pytest.raises(PredictionsError, match="two or more finite numbers"):
        corrected_t_test(bad, 0.25)


def test_a_test_share_of_nothing_is_refused():
    with pytest.raises(PredictionsError, match="test_share: 0; expected"):
        corrected_t_test([0.1, 0.2], 0)


@pytest.mark.parametrize("name", ["log_loss", "accuracy"])
def test_members_are_compared_over_their_folds(library, name):
    predictions, metric = library(n_folds=4), METRICS[name]
    scores = fold_scores(predictions, metric)
    assert scores.shape == (3, 4)
    in_fold = predictions.fold == 2
    assert scores[1, 2] == metric(predictions.labels[in_fold], predictions.proba[1, in_fold])
    expected = corrected_t_test(metric.improvement(scores[2], scores[0]), 1 / 3)
    assert fold_test(predictions, metric, "m2", "m0") == expected
    with pytest.raises(PredictionsError, match=r"two folds or more; found \[0\]"):
        fold_test(library(n_folds=1), metric, "m0", "m1")


# ---------------------------------------------------------------------- ranks


def test_friedman_equals_scipy_with_and_without_ties():
    rng = np.random.default_rng(0)
    for scores in (rng.normal(size=(4, 9)), rng.integers(4, size=(5, 12)).astype(float)):
        theirs = stats.friedmanchisquare(*scores)
        for greater_is_better in (True, False):
            ours = critical_difference(list("abcde")[: len(scores)], scores, greater_is_better)
            assert ours.statistic == pytest.approx(theirs.statistic)
            assert ours.p_value == pytest.approx(theirs.pvalue)


def test_demsars_example():
    """AUC of four variants of C4.5 on 14 data sets (Demsar 2006, table 6 and the text below it)."""
    scores = [
        [0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1.000, 0.940, 0.619, 0.972, 0.957],
        [0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1.000, 0.962, 0.666, 0.981, 0.978],
        [0.771, 0.590, 0.968, 0.654, 0.886, 0.916, 0.609, 0.563, 0.866, 1.000, 0.965, 0.614, 0.9751, 0.946],
        [0.798, 0.569, 0.967, 0.657, 0.898, 0.931, 0.685, 0.625, 0.875, 1.000, 0.962, 0.669, 0.975, 0.970],
    ]
    found = critical_difference(["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"], scores, greater_is_better=True)
    ranks = dict(zip(found.names, found.ranks, strict=True))
    expected = {"C4.5": 3.143, "C4.5+m": 2.000, "C4.5+cf": 2.893, "C4.5+m+cf": 1.964}
    assert ranks == pytest.approx(expected, abs=1e-3)
    assert found.difference == pytest.approx(1.25, abs=0.01)


@pytest.mark.parametrize(
    ("n_rows", "quantile"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (7, 2.949), (10, 3.164)]
)
def test_nemenyi_quantiles_are_those_of_the_table(n_rows, quantile):
    """Demsar 2006, table 5a."""
    assert nemenyi_difference(n_rows, 6) * np.sqrt(36 / (n_rows * (n_rows + 1))) == pytest.approx(
        quantile, abs=2e-3
    )


def test_cliques_join_neighbours_that_are_not_shown_to_differ():
    blocks = 12
    scores = np.repeat([[1.0], [2.0], [3.0], [4.0], [5.0]], blocks, axis=1)  # ranks 1 to 5 in every block
    found = critical_difference(list("abcde"), scores, greater_is_better=False)
    assert found.names == tuple("abcde")
    assert 1 < found.difference < 2  # 2.728 sqrt(30 / 72) = 1.76
    assert found.cliques == (("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"))
    assert found.p_value < 1e-8
    assert found.f_p_value == 0
    few = critical_difference(list("abcde"), scores[:, :3], greater_is_better=False)
    assert few.cliques == (("a", "b", "c", "d"), ("b", "c", "d", "e"))  # 3.52: a and e alone are apart
    many = critical_difference(list("abcde"), np.repeat(scores, 20, axis=1), greater_is_better=True)
    assert many.names == tuple("edcba")
    assert many.cliques == ()


def test_rows_that_are_equal_everywhere_share_their_rank():
    found = critical_difference(["a", "b", "c"], np.ones((3, 4)), greater_is_better=True)
    np.testing.assert_array_equal(found.ranks, [2, 2, 2])
    assert found.p_value == found.f_p_value == 1
    assert found.cliques == (("a", "b", "c"),)


def test_iman_and_davenport_by_hand():
    scores = np.array([[1, 1, 2, 1], [2, 2, 1, 3], [3, 3, 3, 2]])
    found = critical_difference(["a", "b", "c"], scores, greater_is_better=False)
    # Rank sums 5, 8, 11: chi-squared 12 / (4 x 3 x 4) x 210 - 3 x 4 x 4 = 4.5; F = 3 x 4.5 / (8 - 4.5).
    assert found.statistic == pytest.approx(4.5)
    assert found.f_statistic == pytest.approx(13.5 / 3.5)
    assert found.f_p_value == pytest.approx(stats.f.sf(13.5 / 3.5, 2, 6))


def test_scores_that_cannot_be_ranked_are_refused():
    with pytest.raises(
        PredictionsError, match=r"shape \(1, 3\) for 1 names; expected \(rows, blocks\), two or more"
    ):
        critical_difference(["a"], np.ones((1, 3)), True)
    with pytest.raises(PredictionsError, match="'b' has nan in block 1; leave out the block"):
        critical_difference(["a", "b"], [[1, 2], [3, np.nan]], True)
