"""How long a silent trial is waited for, and when a sweep on which nothing runs is given up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensembler.config import Config
from ensembler.errors import ConfigError
from ensembler.training.candidate import TrainingData
from ensembler.tuning.deaths import cause_of
from ensembler.tuning.watchdog import (
    FACTOR,
    FLOOR_S,
    LOOK_S,
    NO_NODE_S,
    UNKNOWN_S,
    Standstill,
    Watchdog,
    watchdog_for,
)


def _wait(dog: Watchdog, seconds: float, start: float = 0.0) -> tuple[float, dict[str, str]]:
    """Looks once a second; when somebody was overdue for the first time, and who."""
    for second in range(1, int(seconds) + 1):
        late = dog.overdue(start + second)
        if late:
            return start + second, late
    return start + seconds, {}


def test_a_trial_that_reports_is_never_given_up_and_one_that_does_not_is_told_once() -> None:
    dog = Watchdog(10.0)
    dog.overdue(0.0)
    dog.began("busy", "a")
    dog.began("hung", "a")
    for second in range(1, 11):
        dog.heard("busy", 1.0)
        assert dog.overdue(second) == {}
    assert dog.overdue(11.0) == {"hung": "hung: its worker reported nothing for 11 s and was ended"}
    assert _wait(dog, 8.0, 11.0)[1] == {}  # it is not told again, and `busy` has its ten seconds


def test_one_that_begins_again_or_has_ended_is_counted_from_then() -> None:
    dog = Watchdog(10.0)
    dog.overdue(0.0)
    dog.began("again", "a")
    dog.began("over", "a")
    _wait(dog, 8.0)
    dog.began("again", "a")
    dog.ended("over")
    when, late = _wait(dog, 60.0, 8.0)
    assert (when, list(late)) == (19.0, ["again"])


@pytest.mark.parametrize(
    ("longest", "expected"),
    [(1.0, FLOOR_S), (FLOOR_S / FACTOR, FLOOR_S), (600.0, FACTOR * 600.0), (None, UNKNOWN_S)],
)
def test_auto_is_a_multiple_of_the_longest_report_with_a_floor(
    longest: float | None, expected: float
) -> None:
    dog = Watchdog("auto")
    dog.began("t", "a")
    if longest is not None:
        dog.heard("t", longest)
        dog.heard("t", longest / 2)
    assert dog.patience_s("a") == expected
    assert dog.patience_s("another") == UNKNOWN_S


def test_auto_knows_what_a_pass_takes_from_the_speed_that_was_measured(tmp_path: Path) -> None:
    data = TrainingData(Path("p"), np.zeros(90_000, np.int64), ("x", "y"), (), "f", {}, tmp_path)
    manifest: dict[str, Any] = {}
    dog = watchdog_for("auto", data, lambda: manifest)
    dog.began("t", "a")
    assert dog.patience_s("a") == UNKNOWN_S
    manifest["numerics"] = {"a": {"images_per_s": {"fp32": 100.0, "bf16": 200.0}}}
    dog.began("t", "a")
    assert dog.patience_s("a") == FACTOR * 450.0


def test_while_the_driver_itself_stood_still_nobody_was_silent() -> None:
    dog = Watchdog(30.0)
    dog.overdue(0.0)
    dog.began("t", "a")
    assert dog.overdue(3600.0) == {}
    assert dog.overdue(3600.0 + LOOK_S) == {}
    assert dog.overdue(3600.0 + 3 * LOOK_S) == {}  # a late look counts as one
    assert list(dog.overdue(3600.0 + 4 * LOOK_S)) == ["t"]


def _until(standstill: Standstill, total: Mapping[str, float], free: Mapping[str, float]) -> tuple[int, str]:
    for second in range(int(3 * FLOOR_S)):
        problem = standstill.problem(float(second), False, lambda: (total, free))
        if problem:
            return second, problem
    return -1, ""


def test_without_a_node_that_could_run_a_trial_the_sweep_ends() -> None:
    when, problem = _until(Standstill(2, 1), {"CPU": 4.0}, {"CPU": 4.0})
    assert when == NO_NODE_S
    assert problem == (
        "Ray: no node is left that can run a trial, for 5 min 00 s: one wants 2 CPUs and 1 GPUs, all nodes together "
        "have 4 CPUs and 0 GPUs; start nodes, and run the same command again to go on"
    )


def test_workers_that_do_not_start_though_there_is_room_end_it_too_and_a_queue_does_not() -> None:
    when, problem = _until(Standstill(1, 0), {"CPU": 4.0}, {"CPU": 1.0})
    assert when == FLOOR_S
    assert problem.startswith("Ray: no worker has started for 30 min 00 s, though 1 CPUs and 0 GPUs are free")
    assert _until(Standstill(1, 0), {"CPU": 4.0}, {}) == (-1, "")


def test_a_standstill_is_counted_from_the_last_trial_that_ran() -> None:
    standstill = Standstill(1, 0)
    none: Any = lambda: ({}, {})  # noqa: E731
    for second in range(int(NO_NODE_S) - 1):
        assert standstill.problem(float(second), False, none) == ""
    assert standstill.problem(NO_NODE_S, True, none) == ""
    assert standstill.problem(NO_NODE_S + LOOK_S, False, none) == ""


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("", "its worker died"),
        (
            "Failure # 1 (occurred at 1)\nKilled\nFailure # 2 (occurred at 2)\n  File x\nOSError: [Errno 5] broken",
            "OSError: [Errno 5] broken",
        ),
        *(
            (f"Failure # 1 (occurred at 1)\ntrace\n{words}", f"out of memory: {words}")
            for words in (
                "MemoryError: 8 GiB",
                "MemoryError",
                "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 2.00 GiB",
                "RuntimeError: [enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate",
                "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
                "RuntimeError: CUDA error: out of memory",
                "pyarrow.lib.ArrowMemoryError: malloc of size 64 failed",
                "RuntimeError: std::bad_alloc",
            )
        ),
        ("trace\nValueError: no MemoryError: here", "ValueError: no MemoryError: here"),
        (
            "The actor died.\n\tip: 1.2.3.4\nThe actor is dead because its node has died. Node Id: 5",
            "its node was lost",
        ),
        ("x" * 1000, "x" * 297 + "..."),
    ],
)
def test_ray_says_much_and_we_the_cause(said: str, expected: str) -> None:
    assert cause_of(said) == expected


BASE = "name: n\ndata: {source: digits}\nbackbones: [test_resnet]\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("{}", "auto"), ("{stalled_after: auto}", "auto"), ("{stalled_after: 45m}", 2700.0), ("auto", "auto")],
)
def test_the_config_says_how_long(text: str, expected: Any) -> None:
    assert Config.parse(f"{BASE}resources: {text}\n", Path("c.yaml")).resources.stalled_after == expected


@pytest.mark.parametrize("value", ["0", "-5", "soon", "[1]", ".nan"])
def test_a_time_that_is_none_is_refused_by_name(value: str) -> None:
    with pytest.raises(ConfigError, match=r"c.yaml:4 resources.stalled_after"):
        Config.parse(f"{BASE}resources: {{stalled_after: {value}}}\n", Path("c.yaml"))
