import numpy as np
import pandas as pd
import pytest

from ensembler.combiners import make_combiner
from ensembler.errors import CombinerError
from ensembler.evaluation.stability import selection_stability


def test_equals_a_loop_over_resamples(library):
    predictions, combiner = library(n_members=5), make_combiner("greedy", rounds=10)
    found = selection_stability(combiner, predictions, n_boot=12, seed=4)
    rng = np.random.default_rng(4)
    weights = []
    for _ in range(12):
        rows = predictions.rows(rng.integers(240, size=240))
        weights.append(combiner.clone().fit(rows).weights_)
    np.testing.assert_allclose([m.mean for m in found.members], np.mean(weights, axis=0))
    np.testing.assert_allclose([m.chosen for m in found.members], (np.array(weights) > 0).mean(axis=0))
    np.testing.assert_allclose([m.low for m in found.members], np.quantile(weights, 0.025, axis=0))
    np.testing.assert_allclose([m.high for m in found.members], np.quantile(weights, 0.975, axis=0))
    np.testing.assert_array_equal(
        [m.weight for m in found.members], combiner.clone().fit(predictions).weights_
    )
    assert combiner.members_ == ()


def test_a_member_that_matters_is_always_chosen_and_noise_never(library):
    predictions = library(n_members=4)
    proba = predictions.proba.copy()
    proba[2] = 0.95 * np.eye(3)[predictions.labels] + 0.05 / 3
    predictions = predictions.with_proba(proba, predictions.members)
    found = selection_stability(make_combiner("greedy"), predictions, n_boot=20)
    members = {m.member: m for m in found.members}
    assert (members["m2"].chosen, members["m2"].low, members["m2"].high) == (1, 1, 1)
    assert members["m0"].chosen == members["m0"].high == 0
    assert found.usual == ("m2",)
    assert found.same_set == found.overlap == 1
    assert pd.DataFrame(found.members).shape == (4, 6)


def test_members_that_are_equally_good_come_and_go(library):
    predictions = library(n_members=8, n_samples=60)
    found = selection_stability(make_combiner("greedy", rounds=5), predictions, n_boot=40)
    assert found.same_set < 0.5
    assert 0 < found.overlap < 1
    assert any(0.1 < m.chosen < 0.9 for m in found.members)
    assert all(m.low <= m.mean <= m.high for m in found.members)


def test_rows_of_a_group_are_drawn_together(library):
    base = library(n_members=5, n_samples=40)
    copies = np.repeat(np.arange(40), 10)
    combiner = make_combiner("greedy", rounds=8)
    alone = selection_stability(combiner, base, n_boot=40)
    together = selection_stability(combiner, base.rows(copies), groups=copies, n_boot=40)
    ignored = selection_stability(combiner, base.rows(copies), n_boot=40)
    width = [np.mean([m.high - m.low for m in found.members]) for found in (alone, together, ignored)]
    assert width[1] > 0.7 * width[0]
    assert width[2] < 0.7 * width[1]


def test_same_seed_same_numbers(library):
    predictions, combiner = library(n_members=4), make_combiner("greedy", rounds=5)
    first = selection_stability(combiner, predictions, n_boot=5, seed=1)
    assert selection_stability(combiner, predictions, n_boot=5, seed=1) == first
    assert selection_stability(combiner, predictions, n_boot=5, seed=2) != first


def test_a_combiner_without_weights_is_refused(library):
    with pytest.raises(CombinerError, match="geometric: has no weights of its members"):
        selection_stability(make_combiner("geometric"), library(), n_boot=2)
