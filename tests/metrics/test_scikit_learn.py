"""The same numbers as scikit-learn's, wherever it has the metric."""

import itertools

import numpy as np
import pytest
import sklearn.metrics as skm

from ensembler.metrics import METRICS, get_metric

COST = "cost:[[0,1,4],[2,0,1],[9,3,0.5]]"


def averages(labels, chosen, weight):
    scores = {"precision": skm.precision_score, "recall": skm.recall_score, "f1": skm.f1_score}
    return {
        f"{kind}_{name}": lambda score=score, kind=kind: score(
            labels, chosen, sample_weight=weight, average=kind, zero_division=0
        )
        for kind, (name, score) in itertools.product(("macro", "weighted"), scores.items())
    }


def one_against_one(labels, proba, weight):
    """Hand & Till by scikit-learn's binary score, because its own takes no weights."""
    weight = np.ones(len(labels)) if weight is None else weight
    areas = []
    for a, b in itertools.permutations(np.unique(labels), 2):
        rows = (labels == a) | (labels == b)
        areas.append(skm.roc_auc_score(labels[rows] == a, proba[rows, a], sample_weight=weight[rows]))
    return np.mean(areas)


def top(k, labels, proba, weight):
    n_classes = proba.shape[1]
    if k >= n_classes:
        return 1.0
    return skm.top_k_accuracy_score(labels, proba, k=k, labels=np.arange(n_classes), sample_weight=weight)


def scikit_learn(name, labels, proba, weight):
    """Multi-class scores of ranking: one class against the rest, or one against one."""
    classes, chosen = np.arange(proba.shape[1]), proba.argmax(axis=1)
    binary = proba.shape[1] == 2
    value = proba[:, 1] if binary else proba
    return {
        "log_loss": lambda: skm.log_loss(labels, proba, sample_weight=weight, labels=classes),
        "accuracy": lambda: skm.accuracy_score(labels, chosen, sample_weight=weight),
        "balanced_accuracy": lambda: skm.balanced_accuracy_score(labels, chosen, sample_weight=weight),
        **{f"top_{k}": lambda k=k: top(k, labels, proba, weight) for k in (2, 3, 5)},
        "brier": lambda: skm.brier_score_loss(labels, value, sample_weight=weight, labels=classes),
        **averages(labels, chosen, weight),
        "mcc": lambda: skm.matthews_corrcoef(labels, chosen, sample_weight=weight),
        "kappa": lambda: skm.cohen_kappa_score(labels, chosen, sample_weight=weight),
        "quadratic_kappa": lambda: skm.cohen_kappa_score(
            labels, chosen, labels=classes, weights="quadratic", sample_weight=weight
        ),
        "roc_auc": lambda: skm.roc_auc_score(labels, value, sample_weight=weight, multi_class="ovr"),
        "roc_auc_weighted": lambda: skm.roc_auc_score(
            labels, value, sample_weight=weight, multi_class="ovr", average="weighted"
        ),
        "roc_auc_ovo": lambda: (
            skm.roc_auc_score(labels, value, sample_weight=weight)
            if binary
            else one_against_one(labels, proba, weight)
        ),
        "average_precision": lambda: skm.average_precision_score(labels, value, sample_weight=weight),
    }[name]()


@pytest.mark.parametrize("name", [n for n in METRICS if not n.startswith("ece")])
@pytest.mark.parametrize("n_classes", [2, 3, 7, 17])
@pytest.mark.parametrize("ties", [False, True])
def test_equal_with_and_without_weights(draw, name, n_classes, ties):
    labels, proba, weight = draw(n_classes, seed=n_classes, n=250, ties=ties)
    for w in (None, weight):
        expected = scikit_learn(name, labels, proba, w)
        assert METRICS[name](labels, proba, w) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["roc_auc", "roc_auc_ovo", "average_precision", "top_2", "accuracy"])
def test_equal_on_float32(draw, name):
    labels, proba, weight = draw(3, seed=0, ties=True)
    proba = proba.astype(np.float32)
    expected = scikit_learn(name, labels, proba, weight)
    assert METRICS[name](labels, proba, weight) == pytest.approx(expected, abs=1e-9)


def test_one_against_one_is_the_librarys_own_too(draw):
    labels, proba, _ = draw(5, seed=1, ties=True)
    expected = skm.roc_auc_score(labels, proba, multi_class="ovo")
    assert METRICS["roc_auc_ovo"](labels, proba) == pytest.approx(expected, abs=1e-9)


def test_log_loss_on_certain_float32_rows():
    labels = np.array([0, 1, 1, 0])
    proba = np.array([[1, 0], [1, 0], [0, 1], [0.5, 0.5]], np.float32)
    expected = skm.log_loss(labels, proba)  # same clip; its logarithms are float32
    assert METRICS["log_loss"](labels, proba) == pytest.approx(expected, rel=1e-7)


def test_cost_is_the_weighted_mean_over_the_confusion_matrix(draw):
    labels, proba, weight = draw(3, seed=2, ties=True)
    counts = skm.confusion_matrix(labels, proba.argmax(axis=1), sample_weight=weight, normalize="all")
    expected = (counts * [[0, 1, 4], [2, 0, 1], [9, 3, 0.5]]).sum()
    assert get_metric(COST)(labels, proba, weight) == pytest.approx(expected, abs=1e-12)


# ---------------------------------------------------------------------- classes that do not occur


@pytest.fixture
def three_of_four(draw):
    """Labels of three classes; the fourth is predicted now and then."""
    labels, proba, weight = draw(4, seed=0, n=300)
    return labels % 3, proba, weight


LIBRARYS_OWN = [
    "log_loss", "accuracy", "brier", "macro_precision", "macro_recall", "macro_f1", "weighted_precision",
    "weighted_recall", "weighted_f1", "mcc", "kappa", "quadratic_kappa", "top_2", "top_3", "roc_auc_ovo",
]  # fmt: skip


@pytest.mark.parametrize("name", LIBRARYS_OWN)
def test_a_class_without_labels_counts_as_it_does_there(three_of_four, name):
    labels, proba, weight = three_of_four
    expected = scikit_learn(name, labels, proba, weight)
    assert METRICS[name](labels, proba, weight) == pytest.approx(expected, abs=1e-9)


def test_a_class_without_labels_is_left_out_of_averages(three_of_four):
    labels, proba, weight = three_of_four
    kept = [0, 1, 2]
    recalls = skm.recall_score(
        labels, proba.argmax(axis=1), labels=kept, average=None, sample_weight=weight, zero_division=0
    )
    aucs = [skm.roc_auc_score(labels == k, proba[:, k], sample_weight=weight) for k in kept]
    areas = [skm.average_precision_score(labels == k, proba[:, k], sample_weight=weight) for k in kept]
    expected = {
        "balanced_accuracy": np.mean(recalls),
        "roc_auc": np.mean(aucs),
        "roc_auc_weighted": np.average(aucs, weights=np.bincount(labels, weight)),
        "average_precision": np.mean(areas),
    }
    for name, value in expected.items():
        assert METRICS[name](labels, proba, weight) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("name", ["macro_precision", "macro_recall", "macro_f1", "kappa", "mcc"])
def test_a_class_that_is_neither_label_nor_predicted_does_not_count(draw, name):
    labels, proba, weight = draw(3, seed=3)
    wider = np.insert(proba, 1, 0, axis=1)
    moved = np.array([0, 2, 3])[labels]
    expected = METRICS[name](labels, proba, weight)
    assert METRICS[name](moved, wider, weight) == pytest.approx(expected, abs=1e-12)
