"""The plan of a driver's life, and whoever stands beside it: which signal comes when, and which worker dies."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

from ensembler.events import EventReader

from .harness import PATIENCE_S, Driver

#: In their order; "start" is everything before the first trial.
STAGES = ("start", "measure", "screen", "search", "crossval", "combine", "compare", "test")

#: Where there are workers.
TRAINING = STAGES[1:5]

#: Driver deaths by stage of a round that is after drivers, and of one that is after workers, which is every third.
DEATHS = (
    {
        "start": 2,
        "measure": 1,
        "screen": 1,
        "search": 3,
        "crossval": 2,
        "combine": 2,
        "compare": 2,
        "test": 1,
    },
    {"measure": 1, "screen": 1, "search": 2, "crossval": 1},
)

#: Worker deaths of a life whose driver dies in a stage where there are workers, in such rounds, and of the last life.
#: Not all come about: a stage may be over before them, and a trial is given up after its third worker.
WORKER_DEATHS = (
    {"measure": 1, "screen": 2, "search": 3, "crossval": 2},
    {"measure": 3, "screen": 5, "search": 8, "crossval": 6, "": 10},
)

#: Steps of a write, counted in a stage by the driver and from its beginning by a worker, before which they may die.
MOST_STEPS = {
    "start": 40,
    "measure": 12,
    "screen": 6,
    "search": 30,
    "crossval": 12,
    "combine": 40,
    "compare": 16,
    "test": 16,
}
MOST_WORKER_STEPS = 30

#: Of a worker's deaths in such rounds, how many are to be in a write. Where workers die often, few come to a late step.
WRITING = (0.5, 0.75)


@dataclass
class Life:
    """What is to happen to one driver.

    Attributes:
        stage: in which it dies, or ""; if that is over, at the next moment that comes.
        signals: that end it, in turn; none where it dies in a write, or lives.
        share: of what the stage usually takes, after which the signal comes: of its lines in the log where workers
            train, of the driver's processor time elsewhere, so that a crowded machine changes nothing.
        step: of a write before which it kills itself; 0 where it does not.
        patient: whether the next life waits for the processes that this one leaves.
        workers: deaths of workers: a step of a write, or 0 for a random moment.
    """

    stage: str = ""
    signals: tuple[int, ...] = ()
    share: float = 0.0
    step: int = 0
    patient: bool = True
    workers: list[int] = field(default_factory=list)


def plan_round(seed: int, number: int) -> list[Life]:
    """The lives of a round, in the order of their stages; the last one is left alone."""
    rng = random.Random(f"{seed}/{number}")
    lives = []
    kind = int(number % 3 == 2)
    for stage, count in DEATHS[kind].items():
        for _ in range(count):
            life = Life(stage, share=rng.random(), patient=rng.random() < 0.5)
            if rng.random() < 0.36:  # some of them are missed
                life.step = rng.randint(1, MOST_STEPS[stage])
            else:
                life.signals = (signal.SIGKILL,)
            life.workers = [_worker_death(rng, kind) for _ in range(WORKER_DEATHS[kind].get(stage, 0))]
            lives.append(life)
    gentle = [(signal.SIGTERM,), (signal.SIGINT,), (signal.SIGINT, signal.SIGINT)]
    stage = rng.choice(["start", *TRAINING, "combine", "test"])
    lives.append(Life(stage, gentle[(number + number // 3) % 3], rng.random()))
    lives.sort(key=lambda life: STAGES.index(life.stage))
    return [*lives, Life(workers=[_worker_death(rng, kind) for _ in range(WORKER_DEATHS[kind].get("", 0))])]


def _worker_death(rng: random.Random, kind: int) -> int:
    return rng.randint(1, MOST_WORKER_STEPS) if rng.random() < WRITING[kind] else 0  # many are missed


def stage_of(event: dict[str, Any]) -> str | None:
    """The stage that an event tells of."""
    if event["kind"] not in ("stage", "trial") or event["stage"] not in STAGES:
        return None
    return str(event["stage"])


class Companion:
    """A driver's life from its start to its end, and who dies in it when.

    Args:
        driver: just started.
        life: its plan.
        log: the run's, read up to here.
        rng: of the random moments.
        usual: what each stage takes, as `spent` of a life that nobody disturbed.
        note: takes what was killed.

    Attributes:
        spent: by stage, lines of the log and seconds of the driver's processor time.
    """

    def __init__(
        self,
        driver: Driver,
        life: Life,
        log: EventReader,
        rng: random.Random,
        usual: dict[str, list[float]],
        note: Any,
    ) -> None:
        self.driver = driver
        self.life = life
        self.log = log
        self.rng = rng
        self.usual = usual
        self.note = note
        self.stage = "start"
        self.workers = sum(not step for step in life.workers)
        self.signals = deque(life.signals)
        self.at: float | None = None
        self.worker_at = 0.0
        self.spent: dict[str, list[float]] = {"start": [0, 0.0]}
        self._process = psutil.Process(driver.process.pid)
        self._entered = 0.0

    def end(self) -> str:
        """Waits, and kills; returns the stage in which the driver ended."""
        deadline = time.monotonic() + 3 * PATIENCE_S
        looked = 0.0
        while self.driver.alive:
            now = time.monotonic()
            assert now < deadline, f"hangs: {self.driver.said}"
            if now - looked > 0.25:
                self.driver.look()
                looked = now
            self._follow()
            self._perhaps_a_worker(now)
            self._perhaps_the_driver(now)
            time.sleep(0.02)
        return self.stage

    def _follow(self) -> None:
        cpu = self._entered + self.spent[self.stage][1]
        with suppress(psutil.Error):  # it has just ended
            times = self._process.cpu_times()
            cpu = times.user + times.system
        for event in self.log.read():
            stage = stage_of(event) or self.stage
            if stage != self.stage:
                self.stage, self._entered = stage, cpu
                self.spent.setdefault(stage, [0, 0.0])
            self.spent[stage][0] += 1
        self.spent[self.stage][1] = cpu - self._entered

    def _is_due(self) -> bool:
        """Whether so much of the stage has gone by as was planned."""
        if self.stage != self.life.stage:
            return True
        by = 0 if self.stage in TRAINING else 1
        return self.spent[self.stage][by] >= self.life.share * self.usual.get(self.stage, [0, 0.0])[by]

    def _perhaps_a_worker(self, now: float) -> None:
        if not self.workers or self.stage not in TRAINING or now < self.worker_at:
            return
        if (
            self.driver.kill_a_worker(self.rng) is None
        ):  # nobody trains: a trial is soon over, so look again soon
            self.worker_at = now + self.rng.uniform(0.0, 0.3)
            return
        self.workers -= 1
        self.note(victim="worker", way="moment", stage=self.stage)
        self.worker_at = now + self.rng.uniform(0.05, 3.0)

    def _perhaps_the_driver(self, now: float) -> None:
        if not self.signals or STAGES.index(self.stage) < STAGES.index(self.life.stage):
            return
        to_come = self.workers or self.driver.session.has_worker_plans()
        waits = to_come and self.stage == self.life.stage and self.stage in TRAINING
        if self.at is None and not waits and self._is_due():
            self.at = now + self.rng.uniform(0.0, 0.3)
        if self.at is not None and now >= self.at:
            number = self.signals.popleft()
            if number == signal.SIGKILL:
                self.driver.kill()
            elif number == signal.SIGINT:  # a terminal sends it to all
                os.killpg(self.driver.process.pid, number)
            else:
                os.kill(self.driver.process.pid, number)
            self.at = now + 0.3
