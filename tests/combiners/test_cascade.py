import itertools

import numpy as np
import pytest

from ensembler.combiners.cascade import Cascade, find_thresholds
from ensembler.errors import CombinerError
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions


def test_thresholds_by_hand():
    """Two stages, six rows by falling confidence of the first; the mean of all is right about every row."""
    sure = np.array([0.99, 0.95, 0.9, 0.8, 0.7, 0.6])
    first_right = np.array([True, True, False, True, False, True])
    labels = np.where(first_right, 0, 1)
    first = np.stack([sure, 1 - sure], axis=1)
    last = np.eye(2)[labels]
    stages = np.stack([first, last])
    # Going down: lost 0, 0, 1, 1, 2, 2.
    np.testing.assert_array_equal(find_thresholds(stages, labels, 0), [0.95])
    np.testing.assert_array_equal(find_thresholds(stages, labels, 1 / 6), [0.8])
    np.testing.assert_array_equal(find_thresholds(stages, labels, 1), [0.6])
    # Where the mean of all is wrong about row 1 as well, the first stage has one row to lose more.
    last = np.eye(2)[np.where(np.arange(6) == 1, 1 - labels, labels)]
    np.testing.assert_array_equal(find_thresholds(np.stack([first, last]), labels, 0), [0.8])


def test_rows_equally_sure_are_answered_together():
    sure = np.full(4, 0.9)
    labels = np.array([0, 0, 0, 1])
    stages = np.stack([np.stack([sure, 1 - sure], axis=1), np.eye(2)[labels]])
    np.testing.assert_array_equal(find_thresholds(stages, labels, 0), [np.inf])
    np.testing.assert_array_equal(find_thresholds(stages, labels, 0.25), [0.9])


@pytest.mark.parametrize("max_loss", [0.0, 0.001, 0.02, 0.1])
def test_no_more_accuracy_is_lost_on_the_fitted_rows_than_allowed(library, max_loss):
    predictions = library(n_samples=900)
    accuracy = METRICS["accuracy"]
    combined = Cascade(max_loss=max_loss).fit(predictions).predict(predictions).proba[0]
    full = accuracy(predictions.labels, predictions.proba.mean(axis=0))
    assert accuracy(predictions.labels, combined) >= full - max_loss - 1e-9


def test_each_row_is_answered_by_the_mean_of_those_it_asked(library):
    predictions, unseen = library(n_samples=600), library(n_samples=600, seed=1)
    combiner = Cascade(max_loss=0.05, order=("m3", "m1", "m0", "m2", "m4")).fit(predictions)
    asked = combiner.stages_(unseen)
    assert len(np.unique(asked)) > 2
    combined = combiner.predict(unseen).proba[0]
    in_order = unseen.select(["m3", "m1", "m0", "m2", "m4"]).proba
    for row in range(600):
        mean = in_order[: asked[row], row].mean(axis=0, dtype=np.float64)
        np.testing.assert_allclose(combined[row], mean, atol=1e-6)
        if asked[row] < 5:
            assert mean.max() >= combiner.thresholds_[asked[row] - 1]


def test_the_cost_is_that_of_those_asked(library):
    predictions = library(n_samples=600)
    costs = {"m0": 8.0, "m1": 4.0, "m2": 1.0, "m3": 2.0, "m4": 16.0}
    combiner = Cascade(costs=costs, max_loss=0.02).fit(predictions)
    shares = combiner.asked_(predictions)
    order = [combiner.members_[i] for i in combiner.order_]
    assert sorted(order) == sorted(shares) == sorted(costs)
    assert shares[order[0]] == 1.0
    assert all(shares[a] >= shares[b] for a, b in itertools.pairwise(order))
    expected = sum(shares[name] * costs[name] for name in order)
    assert combiner.expected_cost_ms_(predictions) == pytest.approx(expected)
    assert expected < 31
    with pytest.raises(CombinerError, match="cascade: costs are not known; give them"):
        Cascade().fit(predictions).expected_cost_ms_(predictions)


def test_who_answers_most_for_its_price_comes_first():
    """One member is always right and sure, one answers one row in four, one is never sure."""
    labels = np.arange(400) % 2
    right = np.eye(2)[labels]
    sure = 0.9 * right + 0.05
    seldom = np.where((np.arange(400) % 4 == 0)[:, None], sure, 0.5 - 0.04 * (right - 0.5))
    never = 0.5 + 0.02 * (np.eye(2)[1 - labels] - 0.5)
    predictions = Predictions.from_arrays(
        np.stack([never, seldom, sure]).astype(np.float32), labels, members=["never", "seldom", "sure"],
        classes=["a", "b"], fold=np.arange(400) % 2,
    )  # fmt: skip
    for price, first in ((1.0, "sure"), (3.0, "sure"), (1000.0, "seldom")):
        costs = {"never": 0.001, "seldom": 1.0, "sure": price}
        combiner = Cascade(costs=costs).fit(predictions)
        assert combiner.members_[combiner.order_[0]] == first
    assert Cascade().fit(predictions).asked_(predictions) == {"sure": 1.0, "seldom": 0.0, "never": 0.0}


def test_a_found_order_has_the_thresholds_of_that_order(library):
    predictions = library(n_samples=600)
    found = Cascade(max_loss=0.02).fit(predictions)
    given = Cascade(max_loss=0.02, order=tuple(found.members_[i] for i in found.order_)).fit(predictions)
    np.testing.assert_array_equal(given.order_, found.order_)
    np.testing.assert_allclose(given.thresholds_, found.thresholds_)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"order": ["m0", "m1"]}, r"cascade: order and members differ in \['m2', 'm3', 'm4'\]; name each of"),
        ({"costs": {"m0": 1, "x": 1}}, r"costs and members differ in \['m1', 'm2', 'm3', 'm4', 'x'\]"),
        ({"order": ["m0", "m1", "m2", "m3", "m4", "m0"]}, "order names a member twice"),
    ],
)
def test_members_that_do_not_fit_are_named(library, params, message):
    with pytest.raises(CombinerError, match=message):
        Cascade(**params).fit(library())


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"order": "m0"}, "cascade: order is 'm0'; expected a list of members"),
        ({"costs": {"m0": -1}}, "cascade: costs is .*; expected the milliseconds of each member"),
        ({"costs": 3}, "cascade: costs is 3; expected the milliseconds"),
        ({"max_loss": 2}, "cascade: max_loss is 2; expected a number from 0 to 1"),
    ],
)
def test_settings_out_of_range_are_refused(params, message):
    with pytest.raises(CombinerError, match=message):
        Cascade(**params)
