"""Of every metric: range, direction, weights; of some: known answers, and what is undefined."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensembler.errors import ConfigError
from ensembler.metrics import METRICS, PROBA_EPS, get_metric

ALL = [*METRICS, "cost:[[0,1,4],[2,0,1],[9,3,0.5]]"]
MANY = [get_metric(name) for name in METRICS]  # any number of classes


@pytest.fixture(params=ALL)
def metric(request):
    return get_metric(request.param)


# ---------------------------------------------------------------------- known answers


def test_a_certain_error_costs_the_most_there_is():
    log_loss = METRICS["log_loss"]
    assert log_loss([0], [[0.0, 1.0]]) == pytest.approx(-np.log(PROBA_EPS)) == log_loss.high


#: Two of class 0 and four of class 1; predicted 0, 1 and 1, 1, 1, 0.
LABELS, CHOSEN = [0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", 4 / 6),
        ("balanced_accuracy", (1 / 2 + 3 / 4) / 2),
        ("macro_precision", (1 / 2 + 3 / 4) / 2),
        ("weighted_precision", (2 * 1 / 2 + 4 * 3 / 4) / 6),
        ("weighted_recall", 4 / 6),
        ("mcc", (1 * 3 - 1 * 1) / np.sqrt(2 * 4 * 2 * 4)),
        ("kappa", 1 - (2 / 6) / (2 * 2 * 4 / 36)),
        ("quadratic_kappa", 1 - (2 / 6) / (2 * 2 * 4 / 36)),
        ("cost:[[0,1],[5,0]]", (1 + 5) / 6),
    ],
)
def test_counts_by_hand(name, expected):
    assert get_metric(name)(LABELS, np.eye(2)[CHOSEN]) == pytest.approx(expected, abs=1e-12)


def test_quadratic_kappa_by_hand():
    # Squared distances 4, 1, 0; by chance, of labels 0, 1, 2 and predictions 2, 2, 2: (4 + 1 + 0) a row.
    score = METRICS["quadratic_kappa"]([0, 1, 2], np.eye(3)[[2, 2, 2]])
    assert score == pytest.approx(1 - 5 / 5)
    # 0, 0, 1 for 0, 1, 2: distances 0, 1, 1; by chance (2 * (0 + 1 + 4) + (1 + 0 + 1)) / 3 = 4.
    assert METRICS["quadratic_kappa"]([0, 1, 2], np.eye(3)[[0, 0, 1]]) == pytest.approx(1 - 2 / 4)


def test_ranking_by_hand():
    labels, value = np.array([1, 0, 1, 0]), np.array([0.9, 0.8, 0.4, 0.4])
    proba = np.stack([1 - value, value], axis=1)
    # Pairs won: 0.9 both, 0.4 none against 0.8 and half against its equal.
    for name in ("roc_auc", "roc_auc_weighted", "roc_auc_ovo"):
        assert METRICS[name](labels, proba) == pytest.approx(2.5 / 4)
    # Half of the recall at precision 1, the other half where two of four are positive.
    assert METRICS["average_precision"](labels, proba) == pytest.approx(0.5 * 1 + 0.5 * 2 / 4)


def test_equal_probabilities_are_ordered_as_documented():
    labels, proba = [0, 1, 2], [[1 / 3] * 3] * 3
    assert METRICS["accuracy"](labels, proba) == pytest.approx(1 / 3)  # the first class is chosen
    assert METRICS["top_2"](labels, proba) == pytest.approx(2 / 3)  # the last two are the most probable
    assert METRICS["top_2"]([0], proba[:1]) == 0


# ---------------------------------------------------------------------- what is undefined


def test_of_one_class_only():
    labels, proba = np.array([1, 1]), np.array([[0.4, 0.6], [0.3, 0.7]])
    undefined = {m.name for m in MANY if np.isnan(m(labels, proba))}
    assert undefined == {"roc_auc", "roc_auc_weighted", "roc_auc_ovo", "kappa", "quadratic_kappa"}
    assert METRICS["mcc"](labels, proba) == 0
    assert METRICS["average_precision"](labels, proba) == METRICS["macro_f1"](labels, proba) == 1


def test_a_constant_predictor_scores_no_better_than_chance():
    labels, proba = np.array([0, 1, 2, 2, 1]), np.tile([0.1, 0.7, 0.2], (5, 1))
    for name in ("mcc", "kappa", "quadratic_kappa"):
        weight = np.array([0.1, 0.7, 0.3, 0.3, 1 / 3])
        for w in (None, weight):
            score = METRICS[name](labels, proba, w)
            assert score == pytest.approx(0, abs=1e-12)
    for name in ("roc_auc", "roc_auc_weighted", "roc_auc_ovo"):
        assert METRICS[name](labels, proba) == pytest.approx(0.5)
    assert METRICS["balanced_accuracy"](labels, proba) == pytest.approx(1 / 3)


def test_without_any_weight_nothing_is_defined(metric, draw):
    labels, proba, _ = draw(3, seed=1)
    weights = np.stack([np.zeros(len(labels)), np.ones(len(labels))], axis=1)
    nothing, everything = metric.score(labels, proba, weights)
    assert np.isnan(nothing)
    assert np.isfinite(everything)


def test_a_class_without_weight_is_a_class_that_does_not_occur(metric, draw):
    labels, proba, weight = draw(3, seed=2)
    kept = labels != 1
    expected = metric(labels[kept], proba[kept], weight[kept])
    assert metric(labels, proba, weight * kept) == pytest.approx(expected, abs=1e-12)


# ---------------------------------------------------------------------- weights


def test_a_weight_is_a_number_of_copies(metric, draw):
    labels, proba, _ = draw(3, seed=5)
    copies = np.random.default_rng(0).integers(0, 4, size=len(labels))
    repeated = metric(np.repeat(labels, copies), np.repeat(proba, copies, axis=0))
    assert metric(labels, proba, copies) == pytest.approx(repeated, abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint8])
def test_many_weightings_at_once_equal_one_at_a_time(metric, draw, ties, dtype, monkeypatch):
    monkeypatch.setattr("ensembler.metrics.base._CHUNK", 5 * 150)  # in three parts, the last with one column
    labels, proba, _ = draw(3, seed=6, ties=ties)
    rng = np.random.default_rng(0)
    weights = rng.integers(3, size=(150, 11)) if dtype == np.uint8 else rng.random((150, 11))
    weights = weights.astype(dtype)
    before = weights.copy()
    together = metric.score(labels, proba, weights)
    assert together.dtype == np.float64
    np.testing.assert_allclose(together, [metric(labels, proba, w) for w in weights.T], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(weights, before)


def test_the_order_of_rows_does_not_matter(metric, draw):
    labels, proba, weight = draw(3, seed=8, ties=True)
    order = np.random.default_rng(0).permutation(len(labels))
    shuffled = metric(labels[order], proba[order], weight[order])
    assert shuffled == pytest.approx(metric(labels, proba, weight), abs=1e-12)


@pytest.mark.parametrize("name", [n for n in ALL if get_metric(n).per_row])
def test_per_row_averages_to_the_score(name, draw):
    metric = get_metric(name)
    labels, proba, weight = draw(3, seed=7)
    values = metric.per_row(labels, proba)
    assert values.shape == (150,)
    assert np.average(values, weights=weight) == pytest.approx(metric(labels, proba, weight))


# ---------------------------------------------------------------------- range, direction, kind


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), n_classes=st.integers(2, 5), sharp=st.booleans())
def test_scores_stay_in_their_range(draw, seed, n_classes, sharp):
    labels, proba, weight = draw(n_classes, seed, n=12)
    if sharp:
        proba = np.eye(n_classes)[proba.argmax(axis=1)]
    for metric in MANY:
        for w in (None, weight):
            value = metric(labels, proba, w)
            assert np.isnan(value) or metric.low - 1e-12 <= value <= metric.high + 1e-12


def test_perfect_rows_score_best_and_improvement_has_the_right_sign(metric):
    labels = np.tile(np.arange(6), 20)
    if metric.n_classes:
        labels %= metric.n_classes
    n_classes = labels.max() + 1
    perfect, poor = np.eye(n_classes)[labels], np.tile(np.arange(n_classes, 0, -1.0), (120, 1))
    poor /= poor.sum(axis=1, keepdims=True)
    good, bad = metric(labels, perfect), metric(labels, poor)
    if metric.n_classes is None:
        assert good == pytest.approx(metric.high if metric.greater_is_better else metric.low, abs=1e-6)
    assert metric.improvement(good, bad) > 0 > metric.improvement(bad, good)


def test_label_metrics_see_the_largest_probability_alone(metric, draw):
    n_classes = metric.n_classes or 7
    labels, proba, weight = draw(n_classes, seed=9)
    one_hot = np.eye(n_classes)[proba.argmax(axis=1)]
    same = metric(labels, proba, weight) == metric(labels, one_hot, weight)
    assert same == metric.labels_only


def test_titles_are_for_people():
    titles = {name: get_metric(name).title for name in ALL}
    assert titles["log_loss"] == "log loss"
    assert titles["macro_f1"] == "macro F1"
    assert titles[ALL[-1]] == "cost"
    assert len(set(titles.values())) == len(ALL)
    assert not any("_" in title for title in titles.values())


def test_a_misspelt_metric_names_the_nearest():
    assert get_metric("brier").name == "brier"
    with pytest.raises(ConfigError, match="unknown metric 'logloss'; did you mean 'log_loss'"):
        get_metric("logloss")
    with pytest.raises(ConfigError, match="unknown metric 'costs'; did you mean 'cost'"):
        get_metric("costs")
