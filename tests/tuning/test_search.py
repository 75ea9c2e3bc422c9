"""The search: trial 0 is the default, the seed decides, and what was learned is used."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest

from ensembler.metrics import get_metric
from ensembler.training.candidate import Candidate, CellJob
from ensembler.training.recipe import Recipe
from ensembler.training.space import Choice, Range
from ensembler.tuning.plan import Outcome, Trial
from ensembler.tuning.sampler import OptunaSampler
from ensembler.tuning.search import GRID_POINTS, Arm, OptunaStage, grid_candidates, random_candidates
from ensembler.tuning.select import near_best

SPACE: dict[str, Any] = {
    "lr": Range(1e-5, 1e-1, log=True),
    "dropout": Range(0.0, 0.5),
    "augment": Choice((0.0, 1.0)),
}


def _arms(n: int = 2, space: dict[str, Any] = SPACE) -> list[Arm]:
    return [Arm(f"net{i}", "random", "full", Recipe(lr=1e-3, batch_size=16 + i), space) for i in range(n)]


def _make(number: int, candidate: Candidate) -> Trial:
    return Trial("search", "cell", CellJob(candidate, 0), number)


# ---------------------------------------------------------------------- lists


@pytest.mark.parametrize("algorithm", [lambda a, n: random_candidates(a, n, 0), grid_candidates])
@pytest.mark.parametrize("n", [1, 3, 7, 12])
def test_the_defaults_come_first_and_all_of_them_whatever_the_number(algorithm: Any, n: int) -> None:
    arms = _arms(3)
    found = algorithm(arms, n)
    assert found[:3] == [arm.default for arm in arms]
    assert len(found) == max(n, 3)
    assert len({c.id for c in found}) == len(found)


def test_a_random_search_is_decided_by_its_seed() -> None:
    arms = _arms()
    assert random_candidates(arms, 10, 4) == random_candidates(arms, 10, 4)
    assert random_candidates(arms, 10, 4) != random_candidates(arms, 10, 5)


def test_more_trials_begin_with_those_of_fewer() -> None:
    arms = _arms()
    assert random_candidates(arms, 20, 0)[:9] == random_candidates(arms, 9, 0)
    assert grid_candidates(arms, 20)[:9] == grid_candidates(arms, 9)


def test_a_further_backbone_changes_no_candidate_of_the_others() -> None:
    two, three = random_candidates(_arms(2), 12, 0), random_candidates(_arms(3), 18, 0)
    assert [c for c in three if c.backbone != "net2"] == two


def test_arms_take_turns() -> None:
    found = random_candidates(_arms(3), 9, 0)
    assert [c.backbone for c in found] == ["net0", "net1", "net2"] * 3


def test_draws_stay_in_the_space_and_keep_the_rest_of_the_recipe() -> None:
    for candidate in random_candidates(_arms(1), 200, 0):
        assert 1e-5 <= candidate.recipe.lr <= 1e-1
        assert candidate.recipe.augment in (0.0, 1.0)
        rest = dataclasses.replace(candidate.recipe, lr=1e-3, dropout=0.0, augment=1.0)
        assert rest == _arms(1)[0].recipe


def test_rates_are_spread_evenly_in_the_logarithm() -> None:
    rates = [c.recipe.lr for c in random_candidates(_arms(1), 400, 0)[1:]]
    share = np.mean([rate < 1e-3 for rate in rates])
    assert 0.4 < share < 0.6


def test_a_grid_is_every_combination_of_each_backbone_the_first_key_fastest() -> None:
    arms = _arms(2)
    found = grid_candidates(arms, 10_000)
    for arm in arms:
        mine = [c for c in found if c.backbone == arm.backbone]
        assert all(c.recipe.batch_size == arm.recipe.batch_size for c in mine)
        points = [
            [SPACE[k].at((i + 0.5) / GRID_POINTS) for i in range(GRID_POINTS)] for k in ("lr", "dropout")
        ]
        expected = [
            arm.candidate({"lr": lr, "dropout": dropout, "augment": augment})
            for augment, dropout, lr in itertools.product((0.0, 1.0), points[1], points[0])
        ]
        assert mine == [arm.default, *[c for c in expected if c != arm.default]]


def test_a_space_of_few_values_yields_each_once_and_ends() -> None:
    space = {"dropout": Choice((0.0, 0.1, 0.2))}
    assert len(random_candidates(_arms(1, space), 3, 0)) == 3
    assert len(grid_candidates(_arms(1, space), 50)) == 3
    assert random_candidates(_arms(2, {}), 50, 0) == [arm.default for arm in _arms(2, {})]


def test_an_arm_knows_its_own() -> None:
    arm = _arms(1)[0]
    assert arm.covers(arm.default)
    assert arm.covers(arm.candidate({"lr": 0.5}))  # outside the range of today, but only in what is searched
    assert not arm.covers(dataclasses.replace(arm.default, weights="w#1"))
    assert not arm.covers(dataclasses.replace(arm.default, recipe=dataclasses.replace(arm.recipe, epochs=3)))


# ---------------------------------------------------------------------- Optuna


def _objective(candidate: Candidate) -> float:
    """Lowest at lr 1e-2, augment 0, on net1."""
    distance = abs(math.log10(candidate.recipe.lr) + 2) + candidate.recipe.augment + candidate.recipe.dropout
    return distance + 0.5 * (candidate.backbone == "net0")


def _drive(stage: OptunaStage) -> list[tuple[Candidate, float]]:
    told = []
    while (trial := stage.ask()) is not None:
        candidate = trial.job.candidate
        told.append((candidate, _objective(candidate)))
        stage.tell(trial, Outcome("finished", told[-1][1]))
    return told


def _stage(arms: list[Arm], n: int, seed: int = 0, algorithm: str = "optuna", **options: Any) -> OptunaStage:
    seed += len(options.get("known", ()))
    sampler = OptunaSampler(arms, algorithm, seed, get_metric("log_loss"))
    return OptunaStage("search", arms, n, sampler, _make, **options)


def test_optuna_begins_with_the_defaults_and_is_decided_by_its_seed() -> None:
    arms = _arms()
    first = _drive(_stage(arms, 14))
    assert [c for c, _ in first[:2]] == [arm.default for arm in arms]
    assert len(first) == 14
    assert _drive(_stage(arms, 14)) == first
    assert _drive(_stage(arms, 14, seed=1)) != first


def test_optuna_learns() -> None:
    """Its second half is better than random, over several seeds."""
    arms = _arms()
    learned = [np.median([score for _, score in _drive(_stage(arms, 40, seed))[20:]]) for seed in range(3)]
    random_scores = [
        np.median([_objective(c) for c in random_candidates(arms, 40, seed)]) for seed in range(3)
    ]
    assert max(learned) < min(random_scores)


def test_optuna_goes_on_from_what_is_known() -> None:
    arms = _arms()
    known = _drive(_stage(arms, 12))
    stage = _stage(arms, 20, known=known, first=17)
    assert stage.total == 8
    trials = []
    while (trial := stage.ask()) is not None:
        trials.append(trial)
        stage.tell(trial, Outcome("finished", _objective(trial.job.candidate)))
    assert [t.number for t in trials] == list(range(17, 25))
    assert all(t.job.candidate not in [arm.default for arm in arms] for t in trials)
    # It starts where it had got to: the median of what it draws next beats that of a search from nothing.
    fresh = [score for _, score in _drive(_stage(arms, 10, seed=8))[2:]]
    assert np.median([_objective(t.job.candidate) for t in trials]) < np.median(fresh)


def test_where_nothing_beats_chance_everything_is_as_near_the_best() -> None:
    loss = get_metric("log_loss")
    assert near_best({"a": 2.9, "b": 4.0}, loss, chance=2.3) == ["a", "b"]
    assert near_best({"a": 0.9, "b": 2.2}, loss, chance=2.3) == ["a"]
    assert near_best({}, loss, chance=2.3) == []


@pytest.mark.parametrize("algorithm", ["optuna", "gp"])
def test_a_backbone_that_stays_far_behind_is_not_drawn_any_more(algorithm: str) -> None:
    arms = _arms(3)
    sampler = OptunaSampler(arms, algorithm, 0, get_metric("log_loss"), chance=2.3)
    for arm, score in zip(arms, (0.8, 1.4, 0.9), strict=True):
        sampler.tell(arm.default, score)
    drawn = []
    for _ in range(16):
        drawn.append(candidate := sampler.ask())
        sampler.tell(candidate, 0.85 + 0.01 * len(drawn) % 0.1)
    assert {c.backbone for c in drawn} == {"net0", "net2"}
    sampler.tell(dataclasses.replace(arms[1].default, recipe=Recipe(lr=0.02)), 0.85)  # it can still come back
    assert any(sampler.ask().backbone == "net1" for _ in range(40))


def test_nothing_is_left_when_all_is_known_but_a_new_backbone_is_still_tried() -> None:
    known = _drive(_stage(_arms(2), 10))
    assert _stage(_arms(2), 10, known=known).ask() is None
    stage = _stage(_arms(3), 10, known=known)
    assert stage.total == 1
    trial = stage.ask()
    assert trial is not None
    assert trial.job.candidate == _arms(3)[2].default
    assert stage.ask() is None


def test_failed_and_known_failed_trials_are_learned_from_as_failures() -> None:
    arms = _arms()
    stage = _stage(arms, 12, known=[(arms[0].default, None)])
    outcomes = itertools.cycle(
        [Outcome("failed", reason="x"), Outcome("stopped", 1.0), Outcome("finished", 0.5)]
    )
    n = 0
    while (trial := stage.ask()) is not None:
        stage.tell(trial, next(outcomes))
        n += 1
    assert n == 11


def test_a_trial_that_is_told_comes_to_whoever_listens() -> None:
    heard: list[tuple[int, str]] = []
    stage = _stage(_arms(), 3, on_end=lambda t, o: heard.append((t.number, o.status)))
    _drive(stage)
    assert heard == [(0, "finished"), (1, "finished"), (2, "finished")]


def test_the_defaults_start_although_the_time_is_up() -> None:
    stage = _stage(_arms(), 10, deadline=0.0)
    assert stage.ask() is not None
    assert stage.ask() is not None
    assert stage.ask() is None
