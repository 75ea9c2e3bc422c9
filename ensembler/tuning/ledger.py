"""Trials of the search on record: their numbers, what came of them, and Cells that were never noted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from ..training.candidate import Candidate, CellJob, CellResult
from .plan import Outcome


class SweepStore(Protocol):
    """What a sweep needs of the run's store."""

    def has_cell(self, job: CellJob, fingerprint: str) -> bool:
        """Whether this very Cell is finished."""

    def commit_cell(self, result: CellResult, fingerprint: str) -> bool:
        """Stores a finished Cell."""

    def cell(self, candidate_id: str, fold: int) -> Any:
        """A finished Cell."""

    def trials(self) -> list[dict[str, Any]]:
        """Finished trials of the search."""

    def write_trial(self, number: int, record: Mapping[str, Any]) -> None:
        """Stores a finished trial of the search."""

    def manifest(self) -> dict[str, Any]:
        """The run's manifest."""

    def update_manifest(self, **changes: Any) -> dict[str, Any]:
        """Replaces entries of the manifest."""


class Ledger:
    """The records under `search/`; read once, since a run has one driver at a time.

    Args:
        store: the run's.
        fingerprint: of the images.
    """

    def __init__(self, store: SweepStore, fingerprint: str) -> None:
        self._store = store
        self._fingerprint = fingerprint
        self._noted: dict[int, tuple[Candidate, dict[str, Any]]] | None = None

    def noted(self) -> list[tuple[Candidate, dict[str, Any]]]:
        """The trials that the store knows, by number; the record of each without its candidate, which is beside it."""
        return [trial for _, trial in sorted(self._known().items())]

    def free_number(self) -> int:
        """A number above all that were given."""
        return 1 + max(self._known(), default=-1)

    def _known(self) -> dict[int, tuple[Candidate, dict[str, Any]]]:
        if self._noted is None:
            self._noted = {
                trial["number"]: (
                    Candidate.from_dict(trial["candidate"]),
                    {key: value for key, value in trial.items() if key != "candidate"},
                )
                for trial in self._store.trials()
            }
        return self._noted

    def numbered(self, candidates: Sequence[Candidate]) -> list[tuple[int, Candidate]]:
        """Each with the number of its earlier trial, or one that no trial has."""
        known = {candidate.id: trial["number"] for candidate, trial in self.noted()}
        fresh = itertools.count(self.free_number())
        return [(known[c.id] if c.id in known else next(fresh), c) for c in candidates]

    def numbering(self) -> Callable[[Candidate], int]:
        """The same for candidates that come one after another."""
        known = {candidate.id: trial["number"] for candidate, trial in self.noted()}
        fresh = itertools.count(self.free_number())

        def number(candidate: Candidate) -> int:
            if candidate.id not in known:
                known[candidate.id] = next(fresh)
            return int(known[candidate.id])

        return number

    def note(self, number: int, candidate: Candidate, outcome: Outcome) -> None:
        """Writes how a trial ended."""
        record = {
            "name": candidate.name,
            "status": outcome.status,
            "score": outcome.score,
            "epochs": len(outcome.history),
            "seconds": round(outcome.seconds, 3),
            "reason": outcome.reason,
            "history": list(outcome.history),
        }
        self._store.write_trial(number, {"candidate": candidate.to_dict(), **record})
        self._known()[number] = (candidate, {"number": number, **record})

    def adopt(self, jobs: Iterable[CellJob]) -> None:
        """Notes trials whose Cell was committed before the driver died and could note them."""
        noted = {candidate.id for candidate, trial in self.noted() if trial["status"] != "failed"}
        open_jobs = [job for job in jobs if job.candidate.id not in noted]
        numbers = self.numbered([job.candidate for job in open_jobs])
        for job, (number, candidate) in zip(open_jobs, numbers, strict=True):
            if not self._store.has_cell(job, self._fingerprint):
                continue
            cell = self._store.cell(candidate.id, job.fold)
            history = cell.history().to_dict(orient="records")
            outcome = Outcome("finished", cell.score, history=tuple(history), seconds=cell.train_s)
            self.note(number, candidate, outcome)
