import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ensembler.combiners.competence import PRIOR_PAIRS, Competence, _fit_logistic, _pair_columns
from ensembler.combiners.mean import Mean
from ensembler.evaluation.cross_fit import cross_fit
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions


def test_columns_by_hand():
    proba = np.array([[[0.7, 0.2, 0.1]], [[0.3, 0.6, 0.1]], [[0.5, 0.4, 0.1]]], np.float32)
    correct = np.array([[True, False, True], [True, True, False], [False, False, False]])
    true = np.array([[0.9, 0.4, 0.5], [0.7, 0.6, 0.3], [0.1, 0.2, 0.2]], np.float32)
    columns = _pair_columns(proba, correct, true, np.array([[1, 0]]))
    expected = [
        # right nearby, its p of their labels, the others' p of its choice, its p, its lead, right at all
        [1, 0.8, (0.3 + 0.5) / 2, 0.7, 0.5, 2 / 3],
        [0.5, 0.5, (0.2 + 0.4) / 2, 0.6, 0.3, 1 / 3],
        [0.5, 0.4, (0.7 + 0.3) / 2, 0.5, 0.1, 1 / 3],
    ]
    np.testing.assert_allclose(columns[0], expected, atol=1e-6)


def test_the_logistic_regression_is_scikit_learns():
    rng = np.random.default_rng(0)
    design = rng.normal(size=(500, 3))
    right = rng.random(500) < 1 / (1 + np.exp(-design @ [1.0, -2.0, 0.0] - 0.5))
    coef = _fit_logistic(np.concatenate([design, np.ones((500, 1))], axis=1), right)
    model = LogisticRegression(C=1 / PRIOR_PAIRS, tol=1e-10, max_iter=1000).fit(design, right)
    np.testing.assert_allclose(coef, [*model.coef_[0], model.intercept_[0]], atol=1e-4)


def test_competence_is_the_chance_of_being_right(library):
    fitted, unseen = library(n_samples=900), library(n_samples=900, seed=1)
    combiner = Competence().fit(fitted)
    chance = combiner.competence(unseen)
    right = (unseen.proba.argmax(axis=2) == unseen.labels).T
    assert chance.shape == right.shape
    for low, high in [(0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1.0)]:
        inside = (chance >= low) & (chance < high)
        assert right[inside].mean() == pytest.approx(chance[inside].mean(), abs=0.07)


def test_finds_which_expert_knows_the_neighbourhood():
    rng = np.random.default_rng(0)
    labels, place = rng.integers(3, size=600), rng.normal(size=(600, 2))
    expert = (place[:, 0] > 0).astype(int)
    choice = rng.integers(3, size=(2, 600))
    choice[expert, np.arange(600)] = labels
    predictions = Predictions.from_arrays(
        0.7 * np.eye(3)[choice] + 0.1, labels, np.arange(600) % 3, features=place
    )
    accuracy = METRICS["accuracy"]
    assert cross_fit(Competence(space="features"), predictions, accuracy).score > 0.9
    assert cross_fit(Mean(), predictions, accuracy).score < 0.75


def test_members_that_are_likelier_wrong_are_not_asked_where_one_is_likelier_right(library):
    weights = Competence._weights(np.array([[0.9, 0.4], [0.3, 0.2], [0.5, 0.75]]))
    np.testing.assert_allclose(weights, [[9, 0], [3 / 7, 1 / 4], [0, 3]])
