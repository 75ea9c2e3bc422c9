"""Python loads this by itself in every process of a run under test, and with it what the harness needs to see and do.

Nothing of it is in the product. In the driver and in Ray's workers it

- writes a line into `trace.jsonl` for each trial that is taken, and each epoch that is begun;
- counts the steps of each write into the run directory: open, mkdir, fsync, rename, remove, and lines of the log;
- kills its own process with SIGKILL right before the step that the harness has planned, half of a line of the log
  written where that is the step.

`FAULTS` names the folder of the session, `FAULTS_RUN` the run directory. Plans: `driver.json` holds {"stage", "step"},
the step counted within the stage; `worker-*.json` holds {"step"}, counted by the worker that takes the file.
"""
# ruff: noqa: PTH104, PTH115, PTH123, PTH208
# Without pathlib: it is loaded before anything else, and runs within what pathlib calls.

import importlib.abc
import json
import os
import signal
import sys
import time

_SESSION, _RUN = os.environ.get("FAULTS", ""), os.environ.get("FAULTS_RUN", "")
_COMMAND = " ".join(getattr(sys, "orig_argv", []))
_ROLE = "worker" if "default_worker.py" in _COMMAND else "driver" if "-m ensembler run" in _COMMAND else ""

#: How often a trial may lose its worker in one session: Tune gives it up after two retries.
MOST_DEATHS = 2

_write, _fsync = os.write, os.fsync


class Session:
    """What this process does, and where it is to die."""

    def __init__(self) -> None:
        self.stage = "start"
        self.trial = ""
        self.steps = 0
        self.plan = self.read("driver.json") if _ROLE == "driver" else None
        self.passed = False
        self.busy = False  # with a step of its own making

    def read(self, name: str) -> dict | None:
        try:
            with open(f"{_SESSION}/{name}") as file:
                return json.load(file)
        except OSError:
            return None

    def trace(self, **what: object) -> None:
        line = json.dumps({"t": time.time(), "pid": os.getpid(), "role": _ROLE, "trial": self.trial, **what})
        handle = os.open(f"{_SESSION}/trace.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        _write(handle, line.encode() + b"\n")
        os.close(handle)

    def enter(self, stage: str) -> None:
        if stage != self.stage:
            self.passed |= bool(self.plan) and self.plan["stage"] == self.stage
            self.stage, self.steps = stage, 0

    def step(self, kind: str, path: str) -> bool:
        """Counts a step; whether it is the one to die before."""
        self.steps += 1
        if self.plan is None and _ROLE == "worker":
            self.plan = self.take()
        if self.plan is None:
            return False
        if _ROLE == "driver" and not self.passed and self.plan["stage"] != self.stage:
            return False
        due = self.passed or self.steps >= self.plan["step"]
        return due and (_ROLE == "driver" or (bool(self.trial) and self.may_die()))

    def take(self) -> dict | None:
        """A plan that no other worker has taken."""
        for name in sorted(os.listdir(_SESSION)):
            if name.startswith("worker-"):
                try:
                    os.rename(f"{_SESSION}/{name}", f"{_SESSION}/taken-{os.getpid()}.json")
                except OSError:
                    continue
                return self.read(f"taken-{os.getpid()}.json")
        return None

    def may_die(self) -> bool:
        name = self.trial.replace("/", "-")
        return sum(f.startswith(f"death-{name}.") for f in os.listdir(_SESSION)) < MOST_DEATHS

    def die(self, kind: str, path: str) -> None:
        """Notes where, and is no more."""
        note = {
            "role": _ROLE,
            "stage": self.stage,
            "trial": self.trial,
            "step": kind,
            "path": path[len(_RUN) + 1 :],
        }
        name = f"{_SESSION}/death-{self.trial.replace('/', '-')}.{os.getpid()}"
        handle = os.open(name, os.O_WRONLY | os.O_CREAT)
        _write(handle, json.dumps(note).encode())
        os.close(handle)
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)


_session = Session() if _SESSION and _ROLE else None
_STEPS = {
    "open": "open",
    "os.mkdir": "mkdir",
    "os.rename": "rename",
    "os.remove": "remove",
    "shutil.rmtree": "rmtree",
}


def _seen(kind: str, path: object) -> None:
    """A step of a write is about to happen."""
    if _session.busy or not isinstance(path, str) or not path.startswith(_RUN):
        return
    _session.busy = True
    try:
        if _session.step(kind, path):
            _session.die(kind, path)
    finally:
        _session.busy = False


def _audit(event: str, args: tuple) -> None:
    kind = _STEPS.get(event)
    if kind is None:
        return
    if kind == "open" and not (isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
        return
    path = args[0]
    _seen(kind, os.fspath(path) if isinstance(path, os.PathLike) else path)


def _tracked_fsync(handle: int) -> None:
    _seen("fsync", os.readlink(f"/proc/self/fd/{handle}"))
    _fsync(handle)


def _tracked_write(handle: int, data: bytes) -> int:
    """Only the log is written by `os.write`; a writer that dies there leaves half a line."""
    path = os.readlink(f"/proc/self/fd/{handle}") if _ROLE == "driver" else ""
    if path == f"{_RUN}/events.jsonl":
        event = json.loads(data)
        if event["kind"] in ("stage", "trial"):
            _session.enter(
                event["stage"] if event["kind"] == "trial" or event["stage"] != "sweep" else _session.stage
            )
        if not _session.busy and _session.step("line", path):
            _write(handle, data[: len(data) // 2])
            _session.die("line", path)
    return _write(handle, data)


# ---------------------------------------------------------------------- what a worker trains


def _trace_trials(module: object) -> None:
    begin = module.CellTrainable._begin

    def traced(self: object, config: dict) -> None:
        job = config.get("job")
        _session.trial = f"{module.Trial.from_config(config).job.candidate.id}/{job['fold']}" if job else ""
        _session.stage = config["stage"]
        if job and config["kind"] == "cell":
            _session.trace(what="begin", stage=config["stage"])
        begin(self, config)

    module.CellTrainable._begin = traced
    measure = module.measure_numerics

    def measured(*given: object) -> tuple:
        """Which arithmetic is fastest depends on the moment: it is measured, and the same is chosen."""
        choice, speeds = measure(*given)
        return type(choice)(), speeds

    module.measure_numerics = measured


def _trace_epochs(module: object) -> None:
    seed = module._seed

    def traced(job: object, *what: object) -> int:
        if what[0] == "epoch":
            _session.trace(what="epoch", epoch=what[1])
        return seed(job, *what)

    module._seed = traced


_PATCHES = {"ensembler.tuning.trainable": _trace_trials, "ensembler.training.loop": _trace_epochs}


class _Patching(importlib.abc.MetaPathFinder):
    """Lets a module be imported as always, then patches it."""

    def find_spec(self, name: str, path: object, target: object = None) -> object:
        if name not in _PATCHES:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                execute = spec.loader.exec_module

                def patched(module: object, execute: object = execute) -> None:
                    execute(module)
                    _PATCHES[name](module)

                spec.loader.exec_module = patched
                return spec
        return None


if _session is not None:
    os.fsync, os.write = _tracked_fsync, _tracked_write
    sys.addaudithook(_audit)
    if _ROLE == "worker":
        sys.meta_path.insert(0, _Patching())
