"""Importance of hyperparameters on made searches: what matters is found, noise is not, few trials tell nothing."""

import numpy as np
import pytest

from ensembler.evaluation import importance as module
from ensembler.evaluation.importance import MIN_TRIALS, importances


def made(n, seed=0, noise=0.3):
    """Scores that depend on the logarithm of `lr` and, a quarter as much, on `policy`; `dropout` is noise."""
    rng = np.random.default_rng(seed)
    values = {
        "dropout": rng.uniform(0, 0.5, n).tolist(),
        "lr": (10 ** rng.uniform(-4, -2, n)).tolist(),
        "policy": rng.choice(["standard", "rand"], n).tolist(),
    }
    scores = np.abs(np.log10(values["lr"]) + 3) + 0.25 * (np.array(values["policy"]) == "rand")
    return values, scores + noise * 0.3 * rng.normal(size=n)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_parameter_that_matters_is_found_and_noise_is_not(seed):
    values, scores = made(50, seed)
    found = importances(values, scores, n_boot=60)
    assert found.enough
    assert found.parameters[0].name == "lr"
    by_name = {p.name: p for p in found.parameters}
    assert by_name["lr"].matters
    assert by_name["lr"].share > 0.3
    assert not by_name["dropout"].matters
    assert abs(by_name["dropout"].share) < 0.1
    assert by_name["lr"].low <= by_name["lr"].share <= by_name["lr"].high
    assert found.explained > 0.5


def test_scores_without_a_cause_have_none():
    rng = np.random.default_rng(5)
    values = {name: rng.normal(size=40).tolist() for name in "abcd"}
    found = importances(values, rng.normal(size=40), n_boot=60)
    assert not any(p.matters for p in found.parameters)
    assert found.explained < 0.3


def test_few_trials_tell_nothing():
    values, scores = made(MIN_TRIALS - 1)
    found = importances(values, scores)
    assert not found.enough
    assert found.parameters == ()
    assert found.n_trials == MIN_TRIALS - 1
    assert np.isnan(found.explained)
    assert importances(
        {name: v[:MIN_TRIALS] for name, v in made(30)[0].items()}, made(30)[1][:MIN_TRIALS]
    ).enough


def test_equal_scores_tell_nothing():
    values, _ = made(20)
    assert not importances(values, np.ones(20)).enough
    assert not importances({}, np.arange(20.0)).enough


def test_the_direction_of_the_score_and_a_diverged_trial_change_nothing():
    values, scores = made(30)
    found = importances(values, scores, n_boot=20)
    mirrored = importances(values, -scores, n_boot=20)
    assert [p.name for p in found.parameters] == [p.name for p in mirrored.parameters]
    assert [p.share for p in found.parameters] == pytest.approx([p.share for p in mirrored.parameters])
    worst = scores.copy()
    worst[worst.argmax()] = 1e9
    assert importances(values, worst, n_boot=20) == found, "only the order of the trials counts"


def test_the_same_seed_finds_the_same():
    values, scores = made(20)
    assert importances(values, scores, n_boot=10, seed=3) == importances(values, scores, n_boot=10, seed=3)
    assert importances(values, scores, n_boot=10, seed=4) != importances(values, scores, n_boot=10, seed=3)


def test_categories_are_shuffled_as_one():
    rng = np.random.default_rng(0)
    backbone = rng.choice(["a", "b", "c", "d"], 60)
    scores = np.array([{"a": 0.0, "b": 1.0, "c": 2.0, "d": 3.0}[b] for b in backbone]) + 0.1 * rng.normal(
        size=60
    )
    found = importances(
        {"backbone": backbone.tolist(), "flip": rng.choice([True, False], 60).tolist()}, scores
    )
    assert found.parameters[0].name == "backbone"
    assert found.parameters[0].share > 0.7
    assert not found.parameters[1].matters


def test_many_trials_are_judged_in_the_time_of_few(monkeypatch):
    drawn = []
    real = module._one
    monkeypatch.setattr(module, "_one", lambda *a: drawn.append((len(a[3]), len(a[4]))) or real(*a))
    values, scores = made(1500)
    assert importances(values, scores, n_boot=3).parameters[0].name == "lr"
    assert drawn == [(module.MOST_DRAWN, module.MOST_JUDGED)] * 3
