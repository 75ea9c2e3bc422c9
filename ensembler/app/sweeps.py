"""Sweeps as processes: found, started, stopped and resumed.

Which sweeps run is read off the runs themselves: a driver holds the lock of its run and has left its process id
beside it. So another tab, or an app that was started again, sees the same and can stop them, and so it is with sweeps
that were started on a command line.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import streamlit as st

from ..atomic import listed
from ..cells import read_if_there
from ..config import Config
from ..config_settings import NAME
from ..errors import ConfigError, StoreError
from ..store import RunStore
from . import jobs
from .jobs import Job

#: Within the folder of runs: what each sweep said, and configs that were written on the page. Hidden: it is no run.
FOLDER = ".launch"

#: Seconds that a sweep has to end by itself, as after Ctrl-C, before it is told more firmly.
GRACE_S = 20.0

#: The last of the stages.
LAST_STAGE = "test"

#: Bytes at the end of a run's events among which its last stage is looked for.
TAIL = 1 << 16

State = Literal["starting", "running", "stopping", "elsewhere", "stopped", "failed", "finished"]


@dataclass(frozen=True)
class Driver:
    """The process that works on a run.

    Attributes:
        pid: its process id.
        since: when it took the run.
        host: the machine that it runs on.
    """

    pid: int
    since: str
    host: str

    @property
    def here(self) -> bool:
        """Whether it runs on this machine, where it can be told to stop."""
        return self.host == socket.gethostname()


@dataclass(frozen=True)
class Sweep:
    """How a run stands.

    Attributes:
        store: the run.
        state: "starting" has not taken the run yet; "elsewhere" runs on another machine.
        reason: of a failure.
        since: when its driver took it.
        host: the machine of that driver.
    """

    store: RunStore
    state: State
    reason: str = ""
    since: str = ""
    host: str = ""

    @property
    def live(self) -> bool:
        """Whether a process is at it."""
        return self.state in ("starting", "running", "stopping", "elsewhere")

    @property
    def resumable(self) -> bool:
        """Whether it can go on: it is not at its end, and knows its config."""
        return self.state in ("stopped", "failed") and (self.store.path / "config.yaml").is_file()


# ---------------------------------------------------------------------- look


def find(folder: Path) -> list[Sweep]:
    """Every sweep right below a folder, those that run first, else by name."""
    paths = set(jobs.below(folder))
    paths |= {p for p in listed(folder) if p.name[0] != "." and _is_sweep(p)}
    found = [look(RunStore(path)) for path in paths]
    return sorted(found, key=lambda sweep: (not sweep.live, sweep.store.name))


def look(store: RunStore) -> Sweep:
    """How one run stands."""
    at_it = driver(store)
    if at_it is not None and not at_it.here:
        return Sweep(store, "elsewhere", since=at_it.since, host=at_it.host)
    job = jobs.find(store.path)
    if at_it is not None or (job is not None and job.running):
        asked = (store.path, at_it.pid if at_it else _pid(job)) in _asked()
        state: State = "stopping" if asked else "running" if at_it else "starting"
        return Sweep(store, state, since=at_it.since if at_it else "")
    state, reason = _ended(_last_stage(store), store)
    if job is not None and not job.ok and state != "finished":
        said = job.said().splitlines()
        told = next((line for line in reversed(said) if line.startswith("error:")), "")
        if told:
            return Sweep(store, "failed", told.removeprefix("error:").strip())
        if not store.exists() and state != "failed":
            return Sweep(store, "stopped", reason)
    return Sweep(store, state, reason)


def driver(store: RunStore) -> Driver | None:
    """The process that works on a run now; None where there is none.

    A process that died leaves its note behind, and its id may belong to another by now: so the lock has to be held as
    well. It is only tried where the noted process lives, because trying would be in the way of a driver that starts.
    """
    note = read_if_there(store.path / ".driver.json")
    pid, host = note.get("pid"), note.get("host")
    if not isinstance(pid, int) or pid <= 1 or not isinstance(host, str):
        return None
    found = Driver(pid, str(note.get("since", "")), host)
    if found.here and not _alive(pid):
        return None
    return found if _held(store.path / ".lock") else None


def log_file(store: RunStore) -> Path:
    """What the sweeps of a run said that were started here."""
    return store.path.parent / FOLDER / f"{store.name}.log"


def last_words(store: RunStore, most: int = 3000) -> str:
    """The end of that; empty where there is none."""
    with contextlib.suppress(OSError), log_file(store).open("rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - most))
        return stream.read(most).decode(errors="replace").strip()
    return ""


# ---------------------------------------------------------------------- start, stop, resume


def new_run(folder: Path, name: str) -> RunStore:
    """The run of that name, which is still to be made.

    Raises:
        ConfigError: the name could lead out of the folder, or there is something of that name.
    """
    if not re.fullmatch(NAME, name):
        raise ConfigError(
            f"name of the run: {name!r}; expected letters, digits, '.', '_' and '-', the first a letter or a digit"
        )
    store = RunStore(folder / name)
    if os.path.lexists(folder / name) or _busy(store):
        raise ConfigError(
            f"name of the run: {name!r} is taken in {folder}; choose another, or resume that run"
        )
    return store


def free_name(folder: Path, name: str) -> str:
    """The name, with a number where it is taken already."""
    names = (name if n == 1 else f"{name}-{n}" for n in range(1, 10_000))
    return next((one for one in names if not os.path.lexists(folder / one)), name)


def command(config: Path, run: Path) -> list[str]:
    """The sweep as it would be typed; a path never begins with a dash, because it is absolute."""
    return [sys.executable, "-m", "ensembler", "run", str(config.resolve()), "-o", str(run.resolve())]


def start(store: RunStore, config: Path) -> Job:
    """Starts a sweep, or lets go on the one that fills this run.

    Raises:
        StoreError: it runs already, or nothing can be written there.
    """
    if _busy(store):
        raise StoreError(f"{store.path}: runs already; wait, or stop it first")
    log = log_file(store)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return jobs.start(store.path, command(config, store.path), log=log)
    except OSError as error:
        raise StoreError(
            f"{log}: cannot be written: {error.strerror or error}; open the app on another folder of runs"
        ) from error


def write_config(store: RunStore, config: Config) -> Path:
    """Keeps a config that lies in no file, beside the runs; what it names stays where it is.

    Raises:
        StoreError: nothing can be written there.
    """
    home = RunStore(store.path.parent / FOLDER / store.name)
    home.write_config(config.resolved())
    return home.path / "config.yaml"


def resume(store: RunStore) -> Job:
    """Lets a run go on with its own config: what is finished is not trained again.

    Raises:
        StoreError: see `start`; or the run has no config.
    """
    config = store.path / "config.yaml"
    if not config.is_file():
        raise StoreError(f"{store.path}: has no config.yaml; start it anew under another name")
    return start(store, config)


def stop(store: RunStore) -> bool:
    """Tells a sweep to end, as Ctrl-C does; after `GRACE_S` it is told more firmly. False where none runs here.

    Finished trainings stay as they are, and the sweep can be resumed.
    """
    pid = _own_pid(store)
    if pid is None:
        return False
    _asked()[store.path, pid] = time.monotonic()
    _tell(pid, signal.SIGINT)
    insist = threading.Timer(GRACE_S, _insist, (store, pid))
    insist.daemon = True
    insist.start()
    return True


# ---------------------------------------------------------------------- pieces


def _is_sweep(path: Path) -> bool:
    """Runs made from bare predictions were never swept."""
    return any((path / name).is_file() for name in ("config.yaml", ".driver.json"))


def _busy(store: RunStore) -> bool:
    job = jobs.find(store.path)
    return driver(store) is not None or (job is not None and job.running)


def _own_pid(store: RunStore) -> int | None:
    """The process to tell: that which holds the run, else the one that we have just started."""
    at_it = driver(store)
    if at_it is not None:
        return at_it.pid if at_it.here else None
    job = jobs.find(store.path)
    return job.pid if job is not None and job.running else None


def _insist(store: RunStore, pid: int) -> None:
    if _own_pid(store) == pid:
        _tell(pid, signal.SIGTERM)


def _tell(pid: int, what: signal.Signals) -> None:
    """Signals the process group that a process leads, as a terminal does; else the process alone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, what)
        else:
            os.kill(pid, what)


@st.cache_resource(show_spinner=False)
def _asked() -> dict[tuple[Path, int], float]:
    """Processes that were told to end, by run, in any session of this server."""
    return {}


def _pid(job: Job | None) -> int:
    return job.pid if job is not None else 0


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, and alive
        return True
    return True


def _held(lock: Path) -> bool:
    """Whether a driver holds the lock; nothing changes, and what is opened here is opened for reading."""
    try:
        handle = os.open(lock, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def _ended(stage: dict[str, Any], store: RunStore) -> tuple[State, str]:
    """How a run that nobody works on stands, by its last stage."""
    reason = str(stage.get("reason", ""))
    if stage.get("state") == "failed":
        by_hand = reason.startswith(("KeyboardInterrupt", "SystemExit"))
        return ("stopped", "") if by_hand else ("failed", reason)
    complete = LAST_STAGE in read_if_there(store.path / "manifest.json").get("stages", {})
    return ("finished" if complete and stage.get("state") != "running" else "stopped"), ""


def _last_stage(store: RunStore) -> dict[str, Any]:
    """The last event of a stage; "running" where it is too far back, as only in a run whose end was cut off."""
    file = store.path / "events.jsonl"
    try:
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            stream.seek(max(0, size - TAIL))
            lines = stream.read(TAIL).split(b"\n")
    except OSError:
        return {}
    for line in reversed(lines):
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict) and event.get("kind") == "stage":
                return event
    return {"state": "running"} if size > TAIL else {}
