"""A run that can be killed: its folder, its driver, and what they noted.

What the processes do inside comes from `hooks/sitecustomize.py`, which Python loads in each of them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

HOOKS = Path(__file__).parent / "hooks"
ROOT = Path(__file__).parents[2]

#: How long a moment, or the end of a driver, may be waited for.
PATIENCE_S = float(os.environ.get("FAULTS_PATIENCE_S", "300"))

#: A tiny run with every stage that writes: two backbones, one with weights, so that there is a probe; a search of
#: recipes that the seed decides; ensembles that keep arrays; a test split.
CONFIG = """
name: tiny
data: {source: images/train, test: images/test, image_size: 32}
folds: {k: 2, seed: 0, monitor: 0.2}
backbones:
  - test_resnet: {weights: weights.safetensors}
  - test_efficientnet: {weights: random}
recipe: {epochs: 5, batch_size: 8, flip: false, augment: 0.5}
search: {trials: 4, algorithm: random, scheduler: none}
keep: 3
ensembles: [mean, greedy, stacking]
resources: {cpus: %s, stalled_after: 10m}
"""


@dataclass(frozen=True)
class Home:
    """A folder with images, weights and a config.

    Attributes:
        path: the folder.
        config: the file.
    """

    path: Path
    config: Path

    @classmethod
    def make(cls, path: Path, cpus: int = 1, n: int = 60) -> Home:
        """Draws the images: noise around a colour that tells the class."""
        import torch
        from safetensors.numpy import save_file

        from ensembler.training.backbone import create, to_arrays

        for split, count in (("train", n), ("test", 18)):
            rng = np.random.default_rng(count)
            for i in range(count):
                name, colour = (("ant", (200, 60, 60)), ("bee", (60, 200, 60)), ("cow", (60, 60, 200)))[i % 3]
                pixels = np.clip(np.array(colour) + rng.normal(0, 60, (24, 24, 3)), 0, 255)
                folder = path / "images" / split / name
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:03d}.png")
        torch.manual_seed(0)
        save_file(to_arrays(create("test_resnet", 5).state_dict()), path / "weights.safetensors")
        (path / "tiny.yaml").write_text(CONFIG % cpus)
        return cls(path, path / "tiny.yaml")


@dataclass
class Session:
    """One life of a driver: its folder of plans and traces.

    Attributes:
        path: the folder, new and empty.
        driver_plan: stage and step of a write before which the driver kills itself; None lives.
        worker_plans: steps before which workers kill themselves, one each.
    """

    path: Path
    driver_plan: tuple[str, int] | None = None
    worker_plans: tuple[int, ...] = ()

    def prepare(self) -> None:
        self.path.mkdir(parents=True)
        if self.driver_plan is not None:
            stage, step = self.driver_plan
            (self.path / "driver.json").write_text(json.dumps({"stage": stage, "step": step}))
        for i, step in enumerate(self.worker_plans):
            (self.path / f"worker-{i:03d}.json").write_text(json.dumps({"step": step}))

    def has_worker_plans(self) -> bool:
        """Whether no worker has come to its first write yet that some death is left for."""
        return any(self.path.glob("worker-*.json"))

    def trace(self) -> list[dict[str, Any]]:
        """Trials taken and epochs begun, in their order; a line that a kill cut short is left out."""
        file = self.path / "trace.jsonl"
        lines = file.read_bytes().split(b"\n") if file.exists() else []
        return [json.loads(line) for line in lines if line.endswith(b"}")]

    def deaths(self) -> list[dict[str, Any]]:
        """What died in the middle of a write, as it noted itself before."""
        notes = []
        for file in sorted(self.path.glob("death-*")):
            with suppress(ValueError):
                notes.append(json.loads(file.read_text()))
        return notes

    def note_death(self, trial: str, pid: int) -> bool:
        """Before a worker is killed from outside; False if its trial would be given up."""
        name = f"death-{trial.replace('/', '-')}."
        if len(list(self.path.glob(f"{name}*"))) >= 2:
            return False
        (self.path / f"{name}{pid}").touch()
        return True


@dataclass
class Driver:
    """`ensembler run` in a process group of its own, with every process that it starts remembered.

    Attributes:
        home: config and images.
        run: the run directory.
        session: of this driver.
        environment: beside that of this process.
        humble: at the lowest priority, with all that it starts.
    """

    home: Home
    run: Path
    session: Session
    environment: dict[str, str] = field(default_factory=dict)
    humble: bool = False

    def __post_init__(self) -> None:
        self.session.prepare()
        self.output = self.session.path / "output"
        hooks = os.pathsep.join([str(HOOKS), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {
            **os.environ,
            "ENSEMBLER_CACHE": str(self.home.path / "cache"),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": hooks,
            "FAULTS": str(self.session.path),
            "FAULTS_RUN": str(self.run),
            **self.environment,
        }
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in what a shell starts in the background
            signal.signal(signal.SIGINT, signal.default_int_handler)
        with self.output.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ensembler", "run", str(self.home.config), "-o", str(self.run)],
                stdout=log,
                stderr=log,
                process_group=0,
                cwd=ROOT,
                env=environment,
            )
        self.began = time.monotonic()
        self.seen: dict[int, psutil.Process] = {}

    # ------------------------------------------------------------------ looking

    def look(self) -> list[psutil.Process]:
        """The processes that it has started, alive."""
        try:
            found = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        for process in found:
            if process.pid not in self.seen and self.humble:
                humble(process.pid)
        self.seen.update({p.pid: p for p in found})
        return found

    def workers(self) -> list[psutil.Process]:
        """Those that train."""
        return [p for p in self.look() if name_of(p).startswith("ray::") and "Trainable" in name_of(p)]

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def said(self) -> str:
        """The end of what it has printed."""
        return self.output.read_text(errors="replace")[-3000:]

    def until(self, moment: Callable[[], bool], pause: float = 0.1) -> bool:
        """Waits for a moment; False if the driver ends before it."""
        deadline = time.monotonic() + PATIENCE_S
        looked = 0.0
        while not moment():
            if not self.alive:
                return False
            if time.monotonic() > deadline:
                raise AssertionError(f"the moment never came: {self.said}")
            if time.monotonic() - looked > 0.3:
                self.look()
                looked = time.monotonic()
            time.sleep(pause)
        return True

    # ------------------------------------------------------------------ ending it

    def kill(self) -> bool:
        """SIGKILL; False if it had ended by itself."""
        self.look()
        alive = self.alive
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)
        return self.process.wait() == -signal.SIGKILL and alive

    def kill_a_worker(self, random: Any) -> str | None:
        """SIGKILL to a worker that trains; its trial, or None if none could be killed."""
        workers = self.workers()
        random.shuffle(workers)
        at_work = {line["pid"]: line["trial"] for line in self.session.trace() if line["what"] == "begin"}
        for worker in workers:
            trial = at_work.get(worker.pid)
            if trial and self.session.note_death(trial, worker.pid):
                with suppress(psutil.NoSuchProcess):
                    worker.kill()
                    return trial
        return None

    def wait(self, seconds: float = PATIENCE_S) -> int:
        """The exit code."""
        deadline = time.monotonic() + seconds
        while self.alive:
            if time.monotonic() > deadline:
                raise AssertionError(f"the driver never ended: {self.said}")
            self.look()
            time.sleep(0.2)
        return int(self.process.returncode)

    def orphans(self, but: tuple[str, ...] = ()) -> list[str]:
        """Names of this driver's processes that still live."""
        names = [name_of(p) for p in self.seen.values() if is_alive(p)]
        return [name for name in names if not but or not name.startswith(but)]

    def wait_for_orphans(self, seconds: float = 120.0, but: tuple[str, ...] = ()) -> list[str]:
        """Ray's processes end by themselves when their driver is gone; those that have not."""
        deadline = time.monotonic() + seconds
        while self.orphans(but) and time.monotonic() < deadline:
            time.sleep(0.2)
        return self.orphans(but)

    def close(self) -> None:
        """Ends whatever is left."""
        self.look()
        if self.alive:
            self.process.kill()
            self.process.wait()
        for process in self.seen.values():
            with suppress(psutil.Error):
                process.kill()


def name_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()[:1])
    except psutil.Error:
        return ""


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def humble(pid: int | str) -> None:
    """Lowest priority for a process's whole session, where the system groups by sessions."""
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text("19")


def wait_for_a_turn(pause: Path | None, is_humble: bool, share: float = 0.1) -> None:
    """Waits while a file says so and, for who is humble, while others leave less than a share of a core."""
    while (pause is not None and pause.exists()) or (is_humble and _share_of_a_core() < share):
        time.sleep(5)


def _share_of_a_core(seconds: float = 0.5) -> float:
    wall, work = time.monotonic(), time.thread_time()
    while time.monotonic() - wall < seconds:
        pass
    return (time.thread_time() - work) / (time.monotonic() - wall)


def forget(run: Path) -> None:
    """Deletes a run's folder."""
    shutil.rmtree(run, ignore_errors=True)
