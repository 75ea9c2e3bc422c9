import numpy as np
import pytest

from ensembler.combiners.bagging import Bagging
from ensembler.combiners.greedy import Greedy, greedy_weights
from ensembler.metrics import METRICS


def test_weights_spread_over_more_members_than_one_selection(library):
    predictions = library(n_members=8, n_samples=150)
    bagged, single = Bagging().fit(predictions), Greedy().fit(predictions)
    assert len(bagged.used_members_) > len(single.used_members_)
    assert bagged.weights_.argmax() == single.weights_.argmax()


def test_each_bag_draws_its_share_of_the_members(library):
    predictions = library(n_members=6)
    one = {"bags": 1, "least_members": 1}
    assert len(Bagging(**one, member_share=0.01).fit(predictions).used_members_) == 1
    assert len(Bagging(**one, member_share=0.3, rounds=60).fit(predictions).used_members_) <= 2


def test_a_small_library_is_not_cut_down(library):
    """One good member among six: bags without it would mix the others into every answer."""
    predictions = library(n_members=6)
    proba = predictions.proba.copy()
    proba[2] = 0.97 * np.eye(proba.shape[2])[predictions.labels] + 0.03 / proba.shape[2]
    predictions = predictions.with_proba(proba, predictions.members)
    assert Bagging().fit(predictions).weights_[2] > 0.9
    assert Bagging(least_members=1).fit(predictions).weights_[2] < 0.9
    few = Bagging(bags=1, least_members=4, member_share=0.1, rounds=60).fit(library(n_members=6))
    assert 1 < len(few.used_members_) <= 4


def test_the_seed_draws_other_bags(library):
    predictions = library(n_members=6)
    first, second = (Bagging(bags=3, seed=seed).fit(predictions).weights_ for seed in (0, 1))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("metric", ["log_loss", "accuracy", "brier", "macro_f1"])
def test_equals_selections_from_copied_rows(library, metric):
    """Bags weigh rows or take from tables; the weights are those of copies."""
    predictions = library(n_members=6, n_samples=120)
    rng = np.random.default_rng(4)
    expected = np.zeros(6)
    for _ in range(3):
        members = np.sort(rng.choice(6, 3, replace=False))
        rows = np.sort(rng.integers(120, size=120))
        bag = predictions.proba[members][:, rows], predictions.labels[rows]
        expected[members] += greedy_weights(*bag, METRICS[metric], 8) / 3
    fitted = Bagging(metric=metric, bags=3, rounds=8, least_members=1, seed=4).fit(predictions)
    np.testing.assert_allclose(fitted.weights_, expected, atol=1e-12)


def test_the_order_of_members_makes_no_difference(library):
    predictions = library(n_members=12, n_samples=100)  # m10 comes before m2 by name
    shuffled = predictions.select([f"m{i}" for i in (5, 0, 11, 3, 10, 1, 9, 2, 8, 4, 7, 6)])
    first, second = Bagging(bags=5).fit(predictions), Bagging(bags=5).fit(shuffled)
    assert dict(zip(first.members_, first.weights_, strict=True)) == dict(
        zip(second.members_, second.weights_, strict=True)
    )


def test_each_bag_may_start_from_its_best_members(library):
    predictions = library(n_members=8, n_samples=80)
    spread = [len(Bagging(bags=4, rounds=1, initial=n).fit(predictions).used_members_) for n in (0, 3)]
    assert spread[1] > spread[0]
