"""The search for recipes: which candidates are tried, in which order.

`random` and `grid` are a list that the seed alone decides; `optuna` and `gp` draw each candidate from what has
finished so far. Every trial trains on the train rows of one fixed fold and is scored on its monitor rows; the holdout
rows stay unread until training is over.
"""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..training.candidate import Candidate
from ..training.space import Distribution, Range, draw
from .arms import Arm
from .plan import Deadline, Outcome, Stage, Trial
from .sampler import OptunaSampler

#: Points of a range on a grid.
GRID_POINTS = 3

#: Random draws of one arm before a search gives up finding another candidate in a small space.
MAX_DRAWS = 100_000


def random_candidates(arms: Sequence[Arm], n: int, seed: int) -> list[Candidate]:
    """The default of each arm, then random draws, arms in turn; the first `n` of them.

    What is drawn for an arm depends on the seed and the arm alone: a further backbone changes no candidate of
    the others, and more trials begin with those of fewer.
    """
    return _in_turn([itertools.chain([arm.default], _draws(arm, seed)) for arm in arms], max(n, len(arms)))


def grid_candidates(arms: Sequence[Arm], n: int) -> list[Candidate]:
    """The default of each arm, then the grid of each in turn, varying the first key of the space fastest.

    Only what is drawn from the first trial on is a dimension of it: a grid over everything never ends.
    """
    return _in_turn([itertools.chain([arm.default], _grid(arm)) for arm in arms], max(n, len(arms)))


def _in_turn(rows: Sequence[Iterator[Candidate]], n: int) -> list[Candidate]:
    """The first of each row, then the second of each, up to `n` different ones."""
    seen: dict[str, Candidate] = {}
    for candidate in (c for turn in itertools.zip_longest(*rows) for c in turn if c is not None):
        seen.setdefault(candidate.id, candidate)
        if len(seen) == n:
            break
    return list(seen.values())


def _draws(arm: Arm, seed: int) -> Iterator[Candidate]:
    for number in range(MAX_DRAWS if arm.space else 0):
        rng = random.Random(f"{seed}/{arm.default.id}/{number}")  # noqa: S311 - sampling, not secrecy
        yield arm.candidate(draw(arm.space, arm.recipe, lambda _, d: _draw(d, rng), number))  # noqa: B023


def _grid(arm: Arm) -> Iterator[Candidate]:
    keys = [key for key, distribution in arm.space.items() if not distribution.after][::-1]
    for point in itertools.product(*(_points(arm.space[key]) for key in keys)):
        values = dict(zip(keys, point, strict=True))
        core = {key: arm.space[key] for key in arm.space if key in values}
        yield arm.candidate(draw(core, arm.recipe, lambda key, _: values[key]))  # noqa: B023


class OptunaStage(Stage):
    """Candidates drawn one after another, each from what the trials before it brought; see `OptunaSampler`.

    Args:
        name: of the stage.
        arms: what may be trained; the default recipe of each comes first.
        n: number of trials, those already known included.
        sampler: new, over the same arms.
        make: numbers and wraps a candidate.
        known: earlier trials of this run, as (candidate, score); the score of a failed one is None.
        first: number of the first trial; None counts on from those known.
        on_end, deadline: see `Stage`.
    """

    def __init__(
        self,
        name: str,
        arms: Sequence[Arm],
        n: int,
        sampler: OptunaSampler,
        make: Callable[[int, Candidate], Trial],
        known: Sequence[tuple[Candidate, float | None]] = (),
        on_end: Callable[[Trial, Outcome], None] = lambda _trial, _outcome: None,
        deadline: Deadline = None,
        first: int | None = None,
    ) -> None:
        tried = {candidate.id for candidate, _ in known}
        defaults = deque(arm.default for arm in arms if arm.default.id not in tried)
        super().__init__(name, [], on_end, deadline, at_least=len(defaults))
        self._sampler = sampler
        self._make = make
        self._number = len(known) if first is None else first
        self.total = max(n - len(known), len(defaults))
        self._left = self.total
        self._defaults = defaults
        for candidate, score in known:
            sampler.learn(candidate, score)

    def _next(self) -> Trial | None:
        if not self._left:
            return None
        self._left -= 1
        number, self._number = self._number, self._number + 1
        return self._make(number, self._defaults.popleft() if self._defaults else self._sampler.ask())

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """See `Stage.tell`."""
        self._sampler.tell(trial.job.candidate, None if outcome.status == "failed" else outcome.score)
        super().tell(trial, outcome)


def _draw(distribution: Distribution, rng: random.Random) -> Any:
    if isinstance(distribution, Range):
        return distribution.at(rng.random())
    return rng.choice(distribution.values)


def _points(distribution: Distribution) -> list[Any]:
    if isinstance(distribution, Range):
        return [distribution.at((i + 0.5) / GRID_POINTS) for i in range(GRID_POINTS)]
    return list(distribution.values)
