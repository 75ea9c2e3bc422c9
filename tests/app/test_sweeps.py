"""Sweeps as processes, with stand-ins that hold the lock as a driver does, and one real sweep."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ensembler.app import jobs, sweeps
from ensembler.config import Config
from ensembler.errors import ConfigError, StoreError
from ensembler.store import RunStore

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120

#: What `ensembler run` does as far as others see it: it takes the lock, writes, and ends when it is told to.
STAND_IN = """
import signal, sys, time
if sys.argv[1] == "ignores":
    signal.signal(signal.SIGINT, lambda *_: print("not now", flush=True))
from ensembler.store import RunStore
store = RunStore(sys.argv[2])
print("loading", flush=True)
with store.lock():
    store.write_config({"name": "x"})
    store.update_manifest(name="x", stages={})
    with store.stage("sweep"):
        while not (store.path / "enough").exists():
            time.sleep(0.02)
    with store.stage("test"):
        pass
"""


@pytest.fixture
def stand_in(monkeypatch):
    """In the place of `ensembler run`; whatever was started ends with the test."""
    started = []
    real = jobs.start

    def use(kind="obeys"):
        monkeypatch.setattr(
            sweeps, "command", lambda config, run: [sys.executable, "-c", STAND_IN, kind, str(run)]
        )

    def start(*args, **options):
        started.append(real(*args, **options))
        return started[-1]

    monkeypatch.setattr(jobs, "start", start)
    yield use
    for job in started:
        if job.running:
            os.kill(job.pid, signal.SIGKILL)
            job._process.wait()


def until(moment, what, patience=PATIENCE_S):
    end = time.monotonic() + patience
    while not moment():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.02)


def state(store):
    return sweeps.look(store).state


def running(store):
    """Whether it has come to its stage, so that what stops it finds it there."""
    return lambda: state(store) == "running" and (store.path / "events.jsonl").is_file()


def test_a_sweep_is_started_found_and_stopped_and_goes_on(tmp_path, stand_in):
    stand_in()
    store = sweeps.new_run(tmp_path, "one")
    job = sweeps.start(store, tmp_path / "c.yaml")
    assert state(store) == "starting"
    until(running(store), "running")
    assert sweeps.driver(store).pid == job.pid
    assert [(s.store.name, s.state) for s in sweeps.find(tmp_path)] == [("one", "running")]
    with pytest.raises(StoreError, match="runs already"):
        sweeps.start(store, tmp_path / "c.yaml")
    assert sweeps.stop(store)
    until(lambda: not job.running, "ended")
    found = sweeps.look(store)
    assert (found.state, found.reason, found.resumable) == ("stopped", "", True)
    again = sweeps.resume(store)
    until(running(store), "running again")
    (store.path / "enough").touch()
    until(lambda: not again.running, "finished")
    assert state(store) == "finished"
    assert again.ok
    assert not sweeps.look(store).resumable
    assert "loading" in sweeps.last_words(store)


def test_a_sweep_outlives_the_app_and_another_app_stops_it(tmp_path):
    """Two processes in the place of two servers of the app."""
    code = f"""
import sys, os
from ensembler.app import sweeps
from ensembler.store import RunStore
sweeps.command = lambda config, run: [sys.executable, "-c", {STAND_IN!r}, "obeys", str(run)]
job = sweeps.start(RunStore(sys.argv[1]), None)
print(job.pid, flush=True)
os._exit(0)
"""
    store = RunStore(tmp_path / "one")
    first = subprocess.run(
        [sys.executable, "-c", code, str(store.path)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    pid = int(first.stdout)
    try:
        until(running(store), "running, seen by an app that did not start it")
        assert sweeps.driver(store).pid == pid
        assert os.getsid(pid) == pid, (
            "a session of its own: Ctrl-C in the terminal of the app does not reach it"
        )
        assert sweeps.stop(store)
        until(lambda: not sweeps.look(store).live, "stopped")
        assert state(store) == "stopped"
    finally:
        if sweeps.driver(store):
            os.kill(pid, signal.SIGKILL)


class Later:
    """In the place of a timer: what it would do, and when, is noted; the test does it."""

    def __init__(self, seconds, function, args):
        self.seconds, self.fire = seconds, lambda: function(*args)
        self.started = False

    def start(self):
        self.started = True


def test_one_that_does_not_obey_is_told_more_firmly(tmp_path, stand_in, monkeypatch):
    timers = []
    monkeypatch.setattr(sweeps.threading, "Timer", lambda *args: timers.append(Later(*args)) or timers[-1])
    stand_in("ignores")
    store = sweeps.new_run(tmp_path, "one")
    job = sweeps.start(store, tmp_path / "c.yaml")
    until(running(store), "running")
    sweeps.stop(store)
    (timer,) = timers
    assert (timer.seconds, timer.started) == (sweeps.GRACE_S, True)
    until(lambda: "not now" in sweeps.last_words(store), "told")
    assert state(store) == "stopping"
    timer.fire()
    until(lambda: not job.running, "ended")
    assert job._process.returncode == -signal.SIGTERM
    assert state(store) == "stopped", "its last stage was never closed"


def test_one_that_is_killed_has_stopped_though_its_note_lies_there(tmp_path, stand_in):
    stand_in()
    store = sweeps.new_run(tmp_path, "one")
    job = sweeps.start(store, tmp_path / "c.yaml")
    until(running(store), "running")
    os.kill(job.pid, signal.SIGKILL)
    until(lambda: not job.running, "ended")
    assert (store.path / ".driver.json").exists()
    assert sweeps.driver(store) is None
    assert state(store) == "stopped"
    assert not sweeps.stop(store)


def test_a_process_that_has_taken_over_the_number_of_a_dead_driver_is_left_alone(tmp_path, monkeypatch):
    store = RunStore(tmp_path / "one")
    with store.lock():
        store.update_manifest(name="one")
        store.write_config({})
        note = (store.path / ".driver.json").read_text()
        assert sweeps.driver(store).pid == os.getpid()
    told = []
    monkeypatch.setattr(sweeps, "_tell", lambda *args: told.append(args))
    (store.path / ".driver.json").write_text(note)
    assert sweeps.driver(store) is None, "the process lives, but nobody holds the lock"
    assert not sweeps.stop(store)
    assert not told


@pytest.mark.parametrize(
    "note", ['{"pid": 1, "host": "HOST"}', '{"pid": "7", "host": "HOST"}', '{"pid": -5}', "[", "{}"]
)
def test_notes_that_no_driver_wrote_are_passed_over(tmp_path, note):
    import socket

    store = RunStore(tmp_path / "one")
    with store.lock():
        (store.path / ".driver.json").write_text(note.replace("HOST", socket.gethostname()))
        assert sweeps.driver(store) is None
        assert not sweeps.stop(store)
        store.update_manifest(name="one")


def test_one_on_another_machine_is_shown_and_not_touched(tmp_path):
    store = RunStore(tmp_path / "one")
    with store.lock():
        (store.path / ".driver.json").write_text(
            json.dumps({"pid": os.getpid(), "host": "elsewhere", "since": "noon"})
        )
        found = sweeps.look(store)
        assert (found.state, found.host, found.live) == ("elsewhere", "elsewhere", True)
        assert not sweeps.stop(store)
        store.update_manifest(name="one")


def test_looking_is_not_in_the_way_of_a_driver(tmp_path):
    """A lock that is looked at from inside and outside can be taken, and what looked holds nothing."""
    store = RunStore(tmp_path / "one")
    with store.lock():
        store.update_manifest(name="one")
        for _ in range(100):
            assert sweeps._held(store.path / ".lock")
    assert not sweeps._held(store.path / ".lock")
    with store.lock():
        pass


HOSTILE = ["..", ".", "", "../up", "a/b", "/etc", "a\0b", ".hidden", "-o", "a b", "é", "x" * 101, "a\n"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_never_leads_out_of_the_folder(tmp_path, name):
    with pytest.raises(ConfigError, match="name of the run"):
        sweeps.new_run(tmp_path, name)


def test_what_is_there_is_not_started_anew(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("old", "dangling"):
        with pytest.raises(ConfigError, match="is taken"):
            sweeps.new_run(tmp_path, name)
    assert sweeps.free_name(tmp_path, "old") == "old-2"
    assert sweeps.free_name(tmp_path, "new") == "new"
    assert sweeps.new_run(tmp_path, "old-2").path == tmp_path / "old-2"


def test_the_command_is_the_documented_one(tmp_path):
    from ensembler.arguments import parser

    words = sweeps.command(tmp_path / "c.yaml", tmp_path / "runs" / "one")
    assert words[:3] == [sys.executable, "-m", "ensembler"]
    parsed = parser().parse_args(words[3:])
    assert (parsed.config, parsed.run) == (tmp_path / "c.yaml", tmp_path / "runs" / "one")


def test_a_run_that_failed_says_why_and_can_go_on(tmp_path):
    store = RunStore(tmp_path / "one")
    store.write_config({"name": "x"})
    store.event("stage", stage="sweep", state="running")
    store.event("stage", stage="sweep", state="failed", reason="DataError: cat is empty")
    found = sweeps.look(store)
    assert (found.state, found.reason, found.resumable) == ("failed", "DataError: cat is empty", True)


def test_a_stage_that_lies_far_back_is_still_running_or_cut_off(tmp_path):
    store = RunStore(tmp_path / "one")
    store.write_config({"name": "x"})
    store.event("stage", stage="sweep", state="running")
    for _ in range(1000):
        store.event("epoch", filler="x" * 100)
    assert state(store) == "stopped"
    store.update_manifest(stages={"test": 1.0})
    assert state(store) == "stopped", "it was finished once, and stopped when it was started again"
    store.event("stage", stage="test", state="done")
    assert state(store) == "finished"


def test_runs_of_bare_predictions_are_no_sweeps(bare):
    assert sweeps.find(bare.path.parent) == []


def test_a_sweep_that_does_not_begin_says_why(tmp_path, monkeypatch, stand_in):
    stand_in()
    code = "import sys; sys.exit('some noise\\nerror: data: no such folder')"
    monkeypatch.setattr(sweeps, "command", lambda *_: [sys.executable, "-c", code])
    store = sweeps.new_run(tmp_path, "one")
    job = sweeps.start(store, tmp_path / "c.yaml")
    until(lambda: not job.running, "ended")
    found = sweeps.find(tmp_path)
    assert [(s.store.name, s.state, s.reason) for s in found] == [("one", "failed", "data: no such folder")]
    assert not found[0].resumable
    assert sweeps.new_run(tmp_path, "one"), "it can be started once the cause is mended"


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        sweeps.start(RunStore(tmp_path / "file" / "one"), tmp_path / "c.yaml")


def test_a_config_that_lies_in_no_file_is_kept_beside_the_runs(tmp_path):
    (tmp_path / "images").mkdir()
    config = Config.parse("{name: x, data: {source: images}, backbones: [a]}", tmp_path / "x.yaml")
    file = sweeps.write_config(RunStore(tmp_path / "runs" / "one"), config)
    assert Config.load(file).resolved() == config.resolved()
    assert Config.load(file).data.source == str(tmp_path / "images")
    assert sweeps.find(tmp_path / "runs") == []


TINY = """
name: tiny
data: {source: digits, image_size: 16}
folds: {k: 2}
backbones: [{test_resnet: {weights: random}}]
recipe: {flip: false, epochs: 1}
search: null
ensembles: [mean]
numerics: {precision: fp32, channels_last: true}
"""


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_a_real_sweep_is_stopped_resumed_and_finished(tmp_path):
    """The real command; what was finished when it was stopped is not trained again."""
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    store = sweeps.new_run(tmp_path / "runs", "tiny")
    job = sweeps.start(store, file)
    try:
        until(
            lambda: list(store.path.glob("cells/*/*/result.json")) or not job.running, "first training", 300
        )
        assert job.running, sweeps.last_words(store)
        sweeps.stop(store)
        until(lambda: not sweeps.look(store).live, "stopped")
        assert job._process.returncode in (130, -signal.SIGTERM), sweeps.last_words(store)
        cells = {f: f.stat().st_mtime_ns for f in store.path.glob("cells/*/*/result.json")}
        assert cells
        job = sweeps.resume(store)
        until(lambda: not job.running, "finished", 400)
    finally:
        if job.running:
            os.killpg(job.pid, signal.SIGKILL)
            job._process.wait()
    assert state(store) == "finished", sweeps.last_words(store)
    assert {f: f.stat().st_mtime_ns for f in cells} == cells
    assert store.leaderboard()
