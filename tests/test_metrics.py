import numpy as np
import pytest
import sklearn.metrics as skm
from hypothesis import given, settings
from hypothesis import strategies as st

from ensembler.errors import ConfigError
from ensembler.metrics import METRICS, PROBA_EPS, get_metric


def scikit_learn(name, labels, proba, weight):
    """scikit-learn's score; AUC one against the rest for more than two classes."""
    classes, chosen = np.arange(proba.shape[1]), proba.argmax(axis=1)
    binary = proba.shape[1] == 2
    return {
        "log_loss": lambda: skm.log_loss(labels, proba, sample_weight=weight, labels=classes),
        "accuracy": lambda: skm.accuracy_score(labels, chosen, sample_weight=weight),
        "balanced_accuracy": lambda: skm.balanced_accuracy_score(labels, chosen, sample_weight=weight),
        "brier": lambda: skm.brier_score_loss(
            labels, proba[:, 1] if binary else proba, sample_weight=weight, labels=classes
        ),
        "macro_precision": lambda: skm.precision_score(
            labels, chosen, sample_weight=weight, average="macro", zero_division=0
        ),
        "macro_recall": lambda: skm.recall_score(
            labels, chosen, sample_weight=weight, average="macro", zero_division=0
        ),
        "macro_f1": lambda: skm.f1_score(labels, chosen, sample_weight=weight, average="macro"),
        "roc_auc": lambda: skm.roc_auc_score(
            labels, proba[:, 1] if binary else proba, sample_weight=weight, multi_class="ovr"
        ),
    }[name]()


def rows(n_classes, seed, n=150, ties=False):
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_classes, size=n)
    proba = rng.dirichlet(np.ones(n_classes), size=n)
    if ties:
        proba = np.round(proba, 1) + 1e-3
        proba /= proba.sum(axis=1, keepdims=True)
    return labels, proba, rng.random(n)


@pytest.mark.parametrize("name", [n for n in METRICS if n != "ece"])
@pytest.mark.parametrize("n_classes", [2, 3, 7])
@pytest.mark.parametrize("ties", [False, True])
def test_equals_scikit_learn_with_and_without_weights(name, n_classes, ties):
    labels, proba, weight = rows(n_classes, seed=n_classes, ties=ties)
    for w in (None, weight):
        expected = scikit_learn(name, labels, proba, w)
        assert METRICS[name](labels, proba, w) == pytest.approx(expected, abs=1e-9)


def test_log_loss_equals_scikit_learn_on_certain_float32_rows():
    labels = np.array([0, 1, 1, 0])
    proba = np.array([[1, 0], [1, 0], [0, 1], [0.5, 0.5]], np.float32)
    expected = skm.log_loss(labels, proba)  # same clip; its logarithms are float32
    assert METRICS["log_loss"](labels, proba) == pytest.approx(expected, rel=1e-7)


def test_a_certain_error_costs_the_most_there_is():
    log_loss = METRICS["log_loss"]
    assert log_loss([0], [[0.0, 1.0]]) == pytest.approx(-np.log(PROBA_EPS)) == log_loss.high


def test_ece_by_hand():
    # Bins of 1/15: 0.95 in the last, twice, one right: |0.5 - 0.95|; 0.6 in the ninth, right: |1 - 0.6|.
    labels, proba = [0, 1, 0], [[0.95, 0.05], [0.95, 0.05], [0.6, 0.4]]
    assert METRICS["ece"](labels, proba) == pytest.approx((2 * 0.45 + 1 * 0.4) / 3)
    assert METRICS["ece"](labels, proba, [1, 1, 0]) == pytest.approx(0.45)


def test_classes_that_do_not_occur_are_left_out():
    labels, proba, _ = rows(4, seed=0)
    labels = labels % 3
    kept = [0, 1, 2]
    by_hand = np.mean([skm.roc_auc_score(labels == k, proba[:, k]) for k in kept])
    assert METRICS["roc_auc"](labels, proba) == pytest.approx(by_hand, abs=1e-9)
    recalls = skm.recall_score(labels, proba.argmax(axis=1), labels=kept, average=None)
    assert METRICS["balanced_accuracy"](labels, proba) == pytest.approx(recalls.mean(), abs=1e-9)


def test_the_auc_of_one_class_is_undefined():
    assert np.isnan(METRICS["roc_auc"]([1, 1], [[0.4, 0.6], [0.3, 0.7]]))


@pytest.mark.parametrize("name", METRICS)
def test_a_weight_is_a_number_of_copies(name):
    labels, proba, _ = rows(3, seed=5)
    copies = np.random.default_rng(0).integers(0, 4, size=len(labels))
    repeated = METRICS[name](np.repeat(labels, copies), np.repeat(proba, copies, axis=0))
    assert METRICS[name](labels, proba, copies) == pytest.approx(repeated, abs=1e-9)


@pytest.mark.parametrize("name", METRICS)
def test_many_weightings_at_once_equal_one_at_a_time(name):
    labels, proba, _ = rows(3, seed=6)
    weights = np.random.default_rng(0).random((len(labels), 4))
    together = METRICS[name].score(labels, proba, weights)
    np.testing.assert_allclose(together, [METRICS[name](labels, proba, w) for w in weights.T], atol=1e-12)


@pytest.mark.parametrize("name", [n for n, m in METRICS.items() if m.per_row])
def test_per_row_averages_to_the_score(name):
    labels, proba, weight = rows(3, seed=7)
    values = METRICS[name].per_row(labels, proba)
    assert values.shape == (150,)
    assert np.average(values, weights=weight) == pytest.approx(METRICS[name](labels, proba, weight))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), n_classes=st.integers(2, 5), sharp=st.booleans())
def test_scores_stay_in_their_range(seed, n_classes, sharp):
    labels, proba, _ = rows(n_classes, seed, n=12)
    if sharp:
        proba = np.eye(n_classes)[proba.argmax(axis=1)]
    for metric in METRICS.values():
        value = metric(labels, proba)
        assert np.isnan(value) or metric.low - 1e-12 <= value <= metric.high + 1e-12


@pytest.mark.parametrize("name", METRICS)
def test_perfect_rows_score_best_and_improvement_has_the_right_sign(name):
    metric = METRICS[name]
    labels = np.tile([0, 1, 2], 20)
    perfect, poor = np.eye(3)[labels], np.tile([0.2, 0.5, 0.3], (60, 1))
    good, bad = metric(labels, perfect), metric(labels, poor)
    assert good == pytest.approx(metric.high if metric.greater_is_better else metric.low, abs=1e-6)
    assert metric.improvement(good, bad) > 0 > metric.improvement(bad, good)


def test_a_misspelt_metric_names_the_nearest():
    assert get_metric("brier").name == "brier"
    with pytest.raises(ConfigError, match="unknown metric 'logloss'; did you mean 'log_loss'"):
        get_metric("logloss")
