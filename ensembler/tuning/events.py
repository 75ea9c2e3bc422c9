"""What happened in a sweep, as lines that the app reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from .plan import Outcome, Trial


class EventLog(Protocol):
    """Where events go; the run's store in production."""

    def event(self, kind: str, **values: Any) -> None:
        """Appends an event."""


class EventWriter:
    """Writes what an observer sees to the run's events."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def started(self, trial: Trial, stage_total: int) -> None:
        """See `Observer`."""
        candidate = trial.job.candidate
        epochs = candidate.recipe.epochs if trial.kind == "cell" and candidate.fine_tuned else None
        self._log.event(
            "trial", state="started", total=stage_total, epochs=epochs, until=trial.until, **_about(trial)
        )

    def epoch(self, trial: Trial, report: Mapping[str, Any]) -> None:
        """See `Observer`."""
        self._log.event("epoch", **_about(trial), **report)

    def retried(self, trial: Trial, reason: str, attempt: int) -> None:
        """See `Observer`."""
        self._log.event("retry", attempt=attempt, reason=reason, **_about(trial))

    def ended(self, trial: Trial, outcome: Outcome) -> None:
        """See `Observer`."""
        self._log.event(
            "trial", state=outcome.status, score=outcome.score, reason=outcome.reason, **_about(trial)
        )


def _about(trial: Trial) -> dict[str, Any]:
    candidate = trial.job.candidate
    return {
        "stage": trial.stage,
        "number": trial.number,
        "candidate": candidate.name,
        "backbone": candidate.backbone,
        "fold": trial.job.fold,
    }
