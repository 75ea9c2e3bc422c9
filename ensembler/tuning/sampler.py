"""Candidates drawn by Optuna from what has been told so far.

Ranges are searched as a share in [0, 1] of the arm's own range, so that what is learned on one backbone helps on the
next, whose best rate may be ten times larger. A choice of the same values is one dimension for all arms.

An arm whose best score has stayed far from the best of all is not drawn any more: its time goes to the others.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..metrics import Metric
from ..training.candidate import Candidate
from ..training.space import Choice, Distribution, Range, draw
from .arms import Arm
from .select import near_best

#: Trials before a sampler learns; until then it draws at random.
STARTUP = 8

#: How far outside [0, 1] the share of a known value may lie: values are rounded to six digits.
TOLERANCE = 1e-3


class OptunaSampler:
    """Asked for candidates, told their scores; see the top of the file.

    Args:
        arms: what may be drawn.
        algorithm: "optuna" is a tree-structured Parzen estimator, which takes conditions as they are; "gp" a
            Gaussian process, which sees the conditional ones as dimensions that do not matter.
        seed: of the sampling.
        metric: its direction.
        chance: score of a model that knows nothing, see `select.chance_score`; None draws hopeless arms too.
    """

    def __init__(
        self, arms: Sequence[Arm], algorithm: str, seed: int, metric: Metric, chance: float | None = None
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna = optuna
        self._arms = arms
        self._metric = metric
        self._chance = chance
        self._best: dict[int, float] = {}
        self._everything = algorithm == "gp"
        with warnings.catch_warnings():
            # Before its version 5, Optuna calls the Gaussian process an experiment.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler: Any = (
                optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTUP)
                if self._everything
                else optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP)
            )
        self._study = optuna.create_study(
            direction="maximize" if metric.greater_is_better else "minimize", sampler=sampler
        )
        self._asked: dict[str, list[Any]] = {}
        self._drawn: Counter[int] = Counter()

    def ask(self) -> Candidate:
        """The next candidate; it may be one that was asked for before."""
        arms = list(range(len(self._arms)))
        trial = self._study.ask()
        index = trial.suggest_categorical("arm", arms)
        promising = self._promising()
        if index not in promising:
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
            self._study.enqueue_trial({"arm": promising[self._drawn.total() % len(promising)]})
            trial = self._study.ask()
            index = trial.suggest_categorical("arm", arms)
        arm = self._arms[index]
        number, self._drawn[index] = self._drawn[index], self._drawn[index] + 1
        if self._everything:
            # A Gaussian process wants the same dimensions in every trial.
            for other in self._arms:
                for key, distribution in other.space.items():
                    _suggest(trial, key, distribution)
        values = draw(arm.space, arm.recipe, lambda key, d: _suggest(trial, key, d), number)
        candidate = arm.candidate(values)
        self._asked.setdefault(candidate.id, []).append(trial)
        return candidate

    def _promising(self) -> list[int]:
        """Arms that have come near the best score, or have none yet."""
        if self._chance is None:
            return list(range(len(self._arms)))
        near = near_best(self._best, self._metric, self._chance)
        return [i for i in range(len(self._arms)) if i in near or i not in self._best]

    def _note_best(self, candidate: Candidate, score: float | None) -> None:
        for index, arm in enumerate(self._arms):
            if score is not None and arm.is_of(candidate):
                best = self._best.get(index, score)
                self._best[index] = score if self._metric.improvement(score, best) > 0 else best

    def tell(self, candidate: Candidate, score: float | None) -> None:
        """Takes the score of a candidate, asked for or not; None of one that failed."""
        self._note_best(candidate, score)
        asked = self._asked.get(candidate.id)
        if not asked:
            self.learn(candidate, score)
            return
        trial = asked.pop(0)
        if score is None:
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial, score)

    def learn(self, candidate: Candidate, score: float | None) -> None:
        """Adds a candidate that this sampler did not draw, as far as it lies in the space."""
        if score is None:
            return
        self._note_best(candidate, score)
        for index, arm in enumerate(self._arms):
            if arm.is_of(candidate):
                params, kinds = self._point(index, arm, candidate)
                complete = len(params) == len(kinds)
                if complete or not self._everything:
                    spaces = {name: kind for name, kind in kinds.items() if name in params}
                    self._study.add_trial(
                        self._optuna.trial.create_trial(params=params, distributions=spaces, value=score)
                    )

    def _point(self, index: int, arm: Arm, candidate: Candidate) -> tuple[dict[str, Any], dict[str, Any]]:
        """A candidate in the space: its coordinates, as far as they lie inside, and the kind of each."""
        drawn = arm.drawn(candidate)
        params: dict[str, Any] = {"arm": index}
        kinds: dict[str, Any] = {"arm": self._kind(Choice(tuple(range(len(self._arms)))))}
        for key, distribution in arm.space.items():
            name = _name(key, distribution)
            if key in drawn:
                value = drawn[key]
                if isinstance(distribution, Range):
                    share = distribution.share(value)
                    inside = -TOLERANCE <= share <= 1 + TOLERANCE
                    coordinate = min(1.0, max(0.0, share))
                else:
                    inside = value in distribution.values
                    coordinate = distribution.values.index(value) if inside else 0
                # What has not joined yet and stands at its default was not chosen.
                idle = distribution.after > 0 and value == getattr(arm.recipe, key)
                kinds[name] = self._kind(distribution)
                if inside and (self._everything or not idle):
                    params[name] = coordinate
        if self._everything:
            for other in self._arms:
                for key, distribution in other.space.items():
                    name = _name(key, distribution)
                    if name not in kinds:
                        kinds[name] = self._kind(distribution)
                        params[name] = 0.5 if isinstance(distribution, Range) else 0
        return params, kinds

    def _kind(self, distribution: Distribution) -> Any:
        kinds = self._optuna.distributions
        if isinstance(distribution, Range):
            return kinds.FloatDistribution(0.0, 1.0)
        return kinds.CategoricalDistribution(list(range(len(distribution.values))))


def _name(key: str, distribution: Distribution) -> str:
    return key if isinstance(distribution, Range) else f"{key} {list(distribution.values)}"


def _suggest(trial: Any, key: str, distribution: Distribution) -> Any:
    name = _name(key, distribution)
    if isinstance(distribution, Range):
        return distribution.at(trial.suggest_float(name, 0.0, 1.0))
    return distribution.values[trial.suggest_categorical(name, list(range(len(distribution.values))))]
