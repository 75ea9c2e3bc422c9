import numpy as np
import pytest

from ensembler.combiners.greedy import Greedy, greedy_weights
from ensembler.metrics import METRICS


def reference(proba, labels, metric, rounds):
    """Caruana's selection as the paper tells it: every candidate ensemble is averaged and scored in full."""
    log_loss = METRICS["log_loss"]
    chosen, trajectory = [], []
    for _ in range(rounds):
        ranked = []
        for member in range(len(proba)):
            average = proba[[*chosen, member]].astype(np.float64).mean(axis=0)
            loss = -metric.sign * metric(labels, average)
            ranked.append((round(loss, 11), member not in chosen, log_loss(labels, average), member))
        loss, _, _, member = min(ranked)
        chosen.append(member)
        trajectory.append(loss)
    size = int(np.argmin(trajectory)) + 1
    return np.bincount(chosen[:size], minlength=len(proba)) / size


@pytest.mark.parametrize("metric", ["log_loss", "accuracy", "brier", "macro_f1"])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_naive_selection(library, metric, seed):
    predictions = library(n_samples=101, seed=seed)
    expected = reference(predictions.proba, predictions.labels, METRICS[metric], 15)
    weights = greedy_weights(predictions.proba, predictions.labels, METRICS[metric], 15)
    np.testing.assert_array_equal(weights, expected)


def test_improves_on_the_best_member_in_sample(library):
    predictions = library()
    log_loss = METRICS["log_loss"]
    combined = Greedy().fit(predictions).predict(predictions).proba[0]
    assert log_loss(predictions.labels, combined) < min(
        log_loss(predictions.labels, p) for p in predictions.proba
    )


def test_one_round_is_the_best_member(library):
    predictions = library()
    scores = [METRICS["accuracy"](predictions.labels, p) for p in predictions.proba]
    weights = Greedy(metric="accuracy", rounds=1).fit(predictions).weights_
    assert int(weights.argmax()) == int(np.argmax(scores))
    assert weights.max() == 1


def test_a_tie_prefers_a_member_already_chosen(library):
    one = library(n_members=1)
    copies = one.with_proba(np.repeat(one.proba, 3, axis=0), ["a", "b", "c"])
    np.testing.assert_array_equal(Greedy().fit(copies).weights_, [1, 0, 0])


def test_a_tie_on_accuracy_goes_to_the_lower_log_loss(library):
    labels = np.array([0, 1, 0, 1])
    sure, unsure = 0.9 * np.eye(2)[labels] + 0.05, 0.2 * np.eye(2)[labels] + 0.4
    weights = greedy_weights(np.stack([unsure, sure]).astype(np.float32), labels, METRICS["accuracy"], 5)
    np.testing.assert_array_equal(weights, [0, 1])


def test_certain_errors_stay_finite_and_are_avoided():
    labels = np.zeros(70, np.int64)
    wrong, fair = np.eye(2)[np.ones(70, int)], np.full((70, 2), 0.5)
    weights = greedy_weights(np.stack([wrong, fair]).astype(np.float32), labels, METRICS["log_loss"], 10)
    np.testing.assert_array_equal(weights, [0, 1])
