"""Killed at any moment, a run goes on: finished Cells stay untouched, and the results are those of a quiet run.

The quiet run is the session's finished one; the killed runs use a copy of its config and images.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from ensembler.store import RunStore

#: How long a moment may be waited for.
PATIENCE_S = 120.0


class Driver:
    """`ensembler run` in a process group of its own, with every process that it starts remembered."""

    def __init__(self, config: Path, run: Path) -> None:
        self.run = run
        self.log = (run.parent / "driver.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ensembler", "run", str(config), "-o", str(run)],
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )
        self.seen: dict[int, psutil.Process] = {}

    def look(self) -> list[psutil.Process]:
        try:
            found = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        self.seen.update({p.pid: p for p in found})
        return found

    def until(self, moment: Callable[[], bool], pause: float = 0.005) -> None:
        """Waits for a moment; the driver must not end before it."""
        deadline = time.monotonic() + PATIENCE_S
        while not moment():
            assert self.process.poll() is None, (self.run.parent / "driver.log").read_text()[-3000:]
            assert time.monotonic() < deadline, "the moment never came"
            if len(self.seen) < 8:
                self.look()
            time.sleep(pause)

    def kill(self) -> None:
        self.look()
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def finish(self) -> None:
        assert self.process.wait(PATIENCE_S) == 0, (self.run.parent / "driver.log").read_text()[-3000:]

    def orphans(self) -> list[str]:
        """Names of this driver's processes that still live."""
        return [_name(p) for p in self.seen.values() if _alive(p)]

    def close(self) -> None:
        for process in self.seen.values():
            if _alive(process):
                process.kill()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def start(finished_run: Any, tmp_path: Path) -> Iterator[Callable[[], Driver]]:
    """Starts the run of a copy of the config and the images, again and again in the same folder."""
    for name in ("images", "weights.safetensors", "small.yaml"):
        source = finished_run.home / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, tmp_path / name)
    drivers: list[Driver] = []

    def begin() -> Driver:
        drivers.append(Driver(tmp_path / "small.yaml", tmp_path / "run"))
        return drivers[-1]

    yield begin
    for driver in drivers:
        driver.close()


def _cells(run: Path) -> dict[Path, tuple[int, int]]:
    """Inode and time of every file of every finished Cell."""
    return {
        file: (file.stat().st_ino, file.stat().st_mtime_ns)
        for file in (run / "cells").glob("*/[0-9]*/*")
        if (file.parent / "result.json").exists()
    }


def _assert_same_results(run: Path, quiet: Path) -> None:
    cells = {p.relative_to(quiet) for p in quiet.glob("cells/*/*/proba.npy")}
    assert {p.relative_to(run) for p in run.glob("cells/*/*/proba.npy")} == cells
    for cell in cells:
        np.testing.assert_array_equal(np.load(run / cell), np.load(quiet / cell), err_msg=str(cell))
        assert (run / cell.parent / "model.safetensors").read_bytes() == (
            quiet / cell.parent / "model.safetensors"
        ).read_bytes()
    keys = ("name", "cv", "cv_low", "cv_high", "p_value", "fold_scores", "optimism", "test", "members")
    board, expected = RunStore(run).leaderboard(), RunStore(quiet).leaderboard()
    assert board is not None
    assert expected is not None
    assert [{k: row[k] for k in keys} for row in board] == [{k: row[k] for k in keys} for row in expected]
    assert not list(run.rglob(".tmp-*"))


def _events(run: Path) -> list[dict[str, Any]]:
    return RunStore(run).events()


def _in_stage(run: Path, stage: str, **wanted: Any) -> bool:
    wanted = {"stage": stage, **wanted}
    return any(wanted.items() <= event.items() for event in _events(run))


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "during the search": lambda run: any(
        e["kind"] == "epoch" and e["stage"] == "search" for e in _events(run)
    ),
    "in the middle of a commit": lambda run: any(run.glob("cells/*/.tmp-*")),
    "between two cells": lambda run: len(list(run.glob("cells/*/*/result.json"))) >= 3,
    "in cross-validation": lambda run: _in_stage(run, "crossval", kind="trial", state="started"),
    "while combining": lambda run: _in_stage(run, "combine", state="running"),
}


#: Ray's own agents look for their node once a minute.
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


def _wait_for_the_end_of(driver: Driver, seconds: float = 60.0, but: tuple[str, ...] = AGENTS) -> None:
    """Ray's processes end by themselves when their driver is gone."""

    def left() -> list[str]:
        return [name for name in driver.orphans() if not name.startswith(but or ("nothing",))]

    deadline = time.monotonic() + seconds
    while left() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left() == []


def _kill_a_worker(driver: Driver, moment: Callable[[Path], bool]) -> None:
    victims: list[psutil.Process] = []

    def working() -> bool:
        if not moment(driver.run):
            return False
        victims[:] = [p for p in driver.look() if _name(p).startswith("ray::") and "Trainable" in _name(p)]
        return bool(victims)

    driver.until(working)
    victims[0].kill()


def test_killed_during_the_search_and_robbed_of_a_worker_later_a_run_comes_to_the_same_results(
    start: Callable[[], Driver], finished_run: Any
) -> None:
    driver = start()
    driver.until(lambda: MOMENTS["during the search"](driver.run))
    driver.kill()
    before = _cells(driver.run)
    assert before  # the probe was done
    second = start()
    _kill_a_worker(second, MOMENTS["in cross-validation"])
    second.finish()
    _wait_for_the_end_of(driver)
    assert second.orphans() == []
    after = _cells(driver.run)
    assert {file: after.get(file) for file in before} == before
    _assert_same_results(driver.run, finished_run.run)


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_of_the_search_is_replaced(
    start: Callable[[], Driver], finished_run: Any
) -> None:
    driver = start()
    _kill_a_worker(driver, MOMENTS["during the search"])
    driver.finish()
    assert driver.orphans() == []
    _assert_same_results(driver.run, finished_run.run)
    failed = {f["name"] for f in RunStore(finished_run.run).manifest()["failed"]}
    assert {f["name"] for f in RunStore(driver.run).manifest()["failed"]} == failed


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()[:1])
    except psutil.Error:
        return ""


@pytest.mark.slow
def test_an_interrupt_ends_the_run_with_130_and_the_next_one_goes_on(
    start: Callable[[], Driver], finished_run: Any
) -> None:
    driver = start()
    driver.until(lambda: MOMENTS["during the search"](driver.run))
    driver.look()
    os.kill(driver.process.pid, signal.SIGINT)
    assert driver.process.wait(60) == 130
    log = (driver.run.parent / "driver.log").read_text()
    assert log.rstrip().endswith("interrupted; run the same command again to go on")
    assert "Traceback" not in log
    assert not _in_stage(driver.run, "combine")
    _wait_for_the_end_of(driver)


@pytest.mark.slow
def test_killed_at_five_moments_in_turn_a_run_still_comes_to_the_same_results(
    start: Callable[[], Driver], finished_run: Any
) -> None:
    done: dict[Path, tuple[int, int]] = {}
    for moment, reached in MOMENTS.items():
        driver = start()
        if moment == "between two cells":
            have = len(list(driver.run.glob("cells/*/*/result.json")))
            driver.until(lambda d=driver, n=have: len(list(d.run.glob("cells/*/*/result.json"))) > n)  # type: ignore[misc]
        elif moment == "while combining":
            driver.until(lambda d=driver, r=reached: r(d.run))  # type: ignore[misc]
        else:
            # The stage may be over in this folder: then the next Cell that is started will do.
            count = len(_events(driver.run))
            driver.until(
                lambda d=driver, r=reached, n=count: (
                    (r(d.run) and len(_events(d.run)) > n + 1)  # type: ignore[misc]
                    or _in_stage_since(d.run, n, "combine")
                )
            )
        driver.kill()
        now = _cells(driver.run)
        assert {file: now.get(file) for file in done} == done, moment
        done = now
        _wait_for_the_end_of(driver)
    last = start()
    last.finish()
    _wait_for_the_end_of(driver, 120.0, but=())
    after = _cells(last.run)
    assert {file: after.get(file) for file in done} == done
    _assert_same_results(last.run, finished_run.run)


def _in_stage_since(run: Path, count: int, stage: str) -> bool:
    return any(e.get("stage") == stage for e in _events(run)[count:])


@pytest.mark.parametrize("moment", ["between the two renames", "after the rename", "before the rename"])
def test_a_commit_killed_at_any_step_is_whole_or_absent(moment: str, tmp_path: Path) -> None:
    """The process really dies there, without a chance to clean up."""
    program = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_store import CANDIDATES, FINGERPRINT, _result
from ensembler.store import RunStore

store, moment = RunStore(sys.argv[1]), sys.argv[2]
if moment == "between the two renames":
    store.commit_cell(_result(CANDIDATES[0], 0), "stale")
real, calls = Path.rename, []
def rename(self, target):
    calls.append(self)
    if moment == "before the rename" or (moment == "between the two renames" and len(calls) == 2):
        os.kill(os.getpid(), signal.SIGKILL)
    done = real(self, target)
    if moment == "after the rename":
        os.kill(os.getpid(), signal.SIGKILL)
    return done
Path.rename = rename
store.commit_cell(_result(CANDIDATES[0], 0), FINGERPRINT)
"""
    arguments = [str(tmp_path / "run"), moment, str(Path(__file__).parent.parent)]
    done = subprocess.run([sys.executable, "-c", program, *arguments], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    sys.path.insert(0, str(Path(__file__).parent.parent))
    try:
        from test_store import CANDIDATES, FINGERPRINT, _result
    finally:
        sys.path.pop(0)
    from ensembler.training.candidate import CellJob

    store = RunStore(tmp_path / "run")
    job = CellJob(CANDIDATES[0], 0)
    assert store.has_cell(job, FINGERPRINT) == (moment == "after the rename")
    with store.lock():
        assert not list(store.path.rglob(".tmp-*"))
    store.commit_cell(_result(CANDIDATES[0], 0), FINGERPRINT)
    np.testing.assert_array_equal(store.cell(CANDIDATES[0].id, 0).proba, _result(CANDIDATES[0], 0).proba)
    assert json.loads((store.cell(CANDIDATES[0].id, 0).path / "result.json").read_text())["fold"] == 0
