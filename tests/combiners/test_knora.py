import importlib.util

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from ensembler.combiners.knora import KnoraE, KnoraU, weigh
from ensembler.combiners.neighbours import hellinger_points
from ensembler.evaluation.cross_fit import cross_fit
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions

WITH_DESLIB = pytest.mark.skipif(
    importlib.util.find_spec("deslib") is None, reason="needs deslib: pip install -e '.[peers]'"
)


def by_hand(kind, fitted, unseen, k=7):
    """The papers' algorithms, row by row."""
    distances = cdist(hellinger_points(unseen.proba), hellinger_points(fitted.proba))
    correct = fitted.proba.argmax(axis=2) == fitted.labels
    rows = []
    for row, near in enumerate(distances.argsort(axis=1)[:, :k]):
        if kind is KnoraE:
            for reach in range(k, 0, -1):
                chosen = [m for m in range(fitted.n_members) if correct[m, near[:reach]].all()]
                if chosen:
                    break
            else:
                chosen = list(range(fitted.n_members))
            weights = np.isin(np.arange(fitted.n_members), chosen).astype(float)
        else:
            weights = correct[:, near].sum(axis=1).astype(float)
            if not weights.any():
                weights[:] = 1
        rows.append(np.average(unseen.proba[:, row], axis=0, weights=weights))
    return np.array(rows)


@pytest.mark.parametrize("kind", [KnoraE, KnoraU])
def test_equals_the_algorithm_row_by_row(kind, library):
    fitted, unseen = library(), library(seed=1)
    # A member that is always wrong, and rows about which everybody is.
    proba = fitted.proba.copy()
    proba[4] = np.roll(np.eye(4, dtype=np.float32)[fitted.labels], 1, axis=1)
    proba[:, :9] = np.roll(np.eye(4, dtype=np.float32)[fitted.labels[:9]], 1, axis=1)
    fitted = fitted.with_proba(proba, fitted.members)
    unseen = unseen.with_proba(np.concatenate([proba[:, :9], unseen.proba[:, 9:]], axis=1), fitted.members)
    combined = kind().fit(fitted).predict(unseen).proba[0]
    np.testing.assert_allclose(combined, by_hand(kind, fitted, unseen), atol=1e-6)


@WITH_DESLIB
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "theirs"), [(KnoraE, "KNORAE"), (KnoraU, "KNORAU")])
def test_equals_deslib(kind, theirs, library, monkeypatch):
    from deslib.base import BaseDS
    from deslib.des import knora_e, knora_u
    from sklearn.base import BaseEstimator
    from sklearn.utils.validation import validate_data

    # It calls a method that scikit-learn has replaced by this function.
    monkeypatch.setattr(BaseDS, "_validate_data", validate_data, raising=False)

    class Member(BaseEstimator):
        """One member, whose probabilities are a part of the point."""

        def __init__(self, m, n_members):
            self.m, self.n_members = m, n_members
            self.classes_ = np.arange(4)

        def predict_proba(self, points):
            return (points.reshape(len(points), self.n_members, 4)[:, self.m] ** 2) * 2 * self.n_members

        def predict(self, points):
            return self.predict_proba(points).argmax(axis=1)

        def fit(self, points, labels):
            raise AssertionError("the pool is fitted already")

    fitted, unseen = library(), library(seed=1)
    n_members = fitted.n_members
    pool = [Member(m, n_members) for m in range(n_members)]
    module = {"KNORAE": knora_e.KNORAE, "KNORAU": knora_u.KNORAU}[theirs]
    # Its soft vote of KNORA-U is a softmax of the weighted mean, so there the votes are compared.
    voting = {"KNORAE": "soft", "KNORAU": "hard"}[theirs]
    model = module(pool, k=7, DSEL_perc=1.0, voting=voting, knn_classifier="knn")
    model.fit(hellinger_points(fitted.proba).astype(np.float64), fitted.labels)
    expected = model.predict_proba(hellinger_points(unseen.proba).astype(np.float64))
    combiner = kind(k=7).fit(fitted)
    combined = combiner.predict(unseen).proba[0]
    if voting == "hard":
        near = combiner._neighbours(unseen, combiner.points_, 7)
        weights = combiner._member_weights(combiner.correct_[near])
        first = np.eye(4, dtype=np.float32)[unseen.proba.argmax(axis=2)]
        combined = weigh(unseen.with_proba(first, unseen.members), weights)
    disputed = (unseen.proba.argmax(axis=2) != unseen.proba.argmax(axis=2)[0]).any(axis=0)
    assert disputed.sum() > 50
    np.testing.assert_allclose(combined[disputed], expected[disputed], atol=1e-5)


def regions(n=600, seed=0):
    """Two experts, each right in its half of what the features tell, guessing in the other."""
    rng = np.random.default_rng(seed)
    labels, place = rng.integers(3, size=n), rng.normal(size=(n, 2))
    expert = (place[:, 0] > 0).astype(int)
    choice = rng.integers(3, size=(2, n))
    choice[expert, np.arange(n)] = labels
    proba = 0.7 * np.eye(3)[choice] + 0.1
    return Predictions.from_arrays(proba, labels, np.arange(n) % 3, features=place)


@pytest.mark.parametrize("kind", [KnoraE, KnoraU])
def test_finds_which_expert_knows_the_neighbourhood(kind):
    predictions = regions()
    accuracy = METRICS["accuracy"]
    selected = cross_fit(kind(space="features", k=15), predictions, accuracy).score
    mean = accuracy(predictions.labels, predictions.proba.mean(axis=0))
    assert selected > max(mean, *(accuracy(predictions.labels, p) for p in predictions.proba)) + 0.15


def test_more_neighbours_than_rows_are_all_rows(library):
    predictions = library(n_samples=5)
    proba = KnoraU(k=50).fit(predictions).predict(predictions).proba[0]
    weights = (predictions.proba.argmax(axis=2) == predictions.labels).sum(axis=1)
    np.testing.assert_allclose(proba, np.average(predictions.proba, axis=0, weights=weights), atol=1e-6)
