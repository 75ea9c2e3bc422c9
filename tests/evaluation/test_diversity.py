import numpy as np

from ensembler.evaluation.diversity import disagreement, error_correlation
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
