"""Progress that a person can read."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from ensembler.metrics import get_metric
from ensembler.training.candidate import Candidate, CellJob
from ensembler.training.recipe import Recipe
from ensembler.tuning import progress as module
from ensembler.tuning.plan import Outcome, Trial
from ensembler.tuning.progress import (
    Observers,
    PlainProgress,
    Tally,
    TerminalProgress,
    duration,
    progress_for,
)

LOSS = get_metric("log_loss")


def _trial(number: int = 0, stage: str = "search", kind: Any = "cell") -> Trial:
    return Trial(
        stage, kind, CellJob(Candidate("net", "random", "full", Recipe(epochs=4)), number % 2), number
    )


def _epoch(epoch: int, speed: float = 100.0) -> dict[str, Any]:
    return {"epoch": epoch, "images_per_s": speed}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (48.4, "48 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7650, "2 h 07 min"),
        (-3, "0 s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_plain_lines_tell_stage_score_best_speed_and_what_failed() -> None:
    stream = io.StringIO()
    name = _trial().job.candidate.name
    with PlainProgress(LOSS, stream) as bar:
        bar.started(_trial(0), 3)
        bar.started(_trial(1), 3)
        bar.epoch(_trial(1), _epoch(1, 250))
        bar.ended(_trial(0), Outcome("finished", 0.75, seconds=65))
        bar.ended(_trial(1), Outcome("failed", reason="loss is nan"))
        bar.started(_trial(2), 3)
        bar.ended(_trial(2), Outcome("stopped", 0.5, seconds=3))
        bar.started(_trial(0, "crossval"), 1)
        bar.ended(_trial(0, "crossval"), Outcome("finished", 0.9, seconds=1))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "Searching recipes: 3 trials"
    assert lines[1].startswith(
        f"  1/3 {name} fold 0 0.7500 in 1 min 05 s; 1 running, 250 images/s, best log loss 0.7500"
    )
    assert lines[2].startswith(f"  2/3 {name} fold 1 failed: loss is nan; 0 running")
    assert "1 failed" in lines[2]
    assert f"3/3 {name} fold 0 0.5000 stopped early in 3 s" in lines[3]
    assert "best log loss 0.5000" in lines[3]
    assert lines[4] == "Cross-validating: 1 trials"
    assert "failed" not in lines[5]
    assert "\x1b" not in stream.getvalue()


def test_the_best_follows_the_direction_of_the_metric() -> None:
    for metric, best in (("log_loss", 0.2), ("accuracy", 0.9)):
        tally = Tally(get_metric(metric))
        for number, score in enumerate((0.5, 0.2, 0.9, None)):
            tally.started(_trial(number), 4)
            tally.ended(_trial(number), Outcome("finished", score))
        assert tally.best is not None
        assert tally.best[0] == best


def test_time_left_counts_running_trials_by_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    tally = Tally(LOSS)
    tally.started(_trial(0), 4)
    assert "left" not in tally.status()
    now[0] = 110.0
    tally.epoch(_trial(0), _epoch(2))
    assert tally.progress == 0.5
    assert "about 1 min 10 s left" in tally.status()
    tally.ended(_trial(0), Outcome("finished", 1.0))
    assert "about 30 s left" in tally.status()


def test_a_worker_that_starts_again_is_counted_once() -> None:
    tally = Tally(LOSS)
    tally.started(_trial(0), 2)
    tally.epoch(_trial(0), _epoch(3))
    tally.started(_trial(0), 2)
    assert tally.progress == 0
    assert tally.status().startswith("1 running")


def test_the_measured_arithmetic_is_told() -> None:
    stream = io.StringIO()
    bar = PlainProgress(LOSS, stream)
    bar.started(_trial(0, "measure", "measure"), 1)
    bar.ended(
        _trial(0, "measure", "measure"),
        Outcome("finished", extra={"precision": "bf16", "channels_last": True}),
    )
    assert "Measuring arithmetic: 1 trials" in stream.getvalue()
    assert "1/1 net: bf16 channels_last" in stream.getvalue()


def test_a_terminal_shows_a_bar_a_stage_and_names_what_failed() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=160, color_system=None)
    with TerminalProgress(LOSS, console) as bars:
        bars.started(_trial(0), 2)
        bars.epoch(_trial(0), _epoch(1, 1234))
        bars.ended(_trial(0), Outcome("finished", 0.5))
        bars.started(_trial(1), 2)
        bars.ended(_trial(1), Outcome("failed", reason="[red]out of memory"))
        bars.started(_trial(0, "crossval"), 3)
    text = stream.getvalue()
    for expected in (
        "Searching recipes",
        "Cross-validating",
        "2/2",
        "0/3",
        "failed: [red]out of memory",
        "0.5000",
    ):
        assert expected in text


def test_bars_on_a_terminal_and_lines_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(module.sys, "stderr", Terminal())
    assert isinstance(progress_for(LOSS), TerminalProgress)
    monkeypatch.setattr(module.sys, "stderr", io.StringIO())
    assert isinstance(progress_for(LOSS), PlainProgress)


def test_everything_is_passed_on_to_every_observer() -> None:
    streams = [io.StringIO(), io.StringIO()]
    both = Observers([PlainProgress(LOSS, s) for s in streams])
    both.started(_trial(0), 1)
    both.epoch(_trial(0), _epoch(1))
    both.ended(_trial(0), Outcome("finished", 0.5))
    assert streams[0].getvalue() == streams[1].getvalue() != ""
