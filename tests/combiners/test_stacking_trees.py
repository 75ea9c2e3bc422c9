import numpy as np
import pytest

from ensembler.combiners.mean import Mean
from ensembler.combiners.meta import centred_logs
from ensembler.combiners.stacking_trees import StackingTrees, _pairs
from ensembler.evaluation.cross_fit import cross_fit
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions


def test_learns_what_no_linear_model_can():
    """A member is to be believed when it is not quite sure, and lies when it is."""
    rng = np.random.default_rng(0)
    labels, sure = rng.integers(3, size=900), rng.random(900) < 0.5
    choice = np.where(sure, (labels + rng.integers(1, 3, 900)) % 3, labels)
    proba = np.where(sure[:, None], 0.97, 0.7) * np.eye(3)[choice]
    proba += (1 - proba.sum(axis=1, keepdims=True)) / 3
    proba /= proba.sum(axis=1, keepdims=True)
    predictions = Predictions.from_arrays(proba, labels, np.arange(900) % 3)
    assert METRICS["accuracy"](labels, proba) < 0.6
    assert cross_fit(StackingTrees(), predictions, METRICS["accuracy"]).score > 0.7


def test_pairs_say_of_each_class_what_the_members_say_of_it(library):
    predictions = library(n_members=3, n_samples=20)
    logs = centred_logs(predictions.proba).reshape(20, 3, 4)
    extra = np.arange(40.0).reshape(20, 2)
    pairs = _pairs(np.concatenate([logs.reshape(20, 12), extra], axis=1), predictions.proba)
    assert pairs.shape == (20, 4, 6 + 3 + 2)
    row, k = 7, 2
    mean = logs[row].mean(axis=0)
    lead = mean[k] - np.delete(mean, k).max()
    of_members = logs[row, :, k]
    expected = [mean[k], lead, of_members.min(), of_members.max(), of_members.std(), k, *of_members, 14, 15]
    np.testing.assert_allclose(pairs[row, k], expected, rtol=1e-5)


def test_when_trees_are_no_better_it_is_the_mean():
    """The mean is right but for noise that nothing explains, and there are few rows to learn that from."""
    rng = np.random.default_rng(1)
    proba = rng.dirichlet(np.ones(3), 60).astype(np.float32)
    labels = (proba.cumsum(axis=1) < rng.random((60, 1))).sum(axis=1)
    calibrated = Predictions.from_arrays(proba, np.minimum(labels, 2), np.arange(60) % 3)
    combiner = StackingTrees().fit(calibrated)
    assert combiner.booster_.size == 0
    mean = Mean().fit(calibrated).predict(calibrated)
    np.testing.assert_array_equal(combiner.predict(calibrated).proba, mean.proba)


def test_a_class_is_not_known_by_its_place(library):
    """The same rows with the classes in another order score the same, but for the one column that names them."""
    predictions = library(n_samples=600)
    order = np.array([2, 0, 3, 1])
    other = Predictions.from_arrays(
        predictions.proba[:, :, order], np.argsort(order)[predictions.labels], predictions.fold
    )
    log_loss = METRICS["log_loss"]
    scores = [cross_fit(StackingTrees(), p, log_loss).score for p in (predictions, other)]
    assert scores[0] == pytest.approx(scores[1], abs=0.03)


def test_a_refit_replaces_the_loaded_model(library):
    first, second = library(seed=0), library(seed=1)
    combiner = StackingTrees().fit(first)
    combiner.predict(first)
    again = combiner.fit(second).predict(first).proba
    np.testing.assert_array_equal(again, StackingTrees().fit(second).predict(first).proba)
