"""What a run's log tells, kept up to date: stages, trials, workers, and whether somebody still works on it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import streamlit as st

from ..duration import duration
from ..store import RunStore, understood

#: Samples of the load that are kept: an hour of them.
KEPT_SAMPLES = 720

#: Stages of a run after which it has a leaderboard.
_RANKED = frozenset({"combine", "compare", "test"})

#: How a stage ends that was stopped by hand.
_BY_HAND = ("KeyboardInterrupt", "SystemExit")

#: "new": nothing was logged yet. "stopped" is by hand, "failed" by an error, "interrupted" by whatever ended the
#: driver without a word. "paused" has done what it was asked for, which is less than a leaderboard.
State = Literal["new", "running", "stopped", "failed", "interrupted", "paused", "finished"]


@dataclass
class TrialStory:
    """One training, or what else a worker does in a sweep.

    Attributes:
        stage, number, candidate, backbone, fold: see `plan.Trial`.
        began, ended: times of the clock, in seconds; `ended` is None while it runs.
        epochs: that it may train; None where that is not known.
        until: epoch at which its rung ends; None where it has none.
        state: "running", "finished", "stopped", "failed", or "lost" with the process that ran it.
        score: its best so far.
        reason: why it failed.
        pid: of the worker, once it has reported an epoch.
        history: one entry an epoch.
    """

    stage: str
    number: int
    candidate: str
    backbone: str
    fold: int | None
    began: float
    epochs: int | None = None
    until: int | None = None
    ended: float | None = None
    state: str = "running"
    score: float | None = None
    reason: str = ""
    pid: int | None = None
    history: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """The last that was reported, 0 before the first."""
        return int(self.history[-1]["epoch"]) if self.history else 0

    @property
    def share(self) -> float:
        """How much of it is done, as far as that is known."""
        goal = self.until or self.epochs
        return min(1.0, self.epoch / goal) if goal else 0.0


@dataclass
class StageStory:
    """A stage of the run, or one of the sweep's own.

    Attributes:
        name: of it.
        began, ended: times of the clock, in seconds.
        state: "running", "done", "failed" or "lost".
        reason: of a failure.
        total: trainings that it has to do; 0 where it has none.
        base: how many of them earlier drivers have done.
        done, failed: how many ended, and how many of these failed.
    """

    name: str
    began: float
    ended: float | None = None
    state: str = "running"
    reason: str = ""
    total: int = 0
    base: int = 0
    done: int = 0
    failed: int = 0


class Story:
    """Takes the events of a run one by one, in the order in which they were written.

    A run that was started again goes on in the same log: what the earlier driver left unfinished is "lost" then.

    Attributes:
        stages: of the run, each as it went last.
        parts: the sweep's own stages ("screen", "search", ...).
        trials: all of them, oldest first.
        loads: the last samples of the load, see `tuning.load`.
        gpus: GPU memory by worker, (bytes, bytes of the whole GPU).
        last: time of the last event; None before the first.
    """

    def __init__(self) -> None:
        self.stages: dict[str, StageStory] = {}
        self.parts: dict[str, StageStory] = {}
        self.trials: list[TrialStory] = []
        self.loads: deque[Mapping[str, Any]] = deque(maxlen=KEPT_SAMPLES)
        self.gpus: dict[int, tuple[int, int]] = {}
        self.last: float | None = None
        self.began: float | None = None
        self._running: dict[tuple[Any, ...], TrialStory] = {}

    @property
    def stage(self) -> StageStory | None:
        """The stage of the run that began last."""
        return max(self.stages.values(), key=lambda s: s.began, default=None)

    @property
    def running(self) -> list[TrialStory]:
        """Trials that have begun and not ended."""
        return list(self._running.values())

    @property
    def workers(self) -> list[Mapping[str, Any]]:
        """Workers by the last sample of the load, if that is of the driver that was started last."""
        if not self.loads or float(self.loads[-1]["t"]) < (self.began or 0.0):
            return []
        return list(self.loads[-1].get("workers", []))

    def take(self, event: Mapping[str, Any]) -> None:
        """Takes one event; those of a kind that is not known are passed over.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        now = float(event["t"])
        kind = event["kind"]
        if kind == "stage":
            self._take_stage(event, now)
        elif kind == "trial" and event["state"] == "started":
            self._take_start(event, now)
        elif kind == "trial":
            self._take_end(event, now)
        elif kind == "epoch":
            self._take_epoch(event)
        elif kind == "load":
            self.loads.append(event)
        self.last = now

    def _take_stage(self, event: Mapping[str, Any], now: float) -> None:
        name = str(event["stage"])
        if event["state"] == "running":
            self._lose(now)
            self.stages[name] = StageStory(name, now)
            if name == "sweep":
                self.began = now
                self._begin_again()
            return
        stage = self.stages.setdefault(name, StageStory(name, now))
        stage.state, stage.ended, stage.reason = str(event["state"]), now, str(event.get("reason", ""))
        self._end_parts(now, "done" if stage.state == "done" else "lost")
        for trial in self.running:
            self._end(trial, "lost", now)

    def _lose(self, now: float) -> None:
        """What an earlier driver left behind."""
        for stage in self.stages.values():
            if stage.state == "running":
                stage.state, stage.ended = "lost", self.last or now
        self._end_parts(self.last or now, "lost")
        for trial in self.running:
            self._end(trial, "lost", self.last or now)

    def _begin_again(self) -> None:
        """The sweep does what is missing: what earlier ones have done counts on."""
        for part in self.parts.values():
            part.base = part.total = part.done = part.done - part.failed
            part.failed = 0

    def _end_parts(self, now: float, state: str) -> None:
        for part in self.parts.values():
            if part.state == "running":
                part.state, part.ended = state, now

    def _take_start(self, event: Mapping[str, Any], now: float) -> None:
        name = str(event["stage"])
        part = self.parts.get(name)
        if part is None or part.state != "running":
            self._end_parts(now, "done")
            fresh = StageStory(name, now)
            if part is not None:
                fresh.total, fresh.base, fresh.done = part.total, part.base, part.done
            part = self.parts[name] = fresh
        key = _key(event)
        if key in self._running:  # its worker died, and another has taken it
            self._running[key].history.clear()
            return
        trial = TrialStory(
            name, int(event["number"]), str(event["candidate"]), str(event["backbone"]), event["fold"], now,
            event.get("epochs"), event.get("until"),
        )  # fmt: skip
        self._running[key] = trial
        self.trials.append(trial)
        part.total = max(
            part.total,
            part.base + int(event.get("total", 0)),
            part.done + sum(t.stage == name for t in self._running.values()),
        )

    def _take_epoch(self, event: Mapping[str, Any]) -> None:
        trial = self._running.get(_key(event))
        if trial is None:
            return
        if trial.history and event["epoch"] <= trial.epoch:
            trial.history.clear()
        keys = ("epoch", "score", "train_loss", "monitor_loss", "monitor_accuracy", "seconds", "images_per_s")
        trial.history.append({key: event.get(key) for key in keys})
        pid = event.get("pid")
        if pid is not None:
            trial.pid = int(pid)
            if event.get("gpu_bytes") is not None:
                self.gpus[trial.pid] = int(event["gpu_bytes"]), int(event.get("gpu_total_bytes", 0))

    def _take_end(self, event: Mapping[str, Any], now: float) -> None:
        trial = self._running.get(_key(event))
        if trial is None:
            return
        trial.score, trial.reason = event.get("score"), str(event.get("reason", ""))
        self._end(trial, str(event["state"]), now)
        part = self.parts[trial.stage]
        part.done += 1
        part.failed += trial.state == "failed"

    def _end(self, trial: TrialStory, state: str, now: float) -> None:
        trial.state, trial.ended = state, now
        self._running = {key: t for key, t in self._running.items() if t is not trial}


def _key(event: Mapping[str, Any]) -> tuple[Any, ...]:
    return event["stage"], event["number"], event["candidate"], event["fold"]


# ---------------------------------------------------------------------- following


class Follower:
    """The story of one run, read on from where it was left; shared by everybody who looks at the run."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._reader, self._story = self._store.follow(), Story()

    @contextmanager
    def up_to_date(self) -> Iterator[Story]:
        """The story with what was written since; nobody changes it within the context.

        Raises:
            StoreError: the log is damaged.
        """
        with self._lock, understood(self._store.path):
            try:
                events = self._reader.read()
                if self._reader.restarted:
                    self._story = Story()
                for event in events:
                    self._story.take(event)
            except Exception:
                self._begin()
                raise
            yield self._story


@st.cache_resource(max_entries=16, show_spinner=False)
def _follower(path: str) -> Follower:
    return Follower(RunStore(Path(path)))


def followed(store: RunStore) -> Follower:
    """The follower of a run."""
    return _follower(str(store.path))


def state_of(story: Story, working: bool) -> State:
    """How a run stands.

    Args:
        story: of it.
        working: whether somebody is at it, see `at_work`.
    """
    last = story.stage
    if working:
        return "running"
    if last is None:
        return "new"
    if last.state == "failed":
        return "stopped" if last.reason.startswith(_BY_HAND) else "failed"
    if last.state == "done":
        ranked = any(s.name in _RANKED and s.state == "done" for s in story.stages.values())
        return "finished" if ranked else "paused"
    return "interrupted"


def took(seconds: float) -> str:
    """How long something took.

    >>> took(0.2), took(75.0)
    ('less than 1 s', '1 min 15 s')
    """
    return "less than 1 s" if seconds < 1 else duration(seconds)


def at_work(store: RunStore) -> bool:
    """Whether a process works on the run now."""
    if not store.claimed:
        return False
    from .sweeps import driver  # which knows configs, that take long to import

    return driver(store) is not None
