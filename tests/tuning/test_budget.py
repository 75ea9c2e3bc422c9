"""A budget: arithmetic first, then whole sweeps on a simulated clock, which have to end where the budget does."""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import random
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ensembler.config import Config
from ensembler.training.blueprint import BackboneInfo
from ensembler.training.candidate import Candidate, CellJob, TrainingData
from ensembler.training.recipe import Recipe
from ensembler.training.weights import Weights
from ensembler.tuning import sweep as module
from ensembler.tuning.arms import ReadyBackbone
from ensembler.tuning.budget import (
    MIN_EPOCHS,
    MOST_EPOCHS,
    SEARCH_SHARE,
    Budget,
    Finish,
    Pace,
    fit_epochs,
    makespan,
)
from ensembler.tuning.plan import Chain, Outcome, Trial
from ensembler.tuning.sweep import Sweep

FINISH = Finish(rows=3000, classes=10, folds=5, boosting=True, test_rows=300, images_per_s=400)


# ---------------------------------------------------------------------- arithmetic


@pytest.mark.parametrize(
    ("running", "cells", "slots", "expected"),
    [
        ([], [], 2, 0.0),
        ([], [5.0, 5.0, 5.0], 2, 10.0),
        ([10.0], [4.0, 4.0, 4.0], 2, 12.0),
        ([3.0, 7.0], [2.0], 2, 7.0),
        ([-5.0], [2.0], 1, 2.0),
    ],
)
def test_makespan_of_free_slots_that_take_cells_in_order(
    running: list[float], cells: list[float], slots: int, expected: float
) -> None:
    assert makespan(running, cells, slots) == expected


def test_epochs_are_cut_where_they_do_not_fit() -> None:
    assert fit_epochs([1.0, 10.0], 8, 50) == [8, 4]
    assert fit_epochs([1.0, 1.0], 8, 1000) == [8, 8]
    assert fit_epochs([10.0, 1.0], 8, 47) == [0, 8]  # with 3 of 8 epochs it would be no fair try
    assert fit_epochs([30.0, 20.0], 8, 110) == [0, 5]  # 1 and 2 beside each other
    assert fit_epochs([100.0], 8, 1) == [MIN_EPOCHS]
    assert fit_epochs([100.0], 1, 1) == [1]


def test_pace_learns_from_the_candidate_itself_then_from_its_kind() -> None:
    one = Candidate("a", "w", "full", Recipe(epochs=10, lr=1e-3))
    two = Candidate("a", "w", "full", Recipe(epochs=5, lr=1e-2))
    other = Candidate("b", "w", "full", Recipe(epochs=10))
    pace = Pace({"a": 3.0, "b": 7.0})
    assert (pace.cell_s(one), pace.cell_s(other)) == (30.0, 70.0)
    pace.learn(one, 20.0, epochs=10, finished=True)
    pace.learn(one, 24.0, epochs=10, finished=True)
    assert pace.cell_s(one) == 22.0
    assert pace.cell_s(two) == pytest.approx(11.0)
    pace.learn(two, 4.0, epochs=2, finished=False)  # stopped early: it tells of its kind, not of itself
    assert pace.cell_s(two) == pytest.approx((2.0 + 2.4 + 2.0) / 3 * 5)
    assert pace.cell_s(Candidate("a", "w", "lora", Recipe(epochs=3))) == pytest.approx(3 * 6.4 / 3)
    assert pace.cell_s(other) == 70.0


def test_the_search_gets_what_cross_validation_does_not_need() -> None:
    budget = Budget(1000.0, 0.0, FINISH)
    ends = budget.training_ends(3)
    assert ends == 1000.0 - FINISH.seconds(3)
    assert budget.search_ends([50.0, 100.0, 150.0]) == ends - 150.0
    # Three do not fit beside the search's share, two do; one of every backbone is kept whatever the search gets.
    assert budget.search_ends([300.0, 500.0, 800.0]) == budget.training_ends(2) - 500.0
    assert budget.search_ends([300.0, 500.0, 800.0], n_must=3) == ends - 800.0
    assert (1 - SEARCH_SHARE) * budget.training_ends(2) > 500.0
    assert budget.search_ends([50.0], others=4) == budget.training_ends(5) - 50.0


def test_the_search_has_its_share_where_cross_validation_can_raise_epochs() -> None:
    budget = Budget(1000.0, 0.0, FINISH)
    ends = budget.training_ends(1)
    assert budget.search_ends([50.0], most_s=9000.0) == pytest.approx(ends * SEARCH_SHARE)
    assert (
        budget.search_ends([50.0], most_s=100.0) == ends - 100.0
    )  # with more epochs than that it has no use for
    assert budget.search_ends([900.0], most_s=9000.0) == ends - 900.0


def test_more_candidates_take_longer_to_finish_and_trees_longest() -> None:
    assert FINISH.seconds(8) > FINISH.seconds(4)
    bare = Finish(rows=3000, classes=10, folds=5, boosting=False)
    assert bare.seconds(8) < FINISH.seconds(8)


# ---------------------------------------------------------------------- whole sweeps on a simulated clock


class Store:
    def __init__(self) -> None:
        self.cells: set[str] = set()
        self.notes: dict[int, dict[str, Any]] = {}
        self.values: dict[str, Any] = {"test_images": 300}

    def has_cell(self, job: CellJob, fingerprint: str) -> bool:
        return job.key(fingerprint) in self.cells

    def commit_cell(self, result: Any, fingerprint: str) -> bool:
        raise AssertionError("workers commit")

    def cell(self, candidate_id: str, fold: int) -> Any:
        return SimpleNamespace(score=0.5, train_s=1.0, history=pd.DataFrame)

    def trials(self) -> list[dict[str, Any]]:
        return [self.notes[n] for n in sorted(self.notes)]

    def write_trial(self, number: int, record: Mapping[str, Any]) -> None:
        self.notes[number] = {"number": number, **record}

    def manifest(self) -> dict[str, Any]:
        return self.values

    def update_manifest(self, **changes: Any) -> dict[str, Any]:
        self.values |= changes
        return self.values


class SimulatedRay:
    """Slots that take trials, and a clock that jumps from one end to the next.

    Args:
        speeds: images a second of each backbone, as it is trained; measuring finds `optimism` times as much.
        noise: largest share by which a Cell is faster or slower.
        start_s: before the first trial runs.
    """

    def __init__(
        self,
        speeds: Mapping[str, float],
        *,
        slots: int = 2,
        noise: float = 0.05,
        optimism: float = 1.2,
        start_s: float = 12.0,
        patience: bool = False,
    ) -> None:
        self.now = 1000.0
        self.speeds, self.slots, self.noise, self.optimism = speeds, slots, noise, optimism
        self.start_s, self.patience = start_s, patience
        self.store = Store()
        self.rng = random.Random(0)
        self.rows = 0
        self.ran: list[Trial] = []

    def seconds(self, trial: Trial) -> float:
        candidate = trial.job.candidate
        if trial.kind == "measure":
            return 3.0
        if candidate.strategy == "probe":
            return 2.0
        epochs = trial.until or self.epochs(candidate)
        pure = 2.0 + epochs * self.rows * 1.25 / self.speeds[candidate.backbone]
        return pure * (1 + self.noise * self.rng.uniform(-1, 1))

    def epochs(self, candidate: Candidate) -> int:
        early = self.patience and candidate.recipe.lr > 5e-3
        return max(2, candidate.recipe.epochs - 2 * early)

    def outcome(self, trial: Trial, seconds: float) -> Outcome:
        candidate = trial.job.candidate
        if trial.kind == "measure":
            speeds = {"fp32": self.speeds[candidate.backbone] * self.optimism}
            return Outcome(
                "finished", extra={"precision": "fp32", "channels_last": True, "images_per_s": speeds}
            )
        score = random.Random(candidate.id).random()
        n = trial.until or self.epochs(candidate)
        history = tuple({"epoch": e + 1, "score": score} for e in range(n))
        return Outcome("stopped" if trial.until else "finished", score, history=history, seconds=seconds)

    def execute(self, chain: Chain, data: TrainingData, *_: Any, **__: Any) -> None:
        self.rows = len(data.folds[0][0])
        self.now += self.start_s
        running: list[tuple[float, int, float, Trial]] = []
        while True:
            while len(running) < self.slots and (trial := chain.ask()) is not None:
                seconds = self.seconds(trial)
                self.ran.append(trial)
                heapq.heappush(running, (self.now + seconds, len(self.ran), seconds, trial))
            if not running:
                assert chain.finished
                return
            self.now, _, seconds, trial = heapq.heappop(running)
            outcome = self.outcome(trial, seconds)
            if outcome.status == "finished" and trial.kind == "cell":
                self.store.cells.add(trial.job.key(data.fingerprint))
            chain.tell(trial, outcome)

    @contextlib.contextmanager
    def session(self, *_: Any) -> Iterator[tuple[float, float]]:
        yield float(self.slots), 0.0


BASE = "name: x\ndata: {source: digits}\nbackbones: [a]\n"


def _run(ray: SimulatedRay, monkeypatch: pytest.MonkeyPatch, text: str, images: int = 3000) -> Sweep:
    monkeypatch.setattr(time, "monotonic", lambda: ray.now)
    monkeypatch.setattr(module, "ray_session", ray.session)
    monkeypatch.setattr(module, "execute", ray.execute)
    names = list(ray.speeds)
    config = Config.parse(BASE.replace("[a]", f"[{', '.join(names)}]") + text, Path("c.yaml"))
    k = config.folds.k
    parts = np.array_split(np.arange(images), k)
    folds = []
    for f in range(k):
        rest = np.concatenate([p for i, p in enumerate(parts) if i != f])
        cut = int(0.85 * len(rest))
        folds.append((rest[:cut], rest[cut:], parts[f]))
    data = TrainingData(
        Path("p"), np.arange(images) % 10, tuple("abcdefghij"), tuple(folds), "f", {}, Path("features")
    )
    ready = [ReadyBackbone(n, Weights("w#1", Path("w")), BackboneInfo(1_000_000, False, "")) for n in names]
    sweep = Sweep(config, data, ready, ray.store, SimpleNamespace(), began=ray.now)  # type: ignore[arg-type]
    sweep.run()
    return sweep


def _length(ray: SimulatedRay, sweep: Sweep, began: float, finish_error: float = 1.0) -> float:
    """Seconds of a whole run; what comes after the last Cell takes `finish_error` times what is expected."""
    assert sweep._spending is not None
    finish = sweep._spending.budget.finish
    return ray.now - began + finish_error * finish.seconds(len(sweep.result.candidates))


SLOW = {"a": 380.0, "b": 250.0, "c": 500.0}
SEARCH = "search: {trials: 12, epochs: 8, algorithm: %s, scheduler: %s}\nkeep: 6\nbudget: %s\n"


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("budget", "algorithm", "scheduler", "options"),
    [
        ("7m", "random", "none", {}),
        ("7m", "random", "none", {"patience": True}),
        ("7m", "random", "halving", {}),
        ("7m", "optuna", "none", {}),
        ("7m", "random", "none", {"optimism": 1.6}),
        ("7m", "random", "none", {"optimism": 0.8}),
        ("7m", "random", "none", {"slots": 1}),
        ("15m", "random", "none", {}),
        ("24m", "random", "none", {"noise": 0.15}),
    ],
)
def test_a_run_ends_where_its_budget_does(
    budget: str,
    algorithm: str,
    scheduler: str,
    options: dict[str, Any],
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray = SimulatedRay(SLOW, **options)
    ray.rng.seed(seed)
    began = ray.now
    sweep = _run(ray, monkeypatch, SEARCH % (algorithm, scheduler, budget))
    assert sweep.config.budget is not None
    for finish_error in (0.85, 1.15):
        share = _length(ray, sweep, began, finish_error) / sweep.config.budget
        assert 0.95 <= share <= 1.05


def test_what_has_no_time_is_left_out_by_name_or_trained_with_fewer_epochs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray = SimulatedRay(SLOW, optimism=1.6)  # the cut of the epochs believed in a speed that there is not
    sweep = _run(ray, monkeypatch, SEARCH % ("random", "none", "7m"))
    left_out = [f for f in sweep.result.failed if f["stage"] == "crossval"]
    assert left_out
    assert all("the budget has" in f["reason"] and f["fold"] is None for f in left_out)
    assert len(ray.store.values["afforded"]["left_out"]) == len(left_out)
    for failure in left_out:
        if "instead" in failure["reason"]:
            lost = Candidate.from_dict(failure["candidate"])
            short = [
                c for c in sweep.result.candidates if c.backbone == lost.backbone and c.recipe != lost.recipe
            ]
            assert any(c.recipe.epochs < lost.recipe.epochs for c in short)


def test_with_time_left_the_search_goes_on_and_more_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = SimulatedRay(SLOW)
    sweep = _run(ray, monkeypatch, SEARCH % ("random", "none", "40m"))
    assert len(ray.store.notes) > 12
    kept = [c for c in sweep.result.candidates if c.strategy != "probe"]
    assert 6 <= len(kept) <= 12
    best = sorted(ray.store.trials(), key=lambda t: t["score"])[0]["name"]
    assert best in {c.name for c in kept}


@pytest.mark.parametrize("scheduler", ["none", "halving"])
def test_a_finished_run_trains_nothing_more_although_its_budget_begins_anew(
    scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = SimulatedRay(SLOW)
    text = SEARCH % ("random", scheduler, "7m")
    first = _run(ray, monkeypatch, text)
    ran = len(ray.ran)
    again = _run(ray, monkeypatch, text)
    assert (again.result.candidates, again.result.failed) == (first.result.candidates, first.result.failed)
    assert len(ray.ran) == ran
    more = _run(ray, monkeypatch, SEARCH % ("random", scheduler, "15m"))
    assert len(ray.ran) > ran
    assert {c.id for c in first.result.candidates if c.strategy == "probe"} <= {
        c.id for c in more.result.candidates
    }


def test_the_fastest_default_is_tried_and_kept_however_short_the_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray = SimulatedRay(SLOW)
    sweep = _run(ray, monkeypatch, SEARCH % ("random", "none", "1s"))
    assert [t["candidate"]["backbone"] for t in ray.store.trials()] == ["c"]
    assert [c.backbone for c in sweep.result.candidates if c.strategy != "probe"] == ["c"]
    assert [(f["candidate"]["backbone"], f["stage"]) for f in sweep.result.failed] == [
        ("a", "search"),
        ("b", "search"),
    ]
    assert all("too long for the budget of 1 s" in f["reason"] for f in sweep.result.failed)


OPEN = "search: {trials: 12, algorithm: random, scheduler: none}\nkeep: 6\nbudget: %s\n"


@pytest.mark.parametrize("budget", ["7m", "15m", "40m"])
def test_open_epochs_are_raised_to_fill_the_budget(budget: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = SimulatedRay(SLOW)
    began = ray.now
    sweep = _run(ray, monkeypatch, OPEN % budget)
    assert sweep.config.budget is not None
    assert 0.95 <= _length(ray, sweep, began) / sweep.config.budget <= 1.05
    searched = {t["candidate"]["recipe"]["epochs"] for t in ray.store.trials()}
    assert max(searched) <= 8
    kept = [c for c in sweep.result.candidates if c.strategy != "probe"]
    assert max(c.recipe.epochs for c in kept) > 8
    assert all(c.recipe.epochs <= MOST_EPOCHS for c in kept)
    best = min(ray.store.trials(), key=lambda t: t["score"])
    assert kept[0].recipe.epochs >= 8
    assert kept[0].with_epochs(best["candidate"]["recipe"]["epochs"]).name == best["name"]


def test_epochs_of_the_config_are_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (SEARCH % ("random", "none", "15m"), OPEN % "15m" + "recipe: {epochs: 8}\n"):
        sweep = _run(SimulatedRay(SLOW), monkeypatch, text)
        assert max(c.recipe.epochs for c in sweep.result.candidates) == 8


def test_backbones_that_come_near_the_best_share_the_time_and_the_others_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for score_of_c, sharing in (
        (0.52, 2),
        (1.9, 1),
    ):  # log loss; always answering with the frequencies has 2.3
        ray = SimulatedRay(SLOW)
        scores = {"a": 0.5, "b": 1.9, "c": score_of_c}
        plain = ray.outcome

        def outcome(trial: Trial, seconds: float, plain: Any = plain, scores: Any = scores) -> Outcome:
            found = plain(trial, seconds)
            if trial.kind != "cell" or found.score is None:
                return found
            return dataclasses.replace(found, score=scores[trial.job.candidate.backbone] + found.score / 1000)

        monkeypatch.setattr(ray, "outcome", outcome)
        sweep = _run(ray, monkeypatch, OPEN % "12m")
        kept = [c for c in sweep.result.candidates if c.strategy != "probe"]
        raised = [c.backbone for c in kept if c.recipe.epochs > 8]
        assert raised[:sharing] == ["a", "c"][:sharing]
        assert "b" not in raised[:2]


def test_a_run_that_was_cut_off_keeps_to_what_it_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = SimulatedRay(SLOW)
    text = SEARCH % ("random", "none", "15m")
    whole = ray.execute

    class Killed(Exception):
        pass

    def cut(chain: Chain, *rest: Any, **more: Any) -> None:
        tell = chain.tell

        def dying(trial: Trial, outcome: Outcome) -> None:
            tell(trial, outcome)
            if trial.stage == "crossval":
                raise Killed

        chain.tell = dying  # type: ignore[method-assign]
        whole(chain, *rest, **more)

    monkeypatch.setattr(ray, "execute", cut)
    with pytest.raises(Killed):
        _run(ray, monkeypatch, text)
    kept = list(ray.store.values["afforded"]["kept"])
    notes = dict(ray.store.notes)
    monkeypatch.setattr(ray, "execute", whole)
    sweep = _run(ray, monkeypatch, text)
    assert ray.store.notes == notes  # the search was over
    assert kept
    assert all(Candidate.from_dict(c) in sweep.result.candidates for c in kept)
