"""Stages and chains: what is trained next, without a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from ensembler.training.candidate import Candidate, CellJob
from ensembler.training.recipe import Recipe
from ensembler.tuning.plan import Chain, Outcome, Stage, Trial

DONE = Outcome("finished", 0.5)


def _trials(stage: str, n: int) -> list[Trial]:
    job = CellJob(Candidate("a", "random", "full", Recipe()), 0)
    return [Trial(stage, "cell", job, i) for i in range(n)]


def _maker(stage: Stage | None) -> Callable[[], Stage | None]:
    return lambda: stage


def test_a_trial_survives_the_way_to_a_worker() -> None:
    trial = _trials("search", 1)[0]
    assert Trial.from_config(trial.to_config()) == trial


def test_the_next_stage_begins_when_every_trial_of_this_one_has_ended() -> None:
    first, second = _trials("a", 2), _trials("b", 1)
    chain = Chain([_maker(Stage("a", first)), _maker(Stage("b", second))])
    assert chain.ask() == first[0]
    assert chain.ask() == first[1]
    assert chain.ask() is None
    assert chain.waiting
    assert not chain.finished
    chain.tell(first[1], DONE)
    assert chain.ask() is None
    chain.tell(first[0], DONE)
    assert not chain.waiting
    assert chain.ask() == second[0]
    assert chain.stage is not None
    assert chain.stage.name == "b"
    assert not chain.waiting  # there is no stage after it
    chain.tell(second[0], DONE)
    assert chain.ask() is None
    assert chain.finished


def test_a_stage_is_made_late_so_that_it_reads_what_the_one_before_found() -> None:
    found: list[str] = []
    first = _trials("a", 1)

    def late() -> Stage:
        assert found == ["a0 finished"]
        return Stage("b", _trials("b", 1))

    stage = Stage("a", first, lambda t, o: found.append(f"{t.stage}{t.number} {o.status}"))
    chain = Chain([_maker(stage), late])
    chain.ask()
    chain.tell(first[0], DONE)
    assert chain.ask() is not None


def test_stages_that_are_left_out_or_empty_are_passed_over() -> None:
    last = _trials("b", 1)
    chain = Chain(
        [_maker(None), _maker(Stage("a", [])), _maker(None), _maker(Stage("b", last)), _maker(None)]
    )
    assert chain.ask() == last[0]
    chain.tell(last[0], DONE)
    assert chain.ask() is None
    assert chain.finished
    assert Chain([]).ask() is None


def test_after_the_deadline_only_the_trials_that_must_start_do() -> None:
    past = time.monotonic() - 1
    stage = Stage("a", _trials("a", 5), deadline=past, at_least=2)
    assert [t.number for t in (stage.ask(), stage.ask()) if t] == [0, 1]
    assert stage.ask() is None
    assert stage.total == 5
    assert Stage("a", _trials("a", 1), deadline=past + 100).ask() is not None


@pytest.mark.parametrize("status", ["finished", "stopped", "failed"])
def test_a_trial_that_failed_does_not_stop_the_chain(status: str) -> None:
    first = _trials("a", 2)
    chain = Chain([_maker(Stage("a", first))])
    for trial in (chain.ask(), chain.ask()):
        assert trial is not None
        chain.tell(trial, Outcome(status))  # type: ignore[arg-type]
    assert chain.ask() is None
    assert chain.finished
