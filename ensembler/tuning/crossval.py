"""Cross-validation under a budget: one candidate after another is taken on while there is time for all its folds.

The decision falls when a slot is free, with what the Cells before it really took. What is left over at the end, too
little for another whole candidate, goes to a kept one with fewer epochs.

Where the config leaves the epochs open, the search is done with few, and what is taken on has as many more as there is
time for: the contenders (the best of each backbone that comes near the best of all) share it equally.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..training.candidate import Candidate, CellJob
from .budget import MIN_EPOCHS, SHORT_SHARE, TOLERANCE, Budget, Pace, makespan
from .plan import Outcome, Stage, Trial


@dataclasses.dataclass
class Decisions:
    """What has been decided, kept in the manifest so that a run that goes on keeps to it.

    Attributes:
        kept: candidates taken on, in that order.
        left_out: (candidate, reason) of those that were wanted.
        closed: whether no further one is taken on.
    """

    kept: list[Candidate] = dataclasses.field(default_factory=list)
    left_out: list[tuple[Candidate, str]] = dataclasses.field(default_factory=list)
    closed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return {
            "kept": [candidate.to_dict() for candidate in self.kept],
            "left_out": [[candidate.to_dict(), reason] for candidate, reason in self.left_out],
            "closed": self.closed,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Decisions:
        """The inverse of `to_dict`."""
        return cls(
            [Candidate.from_dict(candidate) for candidate in values["kept"]],
            [(Candidate.from_dict(candidate), reason) for candidate, reason in values["left_out"]],
            values["closed"],
        )


class BudgetStage(Stage):
    """Cells of candidates that a budget has time for.

    Args:
        name: of the stage.
        turn: candidates in the order in which they are considered; the first is taken on whatever it takes.
        wanted: how many of them were asked for; the others are taken on only while there is time.
        most: candidates at most.
        decisions: made before; added to here.
        budget: of the whole run.
        pace: what Cells take; it learns here.
        slots: that train at a time.
        missing: the Cells of a candidate that are still to be trained.
        on_decision: called after each.
        on_end: see `Stage`.
        others: candidates beside these, which take their time after the last Cell.
        most_epochs: to which those of a candidate are raised where there is time; 0 leaves them as they are.
        n_equal: of the first in turn that share the time equally, if epochs are raised.
    """

    def __init__(
        self,
        name: str,
        turn: Sequence[Candidate],
        wanted: int,
        most: int,
        decisions: Decisions,
        budget: Budget,
        pace: Pace,
        slots: int,
        missing: Callable[[Candidate], Sequence[CellJob]],
        on_decision: Callable[[], None],
        on_end: Callable[[Trial, Outcome], None] = lambda _trial, _outcome: None,
        others: int = 0,
        most_epochs: int = 0,
        n_equal: int = 1,
    ) -> None:
        super().__init__(name, [], on_end)
        self._decisions = decisions
        self._budget = budget
        self._pace = pace
        self._slots = slots
        self._missing = missing
        self._on_decision = on_decision
        self._most = most
        self._others = others
        self._searched = set(turn)
        self._most_epochs = most_epochs
        known = {self._searched_as(c) for c in (*decisions.kept, *(c for c, _ in decisions.left_out))}
        self._wanted = deque(c for c in turn[:wanted] if self._searched_as(c) not in known)
        self._further = deque(c for c in turn[wanted:] if self._searched_as(c) not in known)
        self._sharing = set(turn[:n_equal])
        self._running: dict[Trial, float] = {}
        self._number = 0
        for candidate in decisions.kept:
            self._enqueue(candidate)
        self.total = len(self._queue) + sum(len(missing(c)) for c in self._wanted)

    @property
    def open(self) -> bool:
        """Whether there is anything left to train or to decide."""
        return bool(self._queue) or not self._decisions.closed

    def _next(self) -> Trial | None:
        while not self._queue and not self._decisions.closed:
            candidate = self._decide()
            if candidate is None:
                self._decisions.closed = True
            else:
                self._decisions.kept.append(candidate)
                self._enqueue(candidate)
            self._on_decision()
        if not self._queue:
            return None
        trial = self._queue.popleft()
        self._running[trial] = time.monotonic()
        return trial

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """See `Stage.tell`."""
        self._running.pop(trial, None)
        finished = outcome.status == "finished"
        self._pace.learn(trial.job.candidate, outcome.seconds, len(outcome.history), finished)
        super().tell(trial, outcome)

    def _enqueue(self, candidate: Candidate) -> None:
        for job in self._missing(candidate):
            self._queue.append(Trial(self.name, "cell", job, self._number))
            self._number += 1

    def _decide(self) -> Candidate | None:
        """The next candidate to take on; None when nothing fits any more."""
        while self._wanted:
            candidate = self._wanted.popleft()
            needed = self._seconds(candidate)
            if not self._decisions.kept or needed <= self._left():
                return self._raised(candidate)
            short = self._shortened([candidate])
            instead = f"; it is trained with {short.recipe.epochs} epochs instead" if short else ""
            reason = (
                f"left out: its folds need about {self._cells(candidate):.0f} s of training, the budget has "
                f"{max(0.0, self._left()):.0f} s left{instead}"
            )
            self._decisions.left_out.append((candidate, reason))
            if short:
                return short
        if len(self._decisions.kept) >= self._most:
            return None
        while self._further:
            candidate = self._further.popleft()
            if self._seconds(candidate) <= self._left():
                return self._raised(candidate)
        kept = [c for c in self._decisions.kept if c in self._searched or self._most_epochs]
        return self._shortened(kept)

    def _searched_as(self, candidate: Candidate) -> Candidate:
        """What tells candidates apart here: all, or all but the epochs."""
        return candidate.with_epochs(1) if self._most_epochs else candidate

    def _raised(self, candidate: Candidate) -> Candidate:
        """The candidate with as many epochs as its share of the time allows; never fewer than it has."""
        waiting = sum(c in self._sharing for c in self._wanted) if candidate in self._sharing else 0
        share = self._left() / (1 + waiting)
        for epochs in range(self._most_epochs, candidate.recipe.epochs, -1):
            long = candidate.with_epochs(epochs)
            if self._seconds(long) <= share and long not in self._decisions.kept:
                return long
        return candidate

    def _left(self) -> float:
        left = self._budget.left_s(self._others + len(self._decisions.kept) + 1)
        return left + TOLERANCE * self._budget.seconds

    def _cells(self, candidate: Candidate) -> float:
        return len(self._missing(candidate)) * self._pace.cell_s(candidate)

    def _seconds(self, candidate: Candidate) -> float:
        """Until all that runs and this candidate are done."""
        now = time.monotonic()
        running = [self._pace.cell_s(t.job.candidate) - (now - began) for t, began in self._running.items()]
        cells = [self._pace.cell_s(candidate)] * len(self._missing(candidate))
        return makespan(running, cells, self._slots)

    def _shortened(self, candidates: Sequence[Candidate]) -> Candidate | None:
        """The recipe that fills what is left best when its epochs are cut to fit."""
        left = self._left()
        found: list[tuple[float, Candidate]] = []
        for candidate in candidates:
            most = candidate.recipe.epochs
            for epochs in range(most - 1, max(MIN_EPOCHS, round(SHORT_SHARE * most)) - 1, -1):
                short = candidate.with_epochs(epochs)
                seconds = self._seconds(short)
                if short not in self._decisions.kept and self._missing(short) and seconds <= left:
                    found.append((seconds, short))
                    break
        return max(found, key=lambda f: f[0])[1] if found else None
