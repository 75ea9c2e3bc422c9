"""Successive halving in step: a rung decides when all of it have reported, whatever the order in which they did.

With it a whole run is decided by its seed, which no scheduler that acts by order of arrival allows.

A trial that waits for the others would hold a worker with its model and optimiser, so none waits: it is stopped at
the rung, and if it is promoted it is trained again from the start, which gives the same bits up to there. Rungs lie a
factor of three apart in epochs and in trials, so the price is small: of n trials of E epochs the rungs E/9, E/3 and E
cost n E / 3 epochs where trials that could wait would cost 0.26 n E, and all trials to their end n E.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..metrics import Metric
from ..training.candidate import Candidate
from .arms import Arm
from .plan import Deadline, Outcome, Stage, Trial
from .sampler import OptunaSampler

#: Factor between the epochs of two rungs, and between their numbers of trials.
ETA = 3

#: Rungs at most, and fewest epochs of the lowest.
MAX_RUNGS, MIN_EPOCHS = 3, 2

#: Candidates that a sampler draws before it is told of any of them.
GENERATION = 9

#: What draws candidates in groups; the next is drawn when the scores of the last are known.
Generations = Iterator[Sequence[Candidate]]


def rung_epochs(epochs: int) -> list[int]:
    """Epochs of each rung, the last is `epochs`.

    >>> rung_epochs(8), rung_epochs(30), rung_epochs(2)
    ([3, 8], [4, 10, 30], [2])
    """
    rungs = [epochs]
    while len(rungs) < MAX_RUNGS and MIN_EPOCHS <= math.ceil(epochs / ETA ** len(rungs)) < rungs[0]:
        rungs.insert(0, math.ceil(epochs / ETA ** len(rungs)))
    return rungs


def listed_generations(candidates: Sequence[Candidate], size: int) -> Generations:
    """A list that is there from the start, `size` at a time."""
    for start in range(0, len(candidates), size):
        yield candidates[start : start + size]


def sampled_generations(
    arms: Sequence[Arm], n: int, sampler: OptunaSampler, scores: Mapping[str, float | None]
) -> Generations:
    """The defaults and what a sampler draws, some at a time; `scores` is read, in this order, before the next.

    Args:
        arms: what may be drawn.
        n: of all candidates; the defaults whatever it is.
        sampler: new, over the same arms.
        scores: by `Candidate.id`, filled in by whoever trains them.
    """
    generation = [arm.default for arm in arms]
    seen: dict[str, Candidate] = {}
    while generation:
        seen |= {candidate.id: candidate for candidate in generation}
        yield generation
        for candidate in generation:
            sampler.tell(candidate, scores.get(candidate.id))
        drawn: dict[str, Candidate] = {}
        for _ in range(10 * GENERATION):  # a small space repeats itself
            if len(drawn) >= min(GENERATION, n - len(seen)):
                break
            candidate = sampler.ask()
            if candidate.id in seen or candidate.id in drawn:
                sampler.tell(candidate, scores.get(candidate.id))
            else:
                drawn[candidate.id] = candidate
        generation = list(drawn.values())


class HalvingStage(Stage):
    """Candidates in generations, each through all rungs.

    Args:
        name: of the stage.
        generations: see `Generations`.
        n: candidates in all, for the total that people are shown.
        epochs: of a candidate that is promoted to the end.
        metric: direction of the scores.
        make: wraps a candidate: (candidate, epoch at which it is stopped or None).
        always: ids of candidates that go to their end at once: the defaults.
        scores: filled with the best score of each candidate, None of a failed one.
        known: records of earlier trials, by `Candidate.id`: with "status", "score" and "history".
        on_end, deadline, at_least: see `Stage`.
    """

    def __init__(
        self,
        name: str,
        generations: Generations,
        n: int,
        epochs: int,
        metric: Metric,
        make: Callable[[Candidate, int | None], Trial],
        always: set[str],
        scores: dict[str, float | None],
        known: Mapping[str, Mapping[str, Any]] | None = None,
        on_end: Callable[[Trial, Outcome], None] = lambda _trial, _outcome: None,
        deadline: Deadline = None,
        at_least: int = 0,
    ) -> None:
        super().__init__(name, [], on_end, deadline, at_least)
        self._generations = generations
        self._rungs = rung_epochs(epochs)
        self._goal = metric
        self._make = make
        self._always = always
        self._scores = scores
        self._done: dict[str, tuple[bool, Sequence[Mapping[str, Any]]]] = {}
        for key, record in (known or {}).items():
            self._take(key, record["status"], record["score"], record["history"])
        self._group: list[Candidate] = []
        self._rung = len(self._rungs) - 1
        self._running: set[str] = set()
        self._begin_rung()
        if self._queue:
            spread = sum(math.ceil(n / ETA**i) for i in range(len(self._rungs)))
            self.total = max(len(self._queue), spread)

    def _next(self) -> Trial | None:
        if not self._queue and not self._running:
            self._begin_rung()
        if not self._queue:
            return None
        trial = self._queue.popleft()
        self._running.add(trial.job.candidate.id)
        return trial

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """See `Stage.tell`."""
        key = trial.job.candidate.id
        self._running.discard(key)
        self._take(key, outcome.status, outcome.score, outcome.history)
        super().tell(trial, outcome)

    def _take(self, key: str, status: str, score: float | None, history: Sequence[Mapping[str, Any]]) -> None:
        self._scores[key] = None if status == "failed" else score
        if status == "failed":
            self._done.pop(key, None)
        else:
            self._done[key] = (status == "finished", history)

    def _begin_rung(self) -> None:
        """Fills the queue with the next trials that are not known already; leaves it empty when all is done."""
        while not self._queue:
            if self._rung + 1 < len(self._rungs):
                self._group = self._promoted()
                self._rung += 1
            else:
                self._group = list(next(self._generations, []))
                self._rung = 0
                if not self._group:
                    return
            last = self._rung == len(self._rungs) - 1
            for candidate in self._group:
                to_the_end = last or candidate.id in self._always
                if not self._reached(candidate.id, to_the_end):
                    until = None if to_the_end else self._rungs[self._rung]
                    self._queue.append(self._make(candidate, until))

    def _reached(self, key: str, to_the_end: bool) -> bool:
        finished, history = self._done.get(key, (False, ()))
        return finished or (not to_the_end and len(history) >= self._rungs[self._rung])

    def _promoted(self) -> list[Candidate]:
        """The best third of the rung, and those that go on always."""
        ranked = sorted(
            (c for c in self._group if c.id in self._done),
            key=lambda c: (-self._goal.improvement(self._at_rung(c.id), 0.0), c.id),
        )
        best = {c.id for c in ranked[: math.ceil(len(self._group) / ETA)]}
        return [c for c in self._group if c.id in self._done and (c.id in best or c.id in self._always)]

    def _at_rung(self, key: str) -> float:
        """Best score up to the epoch of this rung: what comes later in a trial that ran on is not looked at."""
        _, history = self._done[key]
        reached = [float(h["score"]) for h in history if h["epoch"] <= self._rungs[self._rung]]
        found: list[float] = reached or [s for s in [self._scores[key]] if s is not None]
        return max(found, key=lambda s: self._goal.improvement(s, 0.0))
