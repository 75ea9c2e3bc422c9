import numpy as np
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from ensembler.combiners.mean import Mean
from ensembler.combiners.meta import centred_logs
from ensembler.combiners.stacking import Stacking, fit_path, with_ones
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions


def test_corrects_a_member_that_confuses_two_classes(library):
    predictions = library()
    swapped = predictions.proba[:, :, [1, 0, 2, 3]]
    predictions = predictions.with_proba(swapped, predictions.members)
    log_loss = METRICS["log_loss"]
    mean, stacked = (
        log_loss(predictions.labels, c.fit(predictions).predict(predictions).proba[0])
        for c in (Mean(), Stacking())
    )
    assert stacked < 0.75 * mean


def test_random_labels_are_left_to_the_mean(library):
    predictions = library()
    uniform = predictions.with_proba(np.full((2, 300, 4), 0.25), ["a", "b"])
    combiner = Stacking().fit(uniform)
    np.testing.assert_allclose(combiner.predict(uniform).proba, 0.25, atol=0.02)


def test_no_penalty_that_helps_is_exactly_the_mean():
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(2), 20)
    proba = np.tile([0.5, 0.5], (1, 40, 1))
    shifted = Predictions.from_arrays(proba, labels, rng.permutation(np.arange(40) % 4))
    combiner = Stacking().fit(shifted)
    assert np.isinf(combiner.penalty_[0])
    np.testing.assert_array_equal(combiner.predict(shifted).proba, Mean().fit(shifted).predict(shifted).proba)


def path_of(predictions, offset, penalties):
    design = with_ones(centred_logs(predictions.proba))
    return list(fit_path(design, offset, predictions.labels, penalties, design.T @ design))


def test_the_fit_is_scikit_learns_where_the_offset_says_nothing(library):
    predictions = library(n_members=2)
    penalty = 0.01
    coef = path_of(predictions, np.zeros((300, 4)), (1.0, penalty))[-1]
    model = LogisticRegression(C=1 / (penalty * 300), fit_intercept=False, tol=1e-8, max_iter=1000)
    model.fit(with_ones(centred_logs(predictions.proba)), predictions.labels)
    np.testing.assert_allclose(coef.T, model.coef_, atol=2e-4)


def test_the_optimum_is_that_of_scikit_learns_stacking_classifier():
    """The same folds, members and meta-features; their meta-model is a logistic regression, as ours."""
    rng = np.random.default_rng(0)
    labels = np.arange(240) % 3
    images = rng.normal(size=(240, 6)) + 1.2 * np.eye(3, 6)[labels]
    folds = PredefinedSplit(np.arange(240) // 3 % 4)
    members = {"linear": LogisticRegression(), "bayes": GaussianNB()}

    def logs(proba):
        return with_ones(centred_logs(proba.reshape(len(proba), 2, 3).transpose(1, 0, 2)))

    penalty = 0.02
    meta = LogisticRegression(C=1 / (penalty * 240), fit_intercept=False, tol=1e-10, max_iter=5000)
    theirs = StackingClassifier(
        list(members.items()), make_pipeline(FunctionTransformer(logs), meta), cv=folds
    ).fit(images, labels)
    oof = [cross_val_predict(m, images, labels, cv=folds, method="predict_proba") for m in members.values()]
    predictions = Predictions.from_arrays(np.array(oof), labels, folds.test_fold, members=list(members))
    coef = path_of(predictions, np.zeros((240, 3)), (1.0, 0.1, penalty))[-1]
    expected = theirs.final_estimator_[-1].coef_.T
    np.testing.assert_allclose(coef, expected, atol=2e-4)

    def loss(coef):
        z = with_ones(centred_logs(predictions.proba)) @ coef
        norm = np.log(np.exp(z).sum(axis=1))
        return (norm - z[np.arange(240), labels]).mean() + penalty / 2 * (coef**2).sum()

    assert abs(loss(coef) - loss(expected)) < 1e-8


def test_penalties_are_chosen_from_those_given(library):
    combiner = Stacking(penalties=[0.5, 0.05]).fit(library())
    assert combiner.penalty_[0] in (np.inf, 0.5, 0.05)
    assert combiner.get_params()["penalties"] == (0.5, 0.05)


def test_a_larger_penalty_stays_closer_to_the_mean(library):
    predictions = library()
    offset = np.log(predictions.proba.mean(axis=0))
    coefs = path_of(predictions, offset, (np.inf, 10.0, 0.1, 0.001))
    sizes = [np.abs(coef).sum() for coef in coefs]
    assert sizes[0] == 0
    assert sizes == sorted(sizes)
