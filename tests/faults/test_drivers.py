"""Two drivers on one run: one works, the other is refused by name and changes nothing; who reads is never refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ensembler.errors import RunLockedError
from ensembler.saving import forget_ensemble, save_ensemble
from ensembler.store import RunStore

#: A driver of another process; the line that it prints says that it has the run.
HOLD = """
import sys, time
from ensembler.store import RunStore
with RunStore(sys.argv[1]).lock():
    print("held", flush=True)
    time.sleep(300)
"""


#: A finished run; its images are not there.
FINISHED = Path(__file__).parent / "run_version_1"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FINISHED, tmp_path / "run"))


@pytest.fixture
def driver(run: Path) -> Iterator[subprocess.Popen[str]]:
    with _driving(run) as process:
        yield process


@contextmanager
def _driving(run: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _ensembler(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ensembler", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def _tree(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("verb", ["run", "sweep", "combine", "compare"])
def test_a_verb_that_writes_is_refused_beside_a_driver(
    verb: str, run: Path, driver: subprocess.Popen[str]
) -> None:
    before = _tree(run)
    arguments = (verb, run / "config.yaml", "-o", run) if verb in ("run", "sweep") else (verb, run)
    done = _ensembler(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {run}: already being worked on by process {driver.pid} on ")
    assert line.endswith("; wait, or stop it first")
    assert _tree(run) == before


@pytest.mark.parametrize(
    "change", [lambda s: save_ensemble(s, "mine", {"combiner": "mean"}), lambda s: forget_ensemble(s, "mine")]
)
def test_what_the_app_s_lab_does_is_refused_beside_a_driver(
    change: Callable[[RunStore], Any], run: Path, driver: subprocess.Popen[str]
) -> None:
    before = _tree(run)
    with pytest.raises(RunLockedError, match=f"process {driver.pid} "):
        change(RunStore(run))
    assert _tree(run) == before


def test_who_reads_is_not_refused_beside_a_driver(run: Path, driver: subprocess.Popen[str]) -> None:
    (
        run / "leaderboard.parquet"
    ).unlink()  # what it is made from is there: it is not for a reader to write it
    before = _tree(run)
    done = _ensembler("leaderboard", run)
    assert done.returncode == 0, done.stderr[-3000:]
    assert _tree(run) == before
    assert driver.poll() is None


def test_a_bundle_is_exported_beside_a_driver(finished_run: Any, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished_run.run, tmp_path / "run"))
    with _driving(run):
        before = _tree(run)
        done = _ensembler("export", run, "--format", "torch", "-o", tmp_path / "out")
        assert done.returncode == 0, done.stderr[-3000:]
        assert _tree(run) == before


def test_the_lock_of_a_dead_driver_is_nobody_s(run: Path, driver: subprocess.Popen[str]) -> None:
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert json.loads((run / ".driver.json").read_text())["pid"] == driver.pid  # its note is still there
    done = _ensembler("compare", run)
    assert done.returncode == 0, done.stderr
    assert not (run / ".driver.json").exists()


def test_of_two_drivers_that_start_at_once_one_fills_the_run(run: Path) -> None:
    """As often as they try: each is told that it has the run, or that the other has."""
    program = HOLD.replace("time.sleep(300)", "time.sleep(2)")
    for _ in range(3):
        both = [
            subprocess.Popen(
                [sys.executable, "-c", program, str(run)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        said = [process.communicate(timeout=120) for process in both]
        held = [out for out, _ in said if out == "held\n"]
        refused = [error for _, error in said if "RunLockedError" in error]
        assert len(held) + len(refused) == 2
        assert held


def test_what_a_driver_was_replacing_when_it_died_is_put_back(run: Path) -> None:
    """Killed between its two renames, a writer has moved the old ensemble away, and the new one is not there yet."""
    program = """
import os, signal, sys
from pathlib import Path
from ensembler.comparison import combine
from ensembler.store import RunStore
real = Path.rename
def rename(self, target):
    if Path(target).name == "mean":
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, target)
Path.rename = rename
with RunStore(sys.argv[1]).lock():
    combine(RunStore(sys.argv[1]))
"""
    before = _tree(run / "ensembles" / "mean")
    killed = subprocess.run([sys.executable, "-c", program, str(run)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (run / "ensembles" / "mean").exists()
    with RunStore(run).lock():
        assert _tree(run / "ensembles" / "mean") == before
        assert not list(run.rglob(".tmp-*"))
