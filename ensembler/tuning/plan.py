"""What is to be trained next: stages of trials, without Ray.

A `Stage` hands out trials and is told how each ended; a `Chain` runs stages one after another, making each only
when the one before it has ended. Everything that decides is here, so that it can be tested without a cluster.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..training.candidate import CellJob

Kind = Literal["measure", "cell"]
Status = Literal["finished", "stopped", "failed"]

#: `time.monotonic()` after which no trial starts, or what computes it from what has been learned; None is never.
Deadline = float | Callable[[], float] | None

#: Kind and stage of a trial that only keeps a worker alive between two stages.
IDLE = "idle"


@dataclass(frozen=True)
class Trial:
    """One unit of work for Ray: measure a backbone's arithmetic, or train a Cell.

    Attributes:
        stage: name of the stage it belongs to.
        kind: "measure" or "cell".
        job: what to do it with.
        number: its number in the stage.
        stoppable: whether a scheduler may stop it early.
        until: epoch after which it is stopped whatever it scores; None lets it end.
    """

    stage: str
    kind: Kind
    job: CellJob
    number: int
    stoppable: bool = True
    until: int | None = None

    def to_config(self) -> dict[str, Any]:
        """The config of Ray's trial."""
        return {
            "stage": self.stage,
            "kind": self.kind,
            "number": self.number,
            "job": self.job.to_dict(),
            "stoppable": self.stoppable,
            "until": self.until,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Trial:
        """The inverse of `to_config`."""
        return cls(
            config["stage"],
            config["kind"],
            CellJob.from_dict(config["job"]),
            config["number"],
            config["stoppable"],
            config["until"],
        )


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        status: "finished", "stopped" by the scheduler, or "failed".
        score: best monitor score that it reported; None when it reported none.
        reason: why it failed, or "".
        history: one entry an epoch, as reported.
        extra: what a measuring trial found.
        seconds: wall time of its steps.
    """

    status: Status
    score: float | None = None
    reason: str = ""
    history: tuple[Mapping[str, Any], ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


class Stage:
    """A fixed list of trials.

    Args:
        name: shown to people.
        trials: in the order in which they start.
        on_end: called with each trial and its outcome, in the driver.
        deadline: after which no trial starts, once `at_least` have.
        at_least: trials that start whatever the time.
    """

    def __init__(
        self,
        name: str,
        trials: Iterable[Trial],
        on_end: Callable[[Trial, Outcome], None] = lambda _trial, _outcome: None,
        deadline: Deadline = None,
        at_least: int = 0,
    ) -> None:
        self.name = name
        self._queue = deque(trials)
        self.total = len(self._queue)
        self._on_end = on_end
        self._deadline = deadline
        self._at_least = at_least
        self._started = 0

    def ask(self) -> Trial | None:
        """The next trial; None when there is none left, or no time for it."""
        trial = None if self._started >= self._at_least and self._late() else self._next()
        self._started += trial is not None
        return trial

    def _late(self) -> bool:
        deadline = self._deadline() if callable(self._deadline) else self._deadline
        return deadline is not None and time.monotonic() > deadline

    def _next(self) -> Trial | None:
        return self._queue.popleft() if self._queue else None

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Takes the end of a trial."""
        self._on_end(trial, outcome)


class Chain:
    """Stages one after another: the next is made when every trial of the one before it has ended.

    Args:
        makers: each returns a stage, or None to leave it out; called late, so that it may read what the stages
            before it found.
    """

    def __init__(self, makers: Sequence[Callable[[], Stage | None]]) -> None:
        self._makers = deque(makers)
        self._stage: Stage | None = None
        self._running: set[Trial] = set()
        self._waiting = False
        self.finished = False

    @property
    def stage(self) -> Stage | None:
        """The stage that is running."""
        return self._stage

    @property
    def waiting(self) -> bool:
        """Whether the next stage waits for the last trials of this one."""
        return self._waiting and bool(self._makers)

    def ask(self) -> Trial | None:
        """The next trial; None when one has to be awaited first, or when `finished`."""
        while not self.finished:
            trial = self._stage.ask() if self._stage else None
            if trial is not None:
                self._running.add(trial)
                return trial
            if self._running:
                self._waiting = True
                return None
            if self._makers:
                self._stage = self._makers.popleft()()
            else:
                self.finished = True
        return None

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Passes the end of a trial on to its stage."""
        self._running.discard(trial)
        self._waiting = self._waiting and bool(self._running)
        assert self._stage is not None
        self._stage.tell(trial, outcome)
