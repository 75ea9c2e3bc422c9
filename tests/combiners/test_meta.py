import numpy as np
import pytest

from ensembler.combiners import COMBINERS, from_state, make_combiner
from ensembler.combiners.meta import Stacker, disagreement
from ensembler.errors import CombinerError
from ensembler.evaluation.cross_fit import cross_fit
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions

STACKERS = [key for key, kind in COMBINERS.items() if issubclass(kind, Stacker)]


def test_disagreement_by_hand():
    agree, split = [[1, 0, 0], [1, 0, 0]], [[1, 0, 0], [0, 1, 0]]
    unsure = [[1 / 3] * 3] * 2
    columns = disagreement(np.array([agree, split, unsure], np.float32).transpose(1, 0, 2))
    half = np.log(2) / np.log(3)
    np.testing.assert_allclose(columns, [[0, 0, 1, 0], [half, 0, 0.5, 1], [1, 1, 1, 0]], atol=1e-5)


def test_disagreement_stays_within_its_range():
    rng = np.random.default_rng(0)
    columns = disagreement(rng.dirichlet(np.full(4, 0.3), (5, 200)).astype(np.float32))
    assert columns.min() >= 0
    assert columns.max() <= 1


def told_by_features(n=600, dims=2):
    """Members that know nothing of class 2, which a feature of wide range tells."""
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=n)
    logits = 2 * np.eye(3)[np.where(labels == 2, rng.integers(2, size=n), labels)]
    logits = logits + rng.normal(size=(2, n, 3))
    proba = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    features = 1000 + 50 * rng.normal(size=(n, dims))
    features[:, 0] += 400 * (labels == 2)
    return Predictions.from_arrays(proba, labels, np.arange(n) % 3, features=features)


@pytest.mark.parametrize("key", STACKERS)
def test_features_are_passed_through(key, tmp_path):
    predictions = told_by_features()
    accuracy = METRICS["accuracy"]
    plain = cross_fit(make_combiner(key), predictions, accuracy).score
    fit = cross_fit(make_combiner(key, passthrough=True), predictions, accuracy)
    assert fit.score > plain + 0.1
    restored = from_state(*fit.combiner.get_state())
    np.testing.assert_array_equal(
        restored.predict(predictions).proba, fit.combiner.predict(predictions).proba
    )


@pytest.mark.parametrize("key", STACKERS)
def test_features_that_are_missing_or_others_are_told_of(key, library):
    predictions = told_by_features(60)
    bare = Predictions.from_arrays(predictions.proba, predictions.labels, predictions.fold)
    with pytest.raises(CombinerError, match=f"{key}: passthrough needs the features of the images, which"):
        make_combiner(key, passthrough=True).fit(bare)
    combiner = make_combiner(key, passthrough=True).fit(predictions)
    with pytest.raises(CombinerError, match=r"given .*; give features of the same backbone"):
        combiner.predict(told_by_features(60, dims=4))


@pytest.mark.parametrize("key", STACKERS)
def test_disagreement_is_seen(key, library):
    """The same rows fitted with it and without differ, and both are valid and honest."""
    predictions = library(n_samples=300)
    with_it = make_combiner(key, disagreement=True).fit(predictions)
    without = make_combiner(key, disagreement=False).fit(predictions)
    assert len(with_it.centre_) == 4
    assert len(without.centre_) == 0
    assert not np.array_equal(with_it.predict(predictions).proba, without.predict(predictions).proba)


@pytest.mark.parametrize("key", STACKERS)
def test_a_feature_that_never_changes_is_harmless(key):
    predictions = told_by_features(90)
    still = Predictions.from_arrays(
        predictions.proba, predictions.labels, predictions.fold, features=np.full((90, 1), 1e6)
    )
    combiner = make_combiner(key, passthrough=True).fit(still)
    assert np.isfinite(combiner.predict(still).proba).all()


def test_switches_are_true_or_false():
    with pytest.raises(CombinerError, match="stacking: disagreement is 'yes'; expected true or false"):
        make_combiner("stacking", disagreement="yes")
