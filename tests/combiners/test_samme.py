import numpy as np
import pytest

from ensembler.combiners.samme import Samme, samme_alphas
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions


def test_alphas_by_hand():
    """Three classes, five rows: member 0 errs on row 0, member 1 on rows 1 and 2, member 2 on 3 and 4."""
    wrong = np.array([[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]], bool)
    # Round 1: errors 1/5, 2/5, 2/5. Member 0: alpha = log(4) + log(2) = log 8.
    # Row 0 now weighs 8 and the others 1, of 12: errors 8/12, 2/12, 2/12.
    # Round 2: member 1: alpha = log(10 / 2) + log(2) = log 10. Weights 8, 10, 10, 1, 1 of 30.
    np.testing.assert_allclose(samme_alphas(wrong, 3, 1), [np.log(8), 0, 0])
    np.testing.assert_allclose(samme_alphas(wrong, 3, 2), [np.log(8), np.log(10), 0])
    # Round 3: errors 8/30, 20/30, 2/30. Member 2: alpha = log(28 / 2) + log(2) = log 28.
    np.testing.assert_allclose(samme_alphas(wrong, 3, 3), [np.log(8), np.log(10), np.log(28)])


def test_weights_are_the_alphas_normalised():
    wrong = np.array([[1, 0, 0, 0, 0], [0, 1, 1, 0, 0]], bool)
    labels = np.array([0, 1, 2, 0, 1])
    chosen = np.where(wrong, (labels + 1) % 3, labels)
    predictions = Predictions.from_arrays(np.eye(3)[chosen] * 0.7 + 0.1, labels, [0, 0, 1, 1, 1])
    weights = Samme(rounds=2).fit(predictions).weights_
    np.testing.assert_allclose(weights, np.log([8, 10]) / np.log(80))


def test_a_member_that_never_errs_takes_all():
    wrong = np.array([[1, 0, 0], [0, 0, 0], [0, 1, 1]], bool)
    np.testing.assert_array_equal(samme_alphas(wrong, 2, 10), [0, 1, 0])


def test_without_a_member_above_chance_the_weights_are_equal():
    wrong = np.array([[1, 1, 0, 0], [1, 0, 1, 0]], bool)
    np.testing.assert_array_equal(samme_alphas(wrong, 2, 10), [1, 1])


def test_chosen_member_is_at_chance_afterwards():
    """The defining property of the weights: to the updated rows, the last pick is worth nothing."""
    wrong = np.random.default_rng(0).random((1, 50)) < 0.3
    alphas = samme_alphas(wrong, 4, 20)
    error = wrong.mean()
    np.testing.assert_allclose(alphas, np.log((1 - error) / error) + np.log(3))


def test_votes_become_probabilities_with_a_sane_log_loss(library):
    predictions = library()
    combined = Samme().fit(predictions).predict(predictions).proba[0]
    assert METRICS["log_loss"](predictions.labels, combined) < np.log(4)


def test_votes_that_never_err_in_sample_are_not_given_certainty():
    labels = np.tile([0, 1], 50)
    perfect = Predictions.from_arrays(np.eye(2)[labels], labels, np.arange(100) % 2)
    combined = Samme().fit(perfect).predict(perfect).proba[0]
    assert combined.max() == pytest.approx(101 / 102, abs=1e-3)
