"""How far a sweep is: bars that a person can read on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ..duration import duration
from ..metrics import Metric
from .plan import Outcome, Trial

#: What each stage is called in front of people.
TITLES = {
    "measure": "Measuring arithmetic",
    "screen": "Screening backbones",
    "search": "Searching recipes",
    "crossval": "Cross-validating",
    "boosted": "Boosting backbones",
    "soup": "Mixing soups",
    "collapse": "Collapsing folds",
}


class Tally:
    """Counts what has been reported: trials running, speed, best so far, time left."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.stage = ""
        self.total = 0
        self.done = 0
        self.failed = 0
        self.best: tuple[float, str] | None = None
        self._began = 0.0
        self._running: dict[Trial, float] = {}
        self._share: dict[Trial, float] = {}

    def started(self, trial: Trial, stage_total: int) -> bool:
        """Takes the start of a trial; True when it is the first of its stage."""
        fresh = trial.stage != self.stage
        if fresh:
            self.stage, self.total, self.done, self.failed = trial.stage, stage_total, 0, 0
            self._began = time.monotonic()
        self._running[trial] = 0.0
        self._share[trial] = 0.0
        # A budget with time left goes on beyond what was asked for.
        self.total = max(self.total, self.done + len(self._running))
        return fresh

    def epoch(self, trial: Trial, report: Mapping[str, Any]) -> None:
        """Takes an epoch."""
        self._running[trial] = report["images_per_s"]
        self._share[trial] = report["epoch"] / trial.job.candidate.recipe.epochs

    def ended(self, trial: Trial, outcome: Outcome) -> None:
        """Takes the end of a trial."""
        self._running.pop(trial, None)
        self._share.pop(trial, None)
        self.done += 1
        self.failed += outcome.status == "failed"
        if outcome.score is not None and (
            self.best is None or self.metric.improvement(outcome.score, self.best[0]) > 0
        ):
            self.best = (outcome.score, trial.job.candidate.name)

    @property
    def progress(self) -> float:
        """Trials done, those running counted by their share of epochs."""
        return self.done + sum(self._share.values())

    def status(self) -> str:
        """One line: running, images/s, best, time left."""
        parts = [f"{len(self._running)} running"]
        speed = sum(self._running.values())
        if speed:
            parts.append(f"{speed:,.0f} images/s")
        if self.best:
            parts.append(f"best {self.metric.title} {self.best[0]:.4f} ({self.best[1]})")
        if self.failed:
            parts.append(f"{self.failed} failed")
        elapsed = time.monotonic() - self._began
        if self.progress > 0.2 and self.total:
            parts.append(f"about {duration((self.total - self.progress) / self.progress * elapsed)} left")
        return ", ".join(parts)


class PlainProgress:
    """A line when a stage begins, when a trial ends, and when one fails; for logs and pipes."""

    def __init__(self, metric: Metric, stream: IO[str] | None = None) -> None:
        self._tally = Tally(metric)
        self._stream = stream or sys.stderr

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def started(self, trial: Trial, stage_total: int) -> None:
        """See `Observer`."""
        if self._tally.started(trial, stage_total):
            self._say(f"{TITLES.get(trial.stage, trial.stage)}: {stage_total} trials")

    def epoch(self, trial: Trial, report: Mapping[str, Any]) -> None:
        """See `Observer`."""
        self._tally.epoch(trial, report)

    def retried(self, trial: Trial, reason: str, attempt: int) -> None:
        """See `Observer`."""
        self._say(f"  {describe_retry(trial, reason, attempt)}")

    def ended(self, trial: Trial, outcome: Outcome) -> None:
        """See `Observer`."""
        self._tally.ended(trial, outcome)
        self._say(
            f"  {self._tally.done}/{self._tally.total} {describe(trial, outcome)}; {self._tally.status()}"
        )

    def _say(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class TerminalProgress:
    """One bar a stage, with a status line that keeps moving."""

    def __init__(self, metric: Metric, console: Console | None = None) -> None:
        self._tally = Tally(metric)
        self._bars = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[status]}"),
            console=console or Console(stderr=True),
        )
        self._task: TaskID | None = None

    def __enter__(self) -> TerminalProgress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def started(self, trial: Trial, stage_total: int) -> None:
        """See `Observer`."""
        if self._tally.started(trial, stage_total):
            self._task = self._bars.add_task(
                TITLES.get(trial.stage, trial.stage), total=max(1, stage_total), status=""
            )
        self._draw()

    def epoch(self, trial: Trial, report: Mapping[str, Any]) -> None:
        """See `Observer`."""
        self._tally.epoch(trial, report)
        self._draw()

    def retried(self, trial: Trial, reason: str, attempt: int) -> None:
        """See `Observer`."""
        self._bars.console.print(f"  {describe_retry(trial, reason, attempt)}", markup=False)

    def ended(self, trial: Trial, outcome: Outcome) -> None:
        """See `Observer`."""
        self._tally.ended(trial, outcome)
        if outcome.status == "failed":
            self._bars.console.print(f"  {describe(trial, outcome)}", markup=False)
        self._draw()

    def _draw(self) -> None:
        if self._task is not None:
            done, total = self._tally.done, max(1, self._tally.total)
            self._bars.update(self._task, completed=done, total=total, status=self._tally.status())


class Observers:
    """Passes everything on to several observers."""

    def __init__(self, observers: Sequence[Any]) -> None:
        self._observers = observers

    def started(self, trial: Trial, stage_total: int) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.started(trial, stage_total)

    def epoch(self, trial: Trial, report: Mapping[str, Any]) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.epoch(trial, report)

    def retried(self, trial: Trial, reason: str, attempt: int) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.retried(trial, reason, attempt)

    def ended(self, trial: Trial, outcome: Outcome) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.ended(trial, outcome)


def progress_for(metric: Metric) -> PlainProgress | TerminalProgress:
    """Bars when standard error is a terminal, lines otherwise."""
    return TerminalProgress(metric) if sys.stderr.isatty() else PlainProgress(metric)


def describe(trial: Trial, outcome: Outcome) -> str:
    """One phrase on how a trial ended."""
    what = trial.job.candidate.backbone if trial.kind == "measure" else trial.job.candidate.name
    where = "" if trial.kind == "measure" else f" fold {trial.job.fold}"
    if outcome.status == "failed":
        return f"{what}{where} failed: {outcome.reason}"
    if trial.kind == "measure":
        memory = "channels_last" if outcome.extra.get("channels_last") else "contiguous"
        return f"{what}: {outcome.extra.get('precision')} {memory}"
    score = "" if outcome.score is None else f" {outcome.score:.4f}"
    early = " stopped early" if outcome.status == "stopped" else ""
    return f"{what}{where}{score}{early} in {duration(outcome.seconds)}"


def describe_retry(trial: Trial, reason: str, attempt: int) -> str:
    """One phrase on a trial whose worker died."""
    what = trial.job.candidate.backbone if trial.kind == "measure" else trial.job.candidate.name
    return f"{what} fold {trial.job.fold}, attempt {attempt}: {reason}; trying again"
