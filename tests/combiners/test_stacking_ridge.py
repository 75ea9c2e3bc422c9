import numpy as np
import pytest
from sklearn.linear_model import Ridge

from ensembler.combiners.meta import centred_logs
from ensembler.combiners.stacking import splits_with_gram, with_ones
from ensembler.combiners.stacking_ridge import StackingRidge, ridge_path
from ensembler.evaluation.cross_fit import cross_fit
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions


def test_every_penalty_of_the_path_is_scikit_learns_ridge(library):
    predictions = library()
    design, target = with_ones(centred_logs(predictions.proba)), np.eye(4)[predictions.labels]
    penalties = [10.0, 0.1]
    for penalty, coef in zip(
        penalties, ridge_path(design.T @ design, design.T @ target, penalties), strict=True
    ):
        model = Ridge(alpha=penalty * 300).fit(design[:, :-1], target)
        np.testing.assert_allclose(coef[:-1].T, model.coef_, atol=1e-7)
        np.testing.assert_allclose(coef[-1], model.intercept_, atol=1e-7)


def test_gram_matrices_are_those_of_the_fitted_rows(library):
    predictions = library()
    design = with_ones(centred_logs(predictions.proba))
    for fitted, _, gram in splits_with_gram(design, predictions.labels, predictions.fold):
        np.testing.assert_allclose(gram, design[fitted].T @ design[fitted], rtol=1e-9)


def test_corrects_a_member_that_confuses_two_classes(library):
    predictions = library(n_samples=600)
    swapped = predictions.with_proba(predictions.proba[:, :, [1, 0, 2, 3]], predictions.members)
    score = cross_fit(StackingRidge(), swapped, METRICS["accuracy"]).score
    assert score > METRICS["accuracy"](swapped.labels, swapped.proba.mean(axis=0)) + 0.2


def test_scores_become_calibrated_probabilities(library):
    predictions = library(n_samples=900)
    fit = cross_fit(StackingRidge(), predictions, METRICS["ece"])
    assert fit.score < 0.06
    assert fit.combiner.temperature_[0] < 1  # scores are shares, flatter than logits


def test_scores_that_never_err_do_not_become_certain():
    labels = np.tile([0, 1], 30)
    right = Predictions.from_arrays(0.9 * np.eye(2)[labels] + 0.05, labels, np.arange(60) % 3)
    proba = StackingRidge().fit(right).predict(right).proba
    assert 0.9 < proba.max() < 1 - 1e-3


def test_penalties_are_checked():
    from ensembler.errors import CombinerError

    with pytest.raises(CombinerError, match=r"stacking_ridge: penalties is \(0.0,\); expected positive"):
        StackingRidge(penalties=[0.0])
