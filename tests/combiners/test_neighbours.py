import numpy as np
import pytest
from scipy.spatial.distance import cdist

from ensembler.combiners import COMBINERS, from_state, make_combiner
from ensembler.combiners.neighbours import CHUNK, NeighbourCombiner, hellinger_points, nearest
from ensembler.errors import CombinerError
from ensembler.predictions import Predictions

THAT_LOOK_UP = [key for key, kind in COMBINERS.items() if issubclass(kind, NeighbourCombiner)]


def with_features(predictions, seed=0, dims=3):
    """The first feature goes with the class."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(predictions.n_samples, dims))
    features[:, 0] += 3 * predictions.labels
    return Predictions.from_arrays(predictions.proba, predictions.labels, predictions.fold, features=features)


@pytest.mark.parametrize("n_points", [5, 40, 700])
def test_nearest_are_those_of_a_table_of_all_distances(n_points):
    rng = np.random.default_rng(0)
    queries, points = rng.normal(size=(CHUNK + 30, 6)), rng.normal(size=(n_points, 6))
    expected = cdist(queries, points).argsort(axis=1)[:, :7]
    found = nearest(queries.astype(np.float32), points.astype(np.float32), 7)
    np.testing.assert_array_equal(found, expected)


def test_of_points_equally_near_the_first_comes_first():
    points = np.zeros((4, 2), np.float32)
    np.testing.assert_array_equal(nearest(points[:1], points, 4), [[0, 1, 2, 3]])


def test_distance_is_that_of_hellinger():
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(4), (3, 2)).astype(np.float32)
    one, other = hellinger_points(proba)
    by_member = 1 - np.sqrt(proba[:, 0] * proba[:, 1]).sum(axis=1)
    assert ((one - other) ** 2).sum() == pytest.approx(by_member.mean(), abs=1e-6)
    disjoint = hellinger_points(np.array([[[1.0, 0.0], [0.0, 1.0]]], np.float32))
    assert np.linalg.norm(disjoint[0] - disjoint[1]) == pytest.approx(1)


@pytest.mark.parametrize("key", THAT_LOOK_UP)
def test_features_are_another_space(key, library):
    predictions = library(n_samples=240)
    rows = with_features(predictions)
    combiner = make_combiner(key, space="features").fit(rows)
    state, arrays = combiner.get_state()
    unseen = with_features(library(n_samples=240, seed=1), seed=1)
    proba = combiner.predict(unseen).proba
    np.testing.assert_array_equal(from_state(state, arrays).predict(unseen).proba, proba)
    plain = make_combiner(key).fit(rows).predict(unseen).proba
    assert not np.array_equal(proba, plain)


@pytest.mark.parametrize("key", THAT_LOOK_UP)
def test_features_that_are_missing_are_told_of(key, library):
    predictions = library(n_samples=60)
    rows = with_features(predictions)
    with pytest.raises(CombinerError, match=f"{key}: space 'features' needs the features of the images"):
        make_combiner(key, space="features").fit(predictions)
    combiner = make_combiner(key, space="features").fit(rows)
    with pytest.raises(CombinerError, match="needs the features"):
        combiner.predict(predictions)
    with pytest.raises(CombinerError, match="fitted on 3 features, given 5; give those of the same backbone"):
        combiner.predict(with_features(predictions, dims=5))


@pytest.mark.parametrize("key", THAT_LOOK_UP)
def test_an_unknown_space_is_refused(key):
    with pytest.raises(
        CombinerError, match=f"{key}: space is 'pixels'; expected one of predictions, features"
    ):
        make_combiner(key, space="pixels")
