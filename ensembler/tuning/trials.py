"""The stage "search" of a config: which candidates belong to it, which are on record, which are still to be tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from ..config_settings import SearchSettings
from ..metrics import Metric
from ..training.candidate import Candidate, CellJob
from ..training.space import Choice
from .arms import Arm
from .budget import MORE_TRIALS
from .halving import GENERATION, HalvingStage, listed_generations, sampled_generations
from .ledger import Ledger
from .plan import Deadline, Outcome, Stage, Trial
from .sampler import OptunaSampler
from .search import OptunaStage, grid_candidates, random_candidates

#: Algorithms whose candidates the seed alone decides.
LISTED = ("random", "grid")


class SearchPlan:
    """The search over some arms.

    Args:
        settings: of the config; None is no search: the defaults and nothing else.
        arms: what may be trained.
        ledger: of the run.
        metric: direction of the scores.
        hints: candidates of an earlier run with scores that are comparable.
        has_budget: whether there is one, which is spent: the search then goes on beyond its trials.
        job: what trains a candidate on the fold of the search.
        chance: score of a model that knows nothing, see `OptunaSampler`.
    """

    def __init__(
        self,
        settings: SearchSettings | None,
        arms: Sequence[Arm],
        ledger: Ledger,
        metric: Metric,
        hints: Sequence[tuple[Candidate, float]],
        has_budget: bool,
        job: Callable[[Candidate], CellJob],
        chance: float | None = None,
    ) -> None:
        self._settings = settings
        self._arms = arms
        self._ledger = ledger
        self._metric = metric
        self._hints = hints
        self._has_budget = has_budget
        self._job = job
        self._chance = chance

    def trials(self) -> list[tuple[Candidate, dict[str, Any]]]:
        """Trials on record that the config as it is now could have brought forth; a run may hold older ones."""
        return [(candidate, trial) for candidate, trial in self._ledger.noted() if self.belongs(candidate)]

    def belongs(self, candidate: Candidate) -> bool:
        """Whether a candidate could come out of this search."""
        if self._settings is not None and self._settings.algorithm not in LISTED:
            return any(arm.covers(candidate) for arm in self._arms)
        return candidate.id in self._listed_ids

    @cached_property
    def listed(self) -> list[Candidate]:
        """Candidates of a search that the seed alone decides."""
        if self._settings is None or not self._arms:
            return [arm.default for arm in self._arms]
        if self._settings.algorithm == "grid":
            return grid_candidates(self._arms, self._n_trials)
        return random_candidates(self._arms, self._n_trials, self._settings.seed)

    @cached_property
    def default_ids(self) -> set[str]:
        """Of the candidates that come first and run to their end."""
        return {arm.default.id for arm in self._arms}

    @property
    def most_epochs(self) -> int:
        """Epochs of the longest trial."""
        drawn = [d for arm in self._arms for key, d in arm.space.items() if key == "epochs"]
        most = [max(d.values) if isinstance(d, Choice) else round(d.high) for d in drawn]
        return max([arm.recipe.epochs for arm in self._arms] + most, default=1)

    def stage(self, on_end: Callable[[Trial, Outcome], None], deadline: Deadline) -> Stage | None:
        """What is still to be tried; None without a search.

        Args:
            on_end: see `Stage`; it notes the trial in the ledger.
            deadline: see `Stage`.
        """
        search = self._settings
        if search is None or not self._arms:
            return None
        listed = search.algorithm in LISTED
        self._ledger.adopt([self._job(c) for c in (self.listed if listed else self._defaults)])
        if search.scheduler == "halving":
            stage = self._in_step(search, on_end, deadline)
        elif listed:
            stage = self._list(on_end, deadline)
        else:
            known = [(c, None if t["status"] == "failed" else t["score"]) for c, t in self.trials()]
            stage = OptunaStage(
                "search", self._arms, self._n_trials, self._sampler(search, len(known)), make=self._trial,
                known=known, on_end=on_end, deadline=deadline, first=self._ledger.free_number(),
            )  # fmt: skip
        if self._has_budget:
            stage.total = min(stage.total, search.trials)
        return stage

    @property
    def _defaults(self) -> list[Candidate]:
        return [arm.default for arm in self._arms]

    @cached_property
    def _listed_ids(self) -> set[str]:
        return {candidate.id for candidate in self.listed}

    @property
    def _n_trials(self) -> int:
        assert self._settings is not None
        return self._settings.trials * (MORE_TRIALS if self._has_budget else 1)

    def _trial(self, number: int, candidate: Candidate, until: int | None = None) -> Trial:
        # A backbone's default recipe runs to its end: every other is held against it, and often it is kept.
        stoppable = candidate.id not in self.default_ids
        return Trial("search", "cell", self._job(candidate), number, stoppable, until)

    def _list(self, on_end: Callable[[Trial, Outcome], None], deadline: Deadline) -> Stage:
        done = {candidate.id for candidate, trial in self._ledger.noted() if trial["status"] != "failed"}
        missing = [c for c in self.listed if c.id not in done]
        trials = [self._trial(n, c) for n, c in self._ledger.numbered(missing)]
        return Stage("search", trials, on_end, deadline, sum(c.id in self.default_ids for c in missing))

    def _in_step(
        self, search: SearchSettings, on_end: Callable[[Trial, Outcome], None], deadline: Deadline
    ) -> Stage:
        scores: dict[str, float | None] = {}
        if search.algorithm in LISTED:
            # A budget may end a rung before it decides: with it, rungs are small.
            generations = listed_generations(
                self.listed, GENERATION if self._has_budget else len(self.listed)
            )
        else:
            # What was known is asked for and told again in the same order, so the seed is that of a new run.
            sampler = self._sampler(search)
            generations = sampled_generations(self._arms, self._n_trials, sampler, scores)
        known: Mapping[str, Any] = {c.id: t for c, t in self.trials() if t["status"] != "failed"}
        number = self._ledger.numbering()
        return HalvingStage(
            "search", generations, max(search.trials, len(self._arms)), self.most_epochs, self._metric,
            make=lambda candidate, until: self._trial(number(candidate), candidate, until),
            always=self.default_ids, scores=scores, known=known, on_end=on_end, deadline=deadline,
            at_least=len(self.default_ids - known.keys()),
        )  # fmt: skip

    def _sampler(self, search: SearchSettings, seed: int = 0) -> OptunaSampler:
        sampler = OptunaSampler(self._arms, search.algorithm, search.seed + seed, self._metric, self._chance)
        for candidate, score in self._hints:
            # Only what would be trained alike is comparable.
            if any(a.is_of(candidate) and a.recipe.epochs == candidate.recipe.epochs for a in self._arms):
                sampler.learn(candidate, score)
        return sampler
