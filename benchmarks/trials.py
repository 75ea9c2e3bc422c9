"""What a trial costs beside its training: 1,000 trials that end at once, through the tuning layer and Ray Tune.

    python benchmarks/trials.py [--trials 1000] [--algorithm random|optuna] [--scheduler none|asha|median]

Prints milliseconds a trial in all, and of the first and the last hundred. Expect 60 ms at most, and the last hundred
no slower than 1.25 times the first.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ensembler.metrics import get_metric
from ensembler.store import RunStore
from ensembler.training.candidate import Candidate, CellJob, CellResult, Epoch, TrainingData
from ensembler.training.recipes import SMALL_BACKBONE, default_recipe
from ensembler.training.space import default_space
from ensembler.tuning.arms import Arm
from ensembler.tuning.events import EventWriter
from ensembler.tuning.execute import execute, ray_session, share_resources, slots_for
from ensembler.tuning.ledger import Ledger
from ensembler.tuning.plan import Chain, Outcome, Stage, Trial
from ensembler.tuning.sampler import OptunaSampler
from ensembler.tuning.search import OptunaStage, random_candidates

METRIC = get_metric("log_loss")


class Discard:
    """A sink for Cells that hold nothing."""

    def commit_cell(self, *_: object) -> bool:
        return True


def end_at_once(job: CellJob, _: TrainingData) -> Generator[Epoch, None, CellResult]:
    """A Cell of one epoch and no work."""
    score = job.candidate.recipe.lr
    epoch = Epoch(1, 0.0, 0.0, 0.0, 0.0, score, 0.0, 1.0)
    yield epoch
    return CellResult(job, np.zeros((1, 2), np.float32), {}, 1.0, score, 1, (epoch,), 0.0, 0)


class Clock:
    """Writes events as a run does, and notes when each trial ended."""

    def __init__(self, store: RunStore) -> None:
        self._events = EventWriter(store)
        self.ended_at: list[float] = []

    def started(self, trial: Trial, stage_total: int) -> None:
        self._events.started(trial, stage_total)

    def epoch(self, trial: Trial, report: Mapping[str, Any]) -> None:
        self._events.epoch(trial, report)

    def retried(self, trial: Trial, reason: str, attempt: int) -> None:
        self._events.retried(trial, reason, attempt)

    def ended(self, trial: Trial, outcome: Outcome) -> None:
        self._events.ended(trial, outcome)
        self.ended_at.append(time.perf_counter())


def measure(n: int, algorithm: str, scheduler: str) -> list[float]:
    """Seconds from the first trial's end to each one's."""
    recipe = default_recipe(SMALL_BACKBONE - 1, transformer=False)
    arms = [
        Arm(name, "random", "full", recipe, default_space(recipe, "full", large=False, n_images=3000))
        for name in ("one", "two", "three")
    ]
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(folder)
        store.claim({"benchmark": "trials"})
        rows = np.arange(4, dtype=np.int64)
        data = TrainingData(
            Path(folder) / "none.npy", rows, ("a", "b"), ((rows, rows, rows),), "f", {}, Path(folder)
        )
        ledger = Ledger(store, "f")

        def make(number: int, candidate: Candidate) -> Trial:
            return Trial("search", "cell", CellJob(candidate, 0), number)

        def note(trial: Trial, outcome: Outcome) -> None:
            ledger.note(trial.number, trial.job.candidate, outcome)

        stage: Stage
        if algorithm == "random":
            trials = [make(i, c) for i, c in enumerate(random_candidates(arms, n, seed=0))]
            stage = Stage("search", trials, note)
        else:
            sampler = OptunaSampler(arms, algorithm, 0, METRIC)
            stage = OptunaStage("search", arms, n, sampler, make, on_end=note)
        clock = Clock(store)
        with ray_session() as (cpus, gpus):
            resources = share_resources(cpus, gpus, (None, None))
            slots = slots_for(resources, cpus, gpus)
            chain = Chain([lambda: stage])
            execute(
                chain, data, Discard(), resources, clock, METRIC, slots, scheduler, recipe.epochs, end_at_once
            )
        assert len(ledger.noted()) == len(clock.ended_at) == n
    return [at - clock.ended_at[0] for at in clock.ended_at]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--algorithm", choices=("random", "optuna", "gp"), default="random")
    parser.add_argument("--scheduler", choices=("none", "asha", "median"), default="asha")
    options = parser.parse_args()
    ends = measure(options.trials, options.algorithm, options.scheduler)
    gaps = np.diff(ends) * 1000
    part = min(100, len(gaps) // 2)
    first, last = statistics.fmean(gaps[:part]), statistics.fmean(gaps[-part:])
    print(
        f"{statistics.fmean(gaps):.1f} ms a trial; the first {part} {first:.1f}, the last {part} {last:.1f} "
        f"({last / first:.2f} times)"
    )


if __name__ == "__main__":
    main()
