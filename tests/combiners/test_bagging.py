import numpy as np

from ensembler.combiners.bagging import Bagging
from ensembler.combiners.greedy import Greedy


def test_weights_spread_over_more_members_than_one_selection(library):
    predictions = library(n_members=8, n_samples=150)
    bagged, single = Bagging().fit(predictions), Greedy().fit(predictions)
    assert len(bagged.used_members_) > len(single.used_members_)
    assert bagged.weights_.argmax() == single.weights_.argmax()


def test_each_bag_draws_its_share_of_the_members(library):
    predictions = library(n_members=6)
    assert len(Bagging(bags=1, member_share=0.01).fit(predictions).used_members_) == 1
    assert len(Bagging(bags=1, member_share=0.3, rounds=60).fit(predictions).used_members_) <= 2


def test_the_seed_draws_other_bags(library):
    predictions = library(n_members=6)
    first, second = (Bagging(bags=3, seed=seed).fit(predictions).weights_ for seed in (0, 1))
    assert not np.array_equal(first, second)
