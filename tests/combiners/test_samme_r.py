import numpy as np
import pytest

from ensembler.combiners.samme_r import SammeR, samme_r_counts
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions


def reference(proba, labels, rounds, rate):
    """The algorithm as the paper tells it, with the pick of a member in place of training one."""
    n_members, n_samples, n_classes = proba.shape
    y = np.full((n_samples, n_classes), -1 / (n_classes - 1))
    y[np.arange(n_samples), labels] = 1
    logs = np.log(proba.astype(np.float64))
    votes = rate * (n_classes - 1) * (logs - logs.mean(axis=2, keepdims=True))
    weights, counts = np.full(n_samples, 1 / n_samples), np.zeros(n_members, int)
    for _ in range(rounds):
        # The loss of adding a member is the sum of the weights that it leaves.
        factors = np.exp(-rate * (n_classes - 1) / n_classes * (y * logs).sum(axis=2))
        losses = factors @ weights
        if counts.any() and losses.min() >= weights.sum():
            break
        best = int(losses.argmin())
        # The paper's update of the weights is that of the exponential loss of the votes.
        np.testing.assert_allclose(factors[best], np.exp(-(y * votes[best]).sum(axis=1) / n_classes))
        counts[best] += 1
        weights = weights * factors[best]
        weights /= weights.sum()
    return counts


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rounds_are_those_of_the_paper(library, seed):
    predictions = library(seed=seed)
    proba, labels = predictions.proba, predictions.labels
    np.testing.assert_array_equal(samme_r_counts(proba, labels, 12, 1), reference(proba, labels, 12, 1))
    expected = reference(proba, labels, 40, 0.1)
    np.testing.assert_array_equal(samme_r_counts(proba, labels, 40, 0.1), expected)
    assert (expected > 0).sum() > 1  # otherwise this shows nothing


def test_rounds_by_hand():
    """Two classes, two rows: member 0 is sure of row 0 and wrong about row 1, member 1 the other way, less sure.

    A round multiplies a row's weight by sqrt(p_wrong / p_right).
    """
    labels = np.array([0, 0])
    proba = np.array([[[0.9, 0.1], [0.4, 0.6]], [[0.4, 0.6], [0.8, 0.2]]], np.float32)
    # Round 1: member 0 leaves 1/3 + sqrt(1.5) = 1.558, member 1 leaves sqrt(1.5) + 1/2 = 1.725.
    # Round 2: of the weights (1/3, 1.2247), member 0 leaves 0.1111 + 1.5, member 1 0.4082 + 0.6124: the less.
    # Round 3: of (0.4082, 0.6124), sum 1.0206, member 0 leaves 0.1361 + 0.75 = 0.8861, member 1 0.5 + 0.3062.
    np.testing.assert_array_equal(samme_r_counts(proba, labels, 1, 1), [1, 0])
    np.testing.assert_array_equal(samme_r_counts(proba, labels, 2, 1), [1, 1])
    np.testing.assert_array_equal(samme_r_counts(proba, labels, 3, 1), [1, 2])


def test_ends_when_no_member_helps():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=200)
    wrong = 0.7 * np.eye(3)[(labels + 1) % 3] + 0.1
    np.testing.assert_array_equal(samme_r_counts(np.stack([wrong]).astype(np.float32), labels, 50, 1), [1])


def test_probabilities_are_calibrated_better_than_the_sum_of_votes(library):
    predictions = library()
    combiner = SammeR().fit(predictions)
    combined = combiner.predict(predictions).proba[0]
    logs = np.log(predictions.proba.astype(np.float64))
    votes = np.exp(np.tensordot(samme_r_counts(predictions.proba, predictions.labels, 200, 0.05), logs, 1))
    log_loss = METRICS["log_loss"]
    assert log_loss(predictions.labels, combined) < log_loss(
        predictions.labels, votes / votes.sum(axis=1, keepdims=True)
    )
    np.testing.assert_array_equal(combined.argmax(axis=1), votes.argmax(axis=1))


def test_a_tie_goes_to_the_first_name():
    proba = np.full((2, 10, 2), 0.5)
    labels = np.tile([0, 1], 5)
    for members in (["b", "a"], ["a", "b"]):
        predictions = Predictions.from_arrays(proba, labels, np.arange(10) % 2, members=members)
        assert SammeR().fit(predictions).used_members_ == ("a",)
