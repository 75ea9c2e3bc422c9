"""The search for recipes: which candidates are tried, in which order.

`random` and `grid` are a list that the seed alone decides; `optuna` draws each candidate from what has finished so
far. Every trial trains on the train rows of one fixed fold and is scored on its monitor rows; the holdout rows stay
unread until training is over.
"""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..metrics import Metric
from ..training.candidate import Candidate
from ..training.recipes import Distribution, Range
from .arms import Arm
from .plan import Outcome, Stage, Trial

#: Points of a range on a grid.
GRID_POINTS = 3

#: Random draws of one arm before a search gives up finding another candidate in a small space.
MAX_DRAWS = 100_000


def random_candidates(arms: Sequence[Arm], n: int, seed: int) -> list[Candidate]:
    """The default of each arm, then random draws, arms in turn; the first `n` of them.

    What is drawn for an arm depends on the seed and the arm alone: a further backbone changes no candidate of
    the others.
    """
    return _in_turn([itertools.chain([arm.default], _draws(arm, seed)) for arm in arms], max(n, len(arms)))


def grid_candidates(arms: Sequence[Arm], n: int) -> list[Candidate]:
    """The default of each arm, then the grid of each in turn, varying the first key of the space fastest."""
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
        yield arm.candidate({key: _draw(d, rng) for key, d in arm.space.items()})


def _grid(arm: Arm) -> Iterator[Candidate]:
    keys = list(arm.space)[::-1]
    for point in itertools.product(*(_points(arm.space[key]) for key in keys)):
        yield arm.candidate(dict(zip(keys, point, strict=True)))


class OptunaStage(Stage):
    """Candidates drawn by Optuna's tree-structured Parzen estimator from the trials told so far.

    Ranges are searched as a share in [0, 1] of the arm's own range, so that what is learned on one backbone helps
    on the next, whose best rate may be ten times larger.

    Args:
        name: of the stage.
        arms: what may be trained; the default recipe of each comes first.
        n: number of trials, those already known included.
        seed: of the sampler.
        metric: its direction.
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
        seed: int,
        metric: Metric,
        make: Callable[[int, Candidate], Trial],
        known: Sequence[tuple[Candidate, float | None]] = (),
        on_end: Callable[[Trial, Outcome], None] = lambda _trial, _outcome: None,
        deadline: float | None = None,
        first: int | None = None,
    ) -> None:
        tried = {candidate.id for candidate, _ in known}
        defaults = deque(arm.default for arm in arms if arm.default.id not in tried)
        super().__init__(name, [], on_end, deadline, at_least=len(defaults))
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna = optuna
        self._study = optuna.create_study(
            direction="maximize" if metric.greater_is_better else "minimize",
            sampler=optuna.samplers.TPESampler(seed=seed + len(known), n_startup_trials=8),
        )
        self._arms = arms
        self._make = make
        self._number = len(known) if first is None else first
        self.total = max(n - len(known), len(defaults))
        self._left = self.total
        self._asked: dict[int, Any] = {}
        self._defaults = defaults
        for candidate, score in known:
            self._learn(candidate, score)

    def _next(self) -> Trial | None:
        if not self._left:
            return None
        self._left -= 1
        number, self._number = self._number, self._number + 1
        return self._make(number, self._defaults.popleft() if self._defaults else self._sample(number))

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """See `Stage.tell`."""
        score = None if outcome.status == "failed" else outcome.score
        asked = self._asked.pop(trial.number, None)
        if asked is None:
            self._learn(trial.job.candidate, score)
        elif score is None:
            self._study.tell(asked, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(asked, score)
        super().tell(trial, outcome)

    def _sample(self, number: int) -> Candidate:
        asked = self._asked[number] = self._study.ask()
        index = asked.suggest_categorical("arm", list(range(len(self._arms))))
        arm = self._arms[index]
        values: dict[str, Any] = {}
        for key, distribution in arm.space.items():
            if isinstance(distribution, Range):
                values[key] = distribution.at(asked.suggest_float(key, 0.0, 1.0))
            else:
                values[key] = distribution.values[
                    asked.suggest_categorical(f"{key} of {index}", list(range(len(distribution.values))))
                ]
        return arm.candidate(values)

    def _learn(self, candidate: Candidate, score: float | None) -> None:
        """Adds a candidate that this study did not draw, as far as it lies in the space."""
        if score is None:
            return
        kinds = self._optuna.distributions
        for index, arm in enumerate(self._arms):
            if (arm.backbone, arm.weights, arm.strategy) != (
                candidate.backbone,
                candidate.weights,
                candidate.strategy,
            ):
                continue
            params: dict[str, Any] = {"arm": index}
            spaces: dict[str, Any] = {"arm": kinds.CategoricalDistribution(list(range(len(self._arms))))}
            for key, distribution in arm.space.items():
                value = getattr(candidate.recipe, key)
                if isinstance(distribution, Range):
                    params[key] = min(1.0, max(0.0, distribution.share(value)))
                    spaces[key] = kinds.FloatDistribution(0.0, 1.0)
                elif value in distribution.values:
                    name = f"{key} of {index}"
                    params[name] = distribution.values.index(value)
                    spaces[name] = kinds.CategoricalDistribution(list(range(len(distribution.values))))
            self._study.add_trial(
                self._optuna.trial.create_trial(params=params, distributions=spaces, value=score)
            )


def _draw(distribution: Distribution, rng: random.Random) -> Any:
    if isinstance(distribution, Range):
        return distribution.at(rng.random())
    return rng.choice(distribution.values)


def _points(distribution: Distribution) -> list[Any]:
    if isinstance(distribution, Range):
        return [distribution.at((i + 0.5) / GRID_POINTS) for i in range(GRID_POINTS)]
    return list(distribution.values)
