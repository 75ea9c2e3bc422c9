"""Successive halving in step, driven without a cluster."""

from __future__ import annotations

import math

import pytest

from ensembler.metrics import get_metric
from ensembler.training.candidate import Candidate, CellJob
from ensembler.training.recipe import Recipe
from ensembler.tuning.halving import ETA, HalvingStage, listed_generations, rung_epochs
from ensembler.tuning.plan import Outcome, Trial

CANDIDATES = [Candidate("a", "random", "full", Recipe(epochs=9, lr=(i + 1) / 100)) for i in range(9)]


def _stage(metric: str = "log_loss", always: int = 0, size: int = 9, **options: object) -> HalvingStage:
    return HalvingStage(
        "search",
        listed_generations(CANDIDATES, size),
        9,
        9,
        get_metric(metric),
        make=lambda c, until: Trial("search", "cell", CellJob(c, 0), CANDIDATES.index(c), until=until),
        always={c.id for c in CANDIDATES[:always]},
        scores={},
        **options,  # type: ignore[arg-type]
    )


def _end(trial: Trial, offset: float = 0.0) -> Outcome:
    n = trial.until or 9
    score = trial.job.candidate.recipe.lr + offset
    history = tuple({"epoch": e + 1, "score": score} for e in range(n))
    return Outcome("stopped" if trial.until else "finished", score, history=history)


def _drive(stage: HalvingStage) -> list[tuple[int, int | None]]:
    ran = []
    while (trial := stage.ask()) is not None:
        ran.append((trial.number, trial.until))
        stage.tell(trial, _end(trial))
    return ran


@pytest.mark.parametrize(
    ("epochs", "rungs"),
    [
        (1, [1]),
        (2, [2]),
        (3, [3]),
        (4, [2, 4]),
        (8, [3, 8]),
        (9, [3, 9]),
        (18, [2, 6, 18]),
        (90, [10, 30, 90]),
    ],
)
def test_rungs(epochs: int, rungs: list[int]) -> None:
    assert rung_epochs(epochs) == rungs


@pytest.mark.parametrize(("metric", "best"), [("log_loss", {0, 1, 2}), ("accuracy", {6, 7, 8})])
def test_the_best_third_go_on(metric: str, best: set[int]) -> None:
    ran = _drive(_stage(metric))
    assert ran[:9] == [(i, 3) for i in range(9)]
    assert {number for number, until in ran[9:]} == best
    assert all(until is None for _, until in ran[9:])
    assert len(ran) == 9 + math.ceil(9 / ETA)


def test_a_rung_decides_only_when_all_of_it_have_reported() -> None:
    stage = _stage()
    first = [stage.ask() for _ in range(9)]
    for trial in first[::-1][:-1]:
        assert trial is not None
        stage.tell(trial, _end(trial))
        assert stage.ask() is None
    assert first[0] is not None
    stage.tell(first[0], _end(first[0]))
    following = stage.ask()
    assert following is not None
    assert following.until is None


def test_the_defaults_go_to_their_end_at_once_and_take_no_place_of_others_from_them() -> None:
    ran = _drive(_stage("accuracy", always=2))
    assert ran[:3] == [(0, None), (1, None), (2, 3)]
    assert {number for number, _ in ran[9:]} == {6, 7, 8}


def test_what_a_rung_compares_is_the_score_at_the_rung() -> None:
    """The default ran on to its end; how good it became there does not count at the rung."""
    stage = _stage(always=1)
    trials = [stage.ask() for _ in range(9)]
    late = tuple({"epoch": e, "score": 9.0 if e <= 3 else 0.0} for e in range(1, 10))
    for trial in trials:
        assert trial is not None
        outcome = Outcome("finished", 0.0, history=late) if trial.number == 0 else _end(trial)
        stage.tell(trial, outcome)
    assert [t.number for t in iter(stage.ask, None) if t] == [1, 2, 3]


def test_failures_are_not_promoted() -> None:
    stage = _stage()
    for i in range(9):
        trial = stage.ask()
        assert trial is not None
        stage.tell(trial, Outcome("failed", reason="x") if i < 8 else _end(trial))
    assert [t.number for t in iter(stage.ask, None) if t] == [8]


def test_generations_follow_one_another() -> None:
    ran = _drive(_stage(size=3))
    assert ran == [
        (0, 3), (1, 3), (2, 3), (0, None), (3, 3), (4, 3), (5, 3), (3, None), (6, 3), (7, 3), (8, 3), (6, None)
    ]  # fmt: skip


def test_what_is_known_is_not_trained_again() -> None:
    records = {}
    stage = _stage()
    for _ in range(10):
        trial = stage.ask()
        assert trial is not None
        outcome = _end(trial)
        stage.tell(trial, outcome)
        records[trial.job.candidate.id] = {
            "status": outcome.status, "score": outcome.score, "history": outcome.history
        }  # fmt: skip
    again = _stage(known=records)
    assert _drive(again) == [(1, None), (2, None)]
    everything = {c.id: {"status": "finished", "score": 1.0, "history": ()} for c in CANDIDATES}
    assert _stage(known=everything).total == 0
