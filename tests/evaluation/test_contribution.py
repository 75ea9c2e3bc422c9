import itertools
import math

import numpy as np
import pandas as pd
import pytest

from ensembler.combiners import make_combiner
from ensembler.errors import PredictionsError
from ensembler.evaluation.contribution import contributions, draw_orders
from ensembler.evaluation.cross_fit import cross_fit
from ensembler.evaluation.learning_curve import learning_curve
from ensembler.evaluation.subsets import CrossFittedValue, MeanValue
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions

NAMES = ["log_loss", "brier", "accuracy"]


def mean_score(predictions, metric, subset):
    return metric(predictions.labels, predictions.proba[list(subset)].mean(axis=0, dtype=np.float64))


# ---------------------------------------------------------------------- values of sets


@pytest.mark.parametrize("name", [*NAMES, "macro_f1"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_value_of_a_set_is_the_score_of_its_mean(library, name, n_classes):
    predictions, metric = library(n_members=5, n_classes=n_classes), METRICS[name]
    value = MeanValue(predictions, metric)
    order = [3, 0, 4, 1, 2]
    expected = [mean_score(predictions, metric, order[: i + 1]) for i in range(5)]
    np.testing.assert_allclose(value.growing(order), expected, atol=1e-12)
    assert value.of([1, 3]) == pytest.approx(mean_score(predictions, metric, [1, 3]))
    share = np.bincount(predictions.labels) / 240
    assert value.of([]) == value.empty == pytest.approx(metric(predictions.labels, np.tile(share, (240, 1))))


def test_cross_fitted_value_fits_the_combiner_on_the_set_alone(library, monkeypatch):
    predictions, metric = library(n_members=3), METRICS["log_loss"]
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return cross_fit(*arguments)

    monkeypatch.setattr("ensembler.evaluation.subsets.cross_fit", counted)
    value = CrossFittedValue(predictions, metric, make_combiner("greedy"))
    expected = cross_fit(make_combiner("greedy"), predictions.select(["m0", "m2"]), metric).score
    assert value.of([2, 0]) == value.of([0, 2]) == expected
    assert len(calls) == 1
    assert value.growing([2, 0])[1] == expected
    assert len(calls) == 2  # the set of m2 alone


# ---------------------------------------------------------------------- Shapley


@pytest.mark.parametrize("name", NAMES)
def test_all_orders_give_the_shapley_values_of_the_definition(library, name):
    predictions, metric = library(n_members=4), METRICS[name]
    value = MeanValue(predictions, metric)
    found = contributions(value, n_orders=24)
    assert found.n_orders == 24
    for member, contribution in enumerate(found.members):
        others = [m for m in range(4) if m != member]
        expected = 0.0
        for size in range(4):
            for subset in itertools.combinations(others, size):
                gain = metric.improvement(value.of([*subset, member]), value.of(subset))
                expected += math.factorial(size) * math.factorial(3 - size) / 24 * gain
        assert contribution.shapley == pytest.approx(expected, abs=1e-12)
        assert contribution.error == 0
        assert contribution.alone == pytest.approx(metric.improvement(value.of([member]), value.empty))
        assert contribution.leave_one_out == pytest.approx(
            metric.improvement(value.of(range(4)), value.of(others))
        )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n_orders", [5, 40])
def test_shapley_values_sum_to_what_the_whole_is_worth(library, name, n_orders):
    predictions, metric = library(n_members=9), METRICS[name]
    found = contributions(MeanValue(predictions, metric), n_orders=n_orders)
    assert found.n_orders == n_orders + n_orders % 2
    assert found.full == pytest.approx(mean_score(predictions, metric, range(9)))
    total = sum(member.shapley for member in found.members)
    assert total == pytest.approx(metric.improvement(found.full, found.empty), abs=1e-12)


def test_standard_errors_say_how_far_off_sampled_values_are(library):
    predictions, metric = library(n_members=6), METRICS["log_loss"]
    value = MeanValue(predictions, metric)
    exact = np.array([m.shapley for m in contributions(value, n_orders=720).members])
    scaled = []
    for seed in range(30):
        drawn = contributions(value, n_orders=40, seed=seed)
        scaled += [(m.shapley - e) / m.error for m, e in zip(drawn.members, exact, strict=True)]
    assert np.std(scaled) == pytest.approx(1, abs=0.25)


def test_copies_share_and_leave_one_out_calls_them_less(library):
    predictions = library(n_members=3)
    proba = predictions.proba[[0, 0, 1, 2]]
    found = contributions(
        MeanValue(predictions.with_proba(proba, ["a", "copy", "b", "c"]), METRICS["log_loss"]), n_orders=24
    )
    values = {m.member: m for m in found.members}
    assert values["a"].shapley == pytest.approx(values["copy"].shapley)
    assert values["a"].shapley > values["a"].leave_one_out


def test_noise_adds_nothing_and_a_perfect_member_most(library):
    predictions = library(n_members=5)
    proba = predictions.proba.copy()
    proba[3] = np.random.default_rng(0).dirichlet(np.ones(3), size=240)
    proba[1] = 0.98 * np.eye(3)[predictions.labels] + 0.02 / 3
    found = contributions(MeanValue(predictions.with_proba(proba, predictions.members), METRICS["log_loss"]))
    ranked = sorted(found.members, key=lambda m: m.shapley)
    assert (ranked[0].member, ranked[-1].member) == ("m3", "m1")
    assert pd.DataFrame(found.members).shape == (5, 5)


def test_same_seed_same_values(library):
    value = MeanValue(library(n_members=9), METRICS["log_loss"])
    assert contributions(value, n_orders=10, seed=1) == contributions(value, n_orders=10, seed=1)
    assert contributions(value, n_orders=10, seed=1) != contributions(value, n_orders=10, seed=2)
    with pytest.raises(PredictionsError, match="n_orders: 2; expected 4 or more"):
        contributions(value, n_orders=2)


def test_one_member_adds_all_there_is(library):
    found = contributions(MeanValue(library(n_members=1), METRICS["log_loss"]))
    (only,) = found.members
    assert only.shapley == only.alone == only.leave_one_out == pytest.approx(found.empty - found.full)


def test_orders_come_with_their_reverse():
    orders, complete = draw_orders(12, 6, seed=0)
    assert not complete
    assert len(orders) == 6
    for straight, back in zip(orders[::2], orders[1::2], strict=True):
        np.testing.assert_array_equal(back, straight[::-1])
        assert sorted(straight) == list(range(12))
    everything, complete = draw_orders(3, 6, seed=0)
    assert complete
    assert len({tuple(order) for order in everything}) == 6


# ---------------------------------------------------------------------- one more member


def exchangeable(n_members, n_samples=400, seed=0):
    """Members that err together by some, and apart by some."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=n_samples)
    logits = 2 * np.eye(3)[labels] + 0.7 * rng.normal(size=(n_samples, 3))
    logits = logits + rng.normal(size=(n_members, n_samples, 3))
    proba = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    return Predictions.from_arrays(proba, labels, np.arange(n_samples) % 2)


def test_curve_is_the_mean_over_all_sets_of_a_size():
    predictions, metric = exchangeable(4), METRICS["log_loss"]
    curve = learning_curve(MeanValue(predictions, metric), n_orders=24)
    for size, score in zip(curve.sizes, curve.scores, strict=True):
        sets = list(itertools.combinations(range(4), size))
        assert score == pytest.approx(np.mean([mean_score(predictions, metric, s) for s in sets]))


def test_power_of_the_brier_score_is_one():
    curve = learning_curve(MeanValue(exchangeable(6), METRICS["brier"]), n_orders=720)
    assert curve.power == pytest.approx(1)
    np.testing.assert_allclose(curve.fitted, curve.scores, atol=1e-12)


@pytest.mark.parametrize("name", ["log_loss", "brier"])
def test_foretells_what_the_next_member_brings(name):
    everyone, metric = exchangeable(14), METRICS[name]
    curve = learning_curve(MeanValue(everyone.select(everyone.members[:8]), metric))
    brought = [
        mean_score(everyone, metric, range(8)) - mean_score(everyone, metric, [*range(8), new])
        for new in range(8, 14)
    ]
    assert curve.next_low <= np.mean(brought) <= curve.next_high
    assert 0 < curve.next_gain < curve.scores[0] - curve.scores[-1]
    assert curve.limit < curve.scores[-1]


def test_direction_of_the_metric_does_not_matter():
    curve = learning_curve(MeanValue(exchangeable(8), METRICS["accuracy"]))
    assert curve.scores[-1] > curve.scores[0]
    assert curve.next_gain > 0
    assert curve.limit <= 1


def test_copies_of_one_member_bring_nothing():
    one = exchangeable(1)
    copies = one.with_proba(np.repeat(one.proba, 6, axis=0), list("abcdef"))
    curve = learning_curve(MeanValue(copies, METRICS["log_loss"]))
    assert curve.next_gain == pytest.approx(0, abs=1e-9)
    assert curve.next_high - curve.next_low == pytest.approx(0, abs=1e-9)


def test_few_members_have_a_curve_and_no_interval():
    curve = learning_curve(MeanValue(exchangeable(2), METRICS["log_loss"]))
    assert curve.power == 1
    assert curve.next_gain > 0
    assert curve.next_low is curve.next_high is None
    with pytest.raises(PredictionsError, match=r"\['m0'\]; a learning curve needs two or more"):
        learning_curve(MeanValue(exchangeable(1), METRICS["log_loss"]))
