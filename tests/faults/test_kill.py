"""Killed at any moment, a run goes on: finished Cells stay untouched, and the results are those of a quiet run.

The quiet run is the session's finished one; the killed runs use a copy of its config and images. `make faults` does the
same hundreds of times (`kills.py`).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensembler.cli import main
from ensembler.experiment import Experiment
from ensembler.store import RunStore
from tests.faults import kills, soak
from tests.faults.checks import (
    differences,
    finished_cells,
    repeated_epochs,
    retrained,
    touched,
    trials_of,
)
from tests.faults.harness import Driver, Home, Session
from tests.faults.kills_report import write
from tests.faults.lives import STAGES, plan_round
from tests.faults.reading import Watch, read_everything

Start = Callable[..., Driver]


@pytest.fixture
def start(finished_run: Any, tmp_path: Path) -> Iterator[Start]:
    """Starts the run of a copy of the config and the images, again and again in the same folder."""
    for name in ("images", "weights.safetensors", "small.yaml"):
        source = finished_run.home / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, tmp_path / name)
    home = Home(tmp_path, tmp_path / "small.yaml")
    drivers: list[Driver] = []

    def begin(driver_plan: tuple[str, int] | None = None, worker_plans: tuple[int, ...] = ()) -> Driver:
        session = Session(tmp_path / f"session-{len(drivers)}", driver_plan, worker_plans)
        drivers.append(Driver(home, tmp_path / "run", session))
        return drivers[-1]

    yield begin
    for driver in drivers:
        driver.close()


def _in_stage(run: Path, stage: str, **wanted: Any) -> bool:
    wanted = {"stage": stage, **wanted}
    return any(wanted.items() <= event.items() for event in RunStore(run).events())


# ---------------------------------------------------------------------- the short run


def test_driver_and_workers_killed_in_and_between_writes_a_run_comes_to_the_same_results(
    start: Start, finished_run: Any
) -> None:
    """Two lives: one that dies in the midst of a write of the search, one whose workers die."""
    with Watch(finished_run.home / "nowhere", every_s=1.0) as watch:
        first = start(driver_plan=("search", 4))
        watch.run_path = first.run
        assert first.wait() == -signal.SIGKILL
        assert [note["role"] for note in first.session.deaths()] == ["driver"]
        before = finished_cells(first.run)
        assert before  # the probe was done
        second = start(worker_plans=(9,))
        assert second.until(lambda: _in_stage(second.run, "crossval", kind="trial", state="started"))
        second.kill_a_worker(np.random.default_rng(0))
        assert second.wait() == 0, second.said
    deaths = [note["role"] for note in second.session.deaths()]
    assert "worker" in deaths
    assert watch.rounds > 3
    assert watch.torn == []
    assert touched(before, finished_cells(second.run)) == []
    traces = [first.session.trace(), second.session.trace()]
    assert retrained(trials_of(before), traces[1]) == []
    assert all(epochs <= 1 for _, epochs in repeated_epochs(traces))
    assert differences(second.run, finished_run.run) == []
    assert first.wait_for_orphans(but=kills.AGENTS) == []
    assert second.wait_for_orphans() == []


# ---------------------------------------------------------------------- gentler ends


@pytest.mark.parametrize("in_ray", [False, True])
def test_sigterm_ends_a_command_as_ctrl_c_does_and_is_as_it_was_afterwards(
    in_ray: bool, monkeypatch: pytest.MonkeyPatch, finished_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    cleaned: list[bool] = []

    def run(self: Experiment) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except SystemExit as error:
            raise SystemExit(1 if in_ray else error.code) from error  # as Ray does where it waits for workers
        finally:
            cleaned.append(True)

    monkeypatch.setattr(Experiment, "run", run)
    before = signal.getsignal(signal.SIGTERM)
    assert main(["run", str(finished_run.config)]) == 143
    assert cleaned
    assert signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().err == "terminated; run the same command again to go on\n"


def test_sigterm_while_ray_starts_ends_a_command_just_so(
    monkeypatch: pytest.MonkeyPatch, finished_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ray has a handler of its own there, which ends its processes and then ours, with 1."""
    import ray

    from ensembler.tuning.execute import ray_session

    def init(**_: Any) -> None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    def run(self: Experiment) -> None:
        with ray_session():
            pytest.fail("Ray was there")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(Experiment, "run", run)
    before = signal.getsignal(signal.SIGTERM)
    assert main(["run", str(finished_run.config)]) == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().err == "terminated; run the same command again to go on\n"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "times"), [(signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 1)])
def test_told_to_end_a_driver_says_how_to_go_on_and_leaves_no_process(
    number: signal.Signals, times: int, start: Start, finished_run: Any
) -> None:
    driver = start()
    assert driver.until(lambda: _in_stage(driver.run, "search", kind="epoch"))
    driver.look()
    for _ in range(times):
        os.killpg(driver.process.pid, number) if number == signal.SIGINT else driver.process.send_signal(
            number
        )
    assert driver.wait(60) == (130 if number == signal.SIGINT else 143)
    assert "Traceback" not in driver.said
    word = "interrupted" if number == signal.SIGINT else "terminated"
    assert driver.said.rstrip().endswith(f"{word}; run the same command again to go on")
    assert not _in_stage(driver.run, "combine")
    assert driver.wait_for_orphans(but=kills.AGENTS) == []
    second = start()
    assert second.wait() == 0, second.said
    assert all(e <= 1 for _, e in repeated_epochs([driver.session.trace(), second.session.trace()]))
    assert differences(second.run, finished_run.run) == []


# ---------------------------------------------------------------------- one commit


@pytest.mark.parametrize("moment", ["between the two renames", "after the rename", "before the rename"])
def test_a_commit_killed_at_any_step_is_whole_or_absent(moment: str, tmp_path: Path) -> None:
    """The process really dies there, without a chance to clean up."""
    program = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_store import CANDIDATES, FINGERPRINT, _result
from ensembler.cli import main
from ensembler.experiment import Experiment
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
    done = subprocess.run([sys.executable, "-c", program, *arguments], check=False, timeout=300)
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


# ---------------------------------------------------------------------- the campaign


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_round_of_the_campaign_finds_nothing_and_its_report_says_so(tmp_path: Path) -> None:
    assert kills.main([str(tmp_path), "--kills", "1"]) == 0
    told = json.loads((tmp_path / "kills.json").read_text())
    victims = Counter(k["victim"] for k in told["kills"] if k["signal"] == "KILL")
    assert min(victims["driver"], victims["worker"]) >= 5
    assert len(told["rounds"]) == 1
    write(tmp_path / "report.md", told, STAGES)
    report = (tmp_path / "report.md").read_text()
    assert "## Killed at any moment" in report
    assert "| finished Cells trained again | 0 |" in report


def test_more_workers_than_drivers_are_to_die_and_more_than_a_third_in_a_write() -> None:
    """More than have to: some of them are missed."""
    lives = [life for number in range(200) for life in plan_round(0, number)]
    drivers = [bool(life.step) for life in lives if life.step or life.signals == (signal.SIGKILL,)]
    workers = [bool(step) for life in lives for step in life.workers]
    assert 2.0 < len(workers) / len(drivers) < 2.5
    assert 0.33 < np.mean(drivers) < 0.4
    assert 0.6 < np.mean(workers) < 0.67
    assert {life.stage for life in lives} == {*STAGES, ""}
    assert plan_round(0, 3) == plan_round(0, 3) != plan_round(1, 3)


# ---------------------------------------------------------------------- the checks can fail


def _epoch(trial: str, pid: int, t: float, number: int) -> dict[str, Any]:
    return {"what": "epoch", "trial": trial, "pid": pid, "t": t, "epoch": number}


def test_epochs_that_an_interruption_cost_are_counted() -> None:
    first = [_epoch("a/0", 1, 1.0, 1), _epoch("a/0", 1, 2.0, 2), _epoch("b/0", 2, 2.5, 1)]
    assert repeated_epochs([first]) == []
    assert repeated_epochs([first, [_epoch("a/0", 3, 3.0, 3)]]) == [("a/0", 0)]
    assert repeated_epochs([first, [_epoch("a/0", 3, 3.0, 2), _epoch("a/0", 3, 4.0, 3)]]) == [("a/0", 1)]
    assert repeated_epochs([first, [_epoch("a/0", 3, 3.0, 1)]]) == [("a/0", 2)]
    within = [*first, _epoch("a/0", 3, 3.0, 1)]
    assert repeated_epochs([within]) == [("a/0", 2)]


def test_what_is_trained_again_or_touched_is_seen(finished_run: Any, tmp_path: Path) -> None:
    shutil.copytree(finished_run.run, tmp_path / "run")
    cells = finished_cells(tmp_path / "run")
    assert touched(cells, finished_cells(tmp_path / "run")) == []
    trial = sorted(trials_of(cells))[0]
    assert retrained(trials_of(cells), [{"what": "begin", "trial": "new/0"}]) == []
    assert retrained(trials_of(cells), [{"what": "begin", "trial": trial}]) == [trial]
    shutil.copytree(tmp_path / "run" / "cells" / trial, tmp_path / "copy")
    shutil.rmtree(tmp_path / "run" / "cells" / trial)
    (tmp_path / "copy").rename(tmp_path / "run" / "cells" / trial)
    assert len(touched(cells, finished_cells(tmp_path / "run"))) == 4


@pytest.mark.parametrize(
    "pattern",
    ["manifest.json", "leaderboard.parquet", "test.npz", "table.parquet", "search/*.json", "cells/*/*/*.safetensors",
     "cells/*/*/proba.npy", "cells/*/*/result.json", "cells/*/*/history.parquet", "ensembles/*/state.json",
     "ensembles/*/proba.npy"],
)  # fmt: skip
def test_a_torn_file_is_seen_and_a_missing_one_is_not_torn(
    pattern: str, finished_run: Any, tmp_path: Path
) -> None:
    shutil.copytree(finished_run.run, tmp_path / "run")
    assert list(read_everything(tmp_path / "run")) == []
    file = sorted((tmp_path / "run").glob(pattern))[0]
    os.truncate(file, file.stat().st_size // 2)
    assert len(list(read_everything(tmp_path / "run"))) >= 1
    file.unlink()
    assert list(read_everything(tmp_path / "run")) == []


def test_another_bit_anywhere_is_a_difference(finished_run: Any, tmp_path: Path) -> None:
    shutil.copytree(finished_run.run, tmp_path / "run")
    assert differences(tmp_path / "run", finished_run.run) == []
    (tmp_path / "run" / ".tmp-left").touch()
    proba = sorted((tmp_path / "run").glob("cells/*/0/proba.npy"))[0]
    values = np.load(proba)
    values[0, 0] = np.nextafter(values[0, 0], np.float32(2))
    np.save(proba, values)
    cell = proba.relative_to(tmp_path / "run")
    assert differences(tmp_path / "run", finished_run.run) == [str(cell), "left behind: .tmp-left"]


# ---------------------------------------------------------------------- the soak


@pytest.mark.slow
def test_a_short_soak_trains_every_cell_and_says_what_grew(tmp_path: Path) -> None:
    told = soak.soak(tmp_path, 40)
    assert told["cells"] == 41  # and the other fold of the one that is kept
    assert len(told["samples"]) > 5
    growth = soak.growths(told)
    assert growth["memory"].last > 50e6
    assert growth["files"].last > 10
    assert "| memory |" in soak.describe(told)


def test_a_slope_is_fitted_to_the_second_half_and_noise_is_told() -> None:
    rng = np.random.default_rng(0)
    cells = np.linspace(0, 2000, 400)
    flat = soak.Growth.of(cells, 200e6 + 1e6 * (cells < 500) + rng.normal(0, 1e5, 400))
    assert abs(flat.slope) < 3 * flat.error
    assert soak.is_flat("memory", flat, 2000)
    grows = soak.Growth.of(cells, 200e6 + 2048 * cells + rng.normal(0, 1e5, 400))
    assert grows.slope == pytest.approx(2048, abs=3 * grows.error)
    assert not soak.is_flat("memory", grows, 2000)
    leak = soak.Growth.of(cells, 50 + cells // 500)
    assert not soak.is_flat("files", leak, 2000)
