import itertools

import numpy as np
import pytest

from ensembler.combiners import make_combiner
from ensembler.combiners.constrained import Constrained
from ensembler.errors import CombinerError
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions


def library(n_members=7, n_samples=200, seed=0):
    """Members that know different classes, at different prices."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(4, size=n_samples)
    knows = rng.uniform(0.2, 2.5, size=(n_members, 4))
    logits = rng.normal(size=(n_members, n_samples, 4))
    logits[:, np.arange(n_samples), labels] += knows[:, labels]
    proba = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    predictions = Predictions.from_arrays(proba, labels, np.arange(n_samples) % 4)
    prices = dict(zip(predictions.members, rng.uniform(1, 10, n_members).round(2).tolist(), strict=True))
    return predictions, prices


def loss(combiner, predictions, metric="log_loss"):
    chosen = METRICS[metric]
    return -chosen.sign * chosen(predictions.labels, combiner.predict(predictions).proba[0])


def price(combiner, prices):
    return sum(prices[name] for name in combiner.used_members_)


@pytest.mark.parametrize("metric", ["log_loss", "accuracy"])
def test_without_a_limit_it_is_greedy_selection(metric):
    predictions, prices = library()
    greedy = make_combiner("greedy", metric=metric).fit(predictions)
    for limits in ({}, {"costs": prices, "limit": 1e9}, {"max_members": 7}):
        free = Constrained(metric=metric, **limits).fit(predictions)
        np.testing.assert_array_equal(free.weights_, greedy.weights_)


@pytest.mark.parametrize("seed", range(6))
def test_finds_the_best_of_all_sets_that_keep_to_the_limit(seed):
    predictions, prices = library(seed=seed)
    limit = 0.35 * sum(prices.values())
    found = Constrained(costs=prices, limit=limit).fit(predictions)
    assert price(found, prices) <= limit
    losses = {}
    for size in range(1, 8):
        for names in itertools.combinations(predictions.members, size):
            if sum(prices[name] for name in names) <= limit:
                part = predictions.select(names)
                losses[names] = loss(make_combiner("greedy").fit(part), part)
    assert loss(found, predictions) <= min(losses.values()) + 2e-3


@pytest.mark.parametrize("most", [1, 2, 3])
def test_keeps_to_a_number_of_members(most):
    predictions, _ = library()
    found = Constrained(max_members=most).fit(predictions)
    assert len(found.used_members_) <= most
    best = min(
        loss(make_combiner("greedy").fit(part), part)
        for names in itertools.combinations(predictions.members, most)
        for part in [predictions.select(names)]
    )
    assert loss(found, predictions) <= best + 2e-3


def test_searching_under_the_limit_beats_cutting_down_to_it():
    gains = []
    for seed in range(6):
        predictions, prices = library(n_members=12, seed=seed)
        limit = 0.1 * sum(prices.values())
        found = Constrained(costs=prices, limit=limit).fit(predictions)
        greedy = make_combiner("greedy").fit(predictions)
        kept, spent = [], 0.0
        for i in np.argsort(-greedy.weights_, kind="stable"):
            name = greedy.members_[i]
            if greedy.weights_[i] > 0 and spent + prices[name] <= limit:
                kept.append(name)
                spent += prices[name]
        part = predictions.select(kept)
        gains.append(loss(make_combiner("greedy").fit(part), part) - loss(found, predictions))
    assert min(gains) >= -1e-9
    assert max(gains) > 0.01


def test_a_good_member_that_uses_up_the_limit_gives_way_to_two_that_do_not():
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=400)
    logits = rng.normal(scale=0.3, size=(3, 400, 4))
    logits[0] += 1.5 * np.eye(4)[labels]  # good everywhere, at the price of the two experts together
    for expert in (1, 2):
        own = labels // 2 == expert - 1
        logits[expert, own] += 4 * np.eye(4)[labels[own]]
    proba = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    predictions = Predictions.from_arrays(proba, labels, np.arange(400) % 4)
    losses = [METRICS["log_loss"](labels, slab) for slab in predictions.proba]
    assert np.argmin(losses) == 0
    found = Constrained(costs={"m0": 2.0, "m1": 1.0, "m2": 1.0}, limit=2.0).fit(predictions)
    assert found.used_members_ == ("m1", "m2")
    # As places are counted it is taken first, and swapped once an expert is there.
    assert Constrained(max_members=1).fit(predictions).used_members_ == ("m0",)
    assert Constrained(max_members=2).fit(predictions).used_members_ == ("m1", "m2")


def test_of_equally_good_members_the_cheapest_is_taken():
    predictions, _ = library(n_members=1)
    copies = predictions.with_proba(np.repeat(predictions.proba, 3, axis=0), ["a", "b", "c"])
    found = Constrained(costs={"a": 3.0, "b": 1.0, "c": 2.0}, limit=2.5).fit(copies)
    assert found.used_members_ == ("b",)


def test_order_of_members_does_not_matter():
    predictions, prices = library(seed=3)
    limit = 0.4 * sum(prices.values())
    found = Constrained(costs=prices, limit=limit).fit(predictions)
    other = Constrained(costs=prices, limit=limit).fit(predictions.select(predictions.members[::-1]))
    np.testing.assert_allclose(other.predict(predictions).proba, found.predict(predictions).proba, atol=1e-6)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"costs": {"m0": 1.0}}, "costs without limit; give both"),
        ({"limit": 3.0}, "limit without costs; give both"),
        ({"costs": {"m0": -1.0}, "limit": 3.0}, r"costs of 'm0' is -1.0; expected a number of 0 or more"),
        ({"costs": {"m0": float("nan")}, "limit": 3.0}, "costs of 'm0' is nan"),
        ({"costs": [1.0], "limit": 3.0}, r"costs is \[1.0\]; expected a mapping"),
        ({"costs": {"m0": 1.0}, "limit": -1}, "limit is -1; expected a number of 0 or more"),
        ({"max_members": 0}, "max_members is 0; expected an integer of 1 or more"),
        ({"metric": "x"}, "unknown metric 'x'"),
        ({"rounds": 0}, "rounds is 0"),
    ],
)
def test_limits_that_are_none_are_refused(params, message):
    with pytest.raises(CombinerError, match=message):
        Constrained(**params)


def test_members_without_a_price_or_a_chance_are_named():
    predictions, prices = library()
    del prices["m2"], prices["m4"]
    with pytest.raises(CombinerError, match="costs lacks 'm2' and 1 more; give the cost of every member"):
        Constrained(costs=prices, limit=5.0).fit(predictions)
    predictions, prices = library()
    cheapest = min(prices, key=prices.get)
    with pytest.raises(
        CombinerError, match=f"no member costs 0.5 or less; the cheapest, '{cheapest}', costs"
    ):
        Constrained(costs=prices, limit=0.5).fit(predictions)
