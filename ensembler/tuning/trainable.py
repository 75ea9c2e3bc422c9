"""What a Ray worker does: one trial after another in one process, so that torch is imported once."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Protocol

from ray import tune

from ..errors import EnsemblerError
from ..training.candidate import CellResult, Epoch, TrainingData
from ..training.loop import fit_cell
from ..training.numerics import measure_numerics
from ..training.snapshot import RepeatedEpoch, discard_snapshot
from .load import gpu_memory
from .plan import IDLE, Trial

if TYPE_CHECKING:
    from .execute import Train

#: Seconds of a step of an idle trial: how late a worker may notice that it is wanted.
IDLE_S = 0.3


class CellSink(Protocol):
    """Where finished Cells go; the run's store in production."""

    def commit_cell(self, result: CellResult, fingerprint: str) -> bool:
        """Stores a Cell; False when it was there already."""


class CellTrainable(tune.Trainable):  # type: ignore[misc]
    """Runs a `Trial`: a step is an epoch, the last step predicts the holdout and commits the Cell.

    What an `EnsemblerError` says would be said again, since a Cell has the same bits wherever it is trained: it ends
    that trial alone, is reported with its reason, and the worker takes the next. Any other exception may be the
    machine's (memory, a disk, a driver): it ends the worker, and Tune gives the trial a fresh one, `RETRIES` times.
    """

    _run: Generator[Epoch, None, CellResult] | None

    def setup(
        self, config: dict[str, Any], data: TrainingData, sink: CellSink, train: Train | None = None
    ) -> None:
        """Called by Ray once a worker."""
        self._train = train or fit_cell
        self._data = data
        self._sink = sink
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Called by Ray when this worker takes its next trial; nothing of the last one is left."""
        if self._run is not None:  # stopped by the scheduler: it will not go on
            discard_snapshot(self._trial.job, self._data)
        self.cleanup()
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        """Called by Ray when a trial is stopped: the abandoned Cell frees its memory."""
        if self._run is not None:
            self._run.close()
            self._run = None

    def step(self) -> dict[str, Any]:
        """Trains one epoch, or ends the trial."""
        began = time.perf_counter()
        if self._idle:
            time.sleep(IDLE_S)
            return {**self._last, "reported": False}
        try:
            report = self._advance()
        except EnsemblerError as error:  # recorded with its reason and shown on the leaderboard
            report = {"ended": "failed", "reason": str(error), "error_type": type(error).__name__}
        again = report.pop("again", False)
        self._last |= report
        result = {
            **self._last,
            **gpu_memory(),
            # What is only said again took its time when it was trained.
            "step_s": report["seconds"] if again else time.perf_counter() - began,
            "reported": bool(report.get("epoch")),
            "done": "ended" in report,
            **({"again": True} if again else {}),
        }
        if result["done"]:
            self.cleanup()
        return result

    def _begin(self, config: dict[str, Any]) -> None:
        self._run = None
        self._idle = config["kind"] == IDLE
        # ASHA reads `epoch` and `score` of every result, also of one that failed before its first epoch.
        self._last: dict[str, Any] = {"epoch": 0, "score": float("nan")}
        if not self._idle:
            self._trial = Trial.from_config(config)
            self._run = self._train(self._trial.job, self._data) if self._trial.kind == "cell" else None

    def _advance(self) -> dict[str, Any]:
        if self._run is None:
            choice, speeds = measure_numerics(self._trial.job, self._data)
            extra = {**dataclasses.asdict(choice), "images_per_s": speeds}
            return {"ended": "finished", "extra": json.dumps(extra)}  # Tune flattens nested results
        try:
            epoch = next(self._run)
        except StopIteration as end:
            result: CellResult = end.value
            self._sink.commit_cell(result, self._data.fingerprint)
            discard_snapshot(self._trial.job, self._data)
            return {"ended": "finished", "score": result.score}
        return {**dataclasses.asdict(epoch), "again": isinstance(epoch, RepeatedEpoch)}
