import numpy as np
import pytest

from ensembler.combiners import make_combiner
from ensembler.errors import PredictionsError
from ensembler.evaluation.diversity import (
    ambiguity,
    disagreement,
    diversity,
    double_fault,
    error_correlation,
    q_statistic,
)
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions

LABELS = np.array([0, 0, 1, 1])
CHOSEN = np.array([[0, 0, 1, 1], [0, 1, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0]])  # right, halves, their opposite
PREDICTIONS = Predictions.from_arrays(np.eye(2)[CHOSEN], LABELS, [0, 0, 1, 1])


def test_disagreement_by_hand():
    expected = [[0, 0.5, 0.5, 0.5], [0.5, 0, 1, 0], [0.5, 1, 0, 1], [0.5, 0, 1, 0]]
    np.testing.assert_allclose(disagreement(PREDICTIONS), expected)


def test_error_correlation_by_hand():
    expected = [[1, 0, 0, 0], [0, 1, -1, 1], [0, -1, 1, -1], [0, 1, -1, 1]]
    np.testing.assert_allclose(error_correlation(PREDICTIONS), expected)


def test_q_statistic_by_hand():
    expected = [[1, 0, 0, 0], [0, 1, -1, 1], [0, -1, 1, -1], [0, 1, -1, 1]]
    np.testing.assert_allclose(q_statistic(PREDICTIONS), expected)
    # Both right 5, only one 2 and 1, both wrong 2: (10 - 2) / (10 + 2).
    right = np.array([[1] * 5 + [1, 1] + [0] + [0, 0], [1] * 5 + [0, 0] + [1] + [0, 0]])
    rows = Predictions.from_arrays(np.eye(2)[1 - right], np.zeros(10, int), [0, 1] * 5)
    assert q_statistic(rows)[0, 1] == pytest.approx(8 / 12)


def test_double_fault_by_hand():
    expected = [[0, 0, 0, 0], [0, 0.5, 0, 0.5], [0, 0, 0.5, 0], [0, 0.5, 0, 0.5]]
    np.testing.assert_allclose(double_fault(PREDICTIONS), expected)


def test_means_are_over_pairs():
    found = diversity(PREDICTIONS)
    assert found.disagreement == pytest.approx((0.5 * 3 + 1 + 0 + 1) / 6)
    assert found.error_correlation == pytest.approx((0 * 3 - 1 + 1 - 1) / 6)
    assert found.q_statistic == pytest.approx(-1 / 6)
    assert found.double_fault == pytest.approx(0.5 / 6)
    alone = diversity(PREDICTIONS.select(["m0"]))
    assert alone.disagreement is alone.q_statistic is None


def test_independent_errors_are_seen_as_such(library):
    rng = np.random.default_rng(0)
    right = rng.random((2, 20_000)) < 0.7
    rows = Predictions.from_arrays(
        np.eye(2)[1 - right.astype(int)], np.zeros(20_000, int), np.arange(20_000) % 2
    )
    found = diversity(rows)
    assert found.q_statistic == pytest.approx(0, abs=0.05)
    assert found.error_correlation == pytest.approx(0, abs=0.02)
    assert found.double_fault == pytest.approx(0.09, abs=0.01)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("weights", [None, [3, 0, 1]])
@pytest.mark.parametrize(
    ("loss", "combination"), [("brier", "mean"), ("log_loss", "mean"), ("log_loss", "geometric")]
)
def test_the_decomposition_is_exact(library, loss, combination, weights, n_classes):
    predictions, metric = library(n_classes=n_classes), METRICS[loss]
    found = ambiguity(predictions, loss, combination, weights)
    share = np.full(3, 1 / 3) if weights is None else np.array(weights) / 4
    single = [metric(predictions.labels, slab) for slab in predictions.proba]
    assert found.members == pytest.approx(share @ single)
    assert found.ambiguity > 0
    assert found.ensemble == pytest.approx(found.members - found.ambiguity, abs=1e-12)
    if combination == "mean":
        combined = np.tensordot(share, predictions.proba.astype(float), axes=1)
    else:
        combined = np.exp(np.tensordot(share, np.log(predictions.proba.astype(float)), axes=1))
        combined /= combined.sum(axis=1, keepdims=True)
    assert found.ensemble == pytest.approx(metric(predictions.labels, combined), abs=1e-9)


def test_the_ensembles_are_those_of_the_combiners(library):
    predictions = library()
    for key in ("mean", "geometric"):
        combined = make_combiner(key).fit(predictions).predict(predictions).proba[0]
        expected = METRICS["log_loss"](predictions.labels, combined)
        assert ambiguity(predictions, "log_loss", key).ensemble == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("loss", "combination"), [("brier", "mean"), ("log_loss", "geometric")])
def test_ambiguity_does_not_look_at_labels(library, loss, combination):
    predictions = library()
    other = Predictions.from_arrays(predictions.proba, (predictions.labels + 1) % 3, predictions.fold)
    assert (
        ambiguity(other, loss, combination).ambiguity == ambiguity(predictions, loss, combination).ambiguity
    )
    assert ambiguity(other, "log_loss", "mean") != ambiguity(predictions, "log_loss", "mean")


def test_identical_members_have_none(library):
    one = library(n_members=1)
    copies = one.with_proba(np.repeat(one.proba, 3, axis=0), ["a", "b", "c"])
    for loss, combination in (("brier", "mean"), ("log_loss", "mean"), ("log_loss", "geometric")):
        assert ambiguity(copies, loss, combination).ambiguity == pytest.approx(0, abs=1e-6)


def test_what_has_no_decomposition_is_refused(library):
    with pytest.raises(PredictionsError, match="'brier' of the 'geometric' combination; expected"):
        ambiguity(library(), "brier", "geometric")
    with pytest.raises(PredictionsError, match=r"weights: \[1.0, -1.0, 1.0\]; expected 3 non-negative"):
        ambiguity(library(), weights=[1, -1, 1])
