"""The training half of the road: measure, screen, search, cross-validate.

Every stage asks the store what is done and trains the rest, so that the same command after a crash, or with one more
backbone, trains only what is missing.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from ..config import Config
from ..errors import TrainingError
from ..metrics import Metric, get_metric
from ..training.candidate import Candidate, CellJob, CellResult, Numerics, TrainingData, digest
from ..training.recipe import Recipe
from .arms import ReadyBackbone, make_arms
from .budget import OVERHEAD, Budget, fit_epochs
from .execute import Observer, execute, ray_session, share_resources, slots_for, threads_for
from .plan import Chain, Outcome, Stage, Trial
from .search import OptunaStage, grid_candidates, random_candidates

#: The fold on which recipes are searched.
SEARCH_FOLD = 0


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


@dataclass
class SweepResult:
    """What came out: candidates whose Cells are all there, and those that failed, with their reasons."""

    candidates: list[Candidate] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)


def _failure(candidate: Candidate, fold: int | None, stage: str, reason: str) -> dict[str, Any]:
    return {
        "name": candidate.name,
        "candidate_id": candidate.id,
        "candidate": candidate.to_dict(),
        "fold": fold,
        "stage": stage,
        "reason": reason,
    }


class Sweep:
    """One sweep over one run; `run` does it.

    Args:
        config: the experiment's.
        data: the out-of-fold images.
        backbones: with their weights found.
        store: the run's.
        observer: told of everything that happens.
        began: `time.monotonic()` when the run began, from which a budget counts; None is now.
    """

    def __init__(
        self,
        config: Config,
        data: TrainingData,
        backbones: Sequence[ReadyBackbone],
        store: SweepStore,
        observer: Observer,
        began: float | None = None,
    ) -> None:
        self.config = config
        self.data = data
        self.backbones = backbones
        self.store = store
        self.observer = observer
        self.metric: Metric = get_metric(data.metric)
        self.arms = self._full_arms = make_arms(config, backbones)
        self.result = SweepResult()
        began = time.monotonic() if began is None else began
        self._budget = Budget(config.budget, began) if config.budget else None
        self._slots = 1
        self._failed: dict[str, dict[str, Any]] = {}

    def run(self, address: str | None = None, gpus: int | None = None) -> SweepResult:
        """Trains whatever is missing.

        Raises:
            TrainingError: not one candidate could be trained on all folds; the reasons are in its message.
            StoreError: a Cell could not be written.
        """
        chain = Chain([self._measure, self._screen, self._search, self._crossval])
        if self._anything_missing():
            with ray_session(address, gpus) as (cpus, found_gpus):
                wanted = (self.config.resources.cpus, self.config.resources.gpus)
                self.resources = share_resources(cpus, found_gpus, wanted)
                self._slots = slots_for(self.resources, cpus, found_gpus)
                search = self.config.search
                asha = search.epochs if search and search.scheduler == "asha" else None
                execute(
                    chain,
                    self.data,
                    self.store,
                    self.resources,
                    self.observer,
                    self.metric,
                    self._slots,
                    asha,
                )
        else:
            self._pick()
        self._collect()
        return self.result

    # ------------------------------------------------------------------ stages

    def _measure(self) -> Stage | None:
        known = self._numerics()
        timed = "precision" if self._budget is None else "images_per_s"  # what has to be known
        names = list(dict.fromkeys(b.name for b in self.backbones if timed not in known.get(b.name, {})))
        pinned: dict[str, Any] = {}
        if self.config.numerics != "auto":
            pinned = self.config.numerics.model_dump()
        if pinned and self._budget is None:  # a budget has to know how fast each backbone is
            self.store.update_manifest(numerics=known | dict.fromkeys(names, pinned))
            return None
        arms = {arm.backbone: arm for arm in self.arms}
        trials = [
            Trial("measure", "measure", self._job(arms[n].default, 0, Numerics()), i)
            for i, n in enumerate(names)
            if n in arms
        ]

        def note(trial: Trial, outcome: Outcome) -> None:
            if outcome.status == "finished":
                name = trial.job.candidate.backbone
                self.store.update_manifest(numerics=self._numerics() | {name: {**outcome.extra, **pinned}})

        return Stage("measure", trials, note) if trials else None

    def _screen(self) -> Stage | None:
        self._fit_epochs()
        jobs = [self._job(c, f) for f in range(len(self.data.folds)) for c in self._probes()]
        return self._cells("screen", jobs)

    def _search(self) -> Stage | None:
        search = self.config.search
        if search is None or not self.arms:
            return None
        defaults = [arm.default for arm in self.arms]
        if search.algorithm == "optuna":
            self._adopt_cells(defaults)
            known = [
                (candidate, None if trial["status"] == "failed" else trial["score"])
                for candidate, trial in self._noted()
                if self._belongs(candidate)
            ]
            return OptunaStage(
                "search", self.arms, search.trials, search.seed, self.metric,
                make=self._search_trial, known=known, on_end=self._note_trial, deadline=self._deadline,
                first=self._free_number(),
            )  # fmt: skip
        wanted = self._listed
        self._adopt_cells(wanted)
        done = {candidate.id for candidate, trial in self._noted() if trial["status"] != "failed"}
        missing = [c for c in wanted if c.id not in done]
        trials = [self._search_trial(n, c) for n, c in self._numbered(missing)]
        at_least = sum(c in defaults for c in missing)
        return Stage("search", trials, self._note_trial, self._deadline, at_least)

    def _crossval(self) -> Stage | None:
        self._pick()
        jobs = [self._job(c, f) for c in self._kept for f in range(len(self.data.folds))]
        return self._cells("crossval", jobs)

    # ------------------------------------------------------------------ pieces

    def _job(self, candidate: Candidate, fold: int, numerics: Numerics | None = None) -> CellJob:
        if numerics is None:
            known = self._numerics().get(candidate.backbone, {})
            numerics = Numerics(**{k: known[k] for k in Numerics.__dataclass_fields__ if k in known})
        threads = threads_for(self.resources) if hasattr(self, "resources") else 1
        return CellJob(candidate, fold, self.config.seed, numerics, threads)

    def _numerics(self) -> dict[str, Any]:
        return dict(self.store.manifest().get("numerics", {}))

    def _probes(self) -> list[Candidate]:
        wanted = self.config.screen or "probe" in self.config.strategies
        return [
            Candidate(b.name, b.weights.label, "probe", Recipe())
            for b in self.backbones
            if wanted and b.weights.label != "random"
        ]

    def _noted(self) -> list[tuple[Candidate, dict[str, Any]]]:
        """The trials that the store knows, by number."""
        return [(Candidate.from_dict(trial["candidate"]), trial) for trial in self.store.trials()]

    def _free_number(self) -> int:
        return 1 + max((trial["number"] for trial in self.store.trials()), default=-1)

    def _numbered(self, candidates: Sequence[Candidate]) -> list[tuple[int, Candidate]]:
        """Each with the number of its earlier, failed trial, or one that no trial has."""
        known = {candidate.id: trial["number"] for candidate, trial in self._noted()}
        fresh = itertools.count(self._free_number())
        return [(known[c.id] if c.id in known else next(fresh), c) for c in candidates]

    def _belongs(self, candidate: Candidate) -> bool:
        """Whether the config as it is now could have brought a candidate forth; a run may hold older ones."""
        if self.config.search is not None and self.config.search.algorithm == "optuna":
            return any(arm.covers(candidate) for arm in self.arms)
        return candidate in self._listed

    @cached_property
    def _listed(self) -> list[Candidate]:
        """Candidates of a search that the seed alone decides."""
        search = self.config.search
        if search is None:
            return [arm.default for arm in self.arms]
        if not self.arms:
            return []
        if search.algorithm == "grid":
            return grid_candidates(self.arms, search.trials)
        return random_candidates(self.arms, search.trials, search.seed)

    def _cells(self, stage: str, jobs: Sequence[CellJob]) -> Stage | None:
        missing = [job for job in jobs if not self.store.has_cell(job, self.data.fingerprint)]
        trials = [Trial(stage, "cell", job, i) for i, job in enumerate(missing)]
        return Stage(stage, trials, self._note_cell) if trials else None

    def _search_trial(self, number: int, candidate: Candidate) -> Trial:
        # A backbone's default recipe runs to its end: every other is held against it, and often it is kept.
        stoppable = all(candidate != arm.default for arm in self.arms)
        return Trial("search", "cell", self._job(candidate, SEARCH_FOLD), number, stoppable)

    def _note_cell(self, trial: Trial, outcome: Outcome) -> None:
        if outcome.status == "failed":
            candidate = trial.job.candidate
            self._failed[candidate.id] = _failure(candidate, trial.job.fold, trial.stage, outcome.reason)

    def _note_trial(self, trial: Trial, outcome: Outcome) -> None:
        self._note_cell(trial, outcome)
        self.store.write_trial(
            trial.number,
            {
                "candidate": trial.job.candidate.to_dict(),
                "name": trial.job.candidate.name,
                "status": outcome.status,
                "score": outcome.score,
                "epochs": len(outcome.history),
                "seconds": round(outcome.seconds, 3),
                "reason": outcome.reason,
                "history": list(outcome.history),
            },
        )

    def _adopt_cells(self, candidates: Sequence[Candidate]) -> None:
        """Notes trials whose Cell was committed before the driver died and could note them."""
        noted = {candidate.id for candidate, trial in self._noted() if trial["status"] != "failed"}
        for number, candidate in self._numbered([c for c in candidates if c.id not in noted]):
            job = self._job(candidate, SEARCH_FOLD)
            if not self.store.has_cell(job, self.data.fingerprint):
                continue
            cell = self.store.cell(candidate.id, SEARCH_FOLD)
            history = cell.history().to_dict(orient="records")
            outcome = Outcome("finished", cell.score, history=tuple(history), seconds=cell.train_s)
            self._note_trial(Trial("search", "cell", job, number), outcome)

    def _pick(self) -> None:
        """Chooses what is cross-validated: the best by monitor score, at least one of every arm's backbone."""
        if self.config.search is None:
            self._kept = list(dict.fromkeys(arm.default for arm in self.arms))
            return
        order = {"finished": 0, "stopped": 1}
        trials = [
            (candidate, trial)
            for candidate, trial in self._noted()
            if trial["status"] in order and trial["score"] is not None and self._belongs(candidate)
        ]
        # Stopped trials come last: the scheduler has found them weak, and their fold is still to be trained.
        # Equal scores are ordered by content: numbers depend on what an earlier, killed run had finished.
        trials.sort(
            key=lambda t: (order[t[1]["status"]], -self.metric.improvement(t[1]["score"], 0.0), t[0].id)
        )
        ranked = list(dict.fromkeys(candidate for candidate, _ in trials))
        first: dict[tuple[str, str], Candidate] = {}
        for candidate in ranked:
            first.setdefault((candidate.backbone, candidate.weights), candidate)
        must = list(first.values())
        rest = [c for c in ranked if c not in must]
        chosen = set(self._affordable(must + rest[: max(0, self.config.keep - len(must))], len(must), trials))
        self._kept = [c for c in ranked if c in chosen]

    def _affordable(
        self, kept: list[Candidate], n_must: int, trials: Sequence[tuple[Candidate, Mapping[str, Any]]]
    ) -> list[Candidate]:
        """Those that a budget has time to cross-validate; the first `n_must` whatever it takes.

        What is left out is recorded.
        """
        if self._budget is None:
            return kept
        asked = digest([self.config.budget, self.config.keep, sorted(c.id for c, _ in trials)])
        decided = self.store.manifest().get("afforded", {})
        if decided.get("asked") == asked:  # a run that goes on keeps to what it decided
            self._failed |= {failure["candidate_id"]: failure for failure in decided["left_out"]}
            return [c for c in kept if c.id in decided["kept"]]
        left = self._budget.left_s
        per_epoch = {c.id: trial["seconds"] / max(1, trial["epochs"]) for c, trial in reversed(trials)}
        chosen: list[Candidate] = []
        left_out: list[dict[str, Any]] = []
        for position, candidate in enumerate(kept):
            jobs = [self._job(candidate, f) for f in range(len(self.data.folds))]
            missing = sum(not self.store.has_cell(job, self.data.fingerprint) for job in jobs)
            cost = per_epoch[candidate.id] * candidate.recipe.epochs * missing / self._slots
            if position >= n_must and cost > left:
                reason = (
                    f"left out: its folds need about {cost:.0f} s, the budget has {max(0, left):.0f} s left"
                )
                left_out.append(_failure(candidate, None, "crossval", reason))
                continue
            left -= cost
            chosen.append(candidate)
        self._failed |= {failure["candidate_id"]: failure for failure in left_out}
        self.store.update_manifest(
            afforded={"asked": asked, "kept": [c.id for c in chosen], "left_out": left_out}
        )
        return chosen

    @property
    def _deadline(self) -> float | None:
        """When a budget ends the search."""
        return None if self._budget is None else self._budget.search_deadline

    def _fit_epochs(self) -> None:
        """Cuts the epochs of slow backbones so that a budget has time for one candidate of each, and records it."""
        if self._budget is None or "epochs" in self.config.recipe:
            return
        asked = [self.config.budget, len(self.data.folds), [arm.key for arm in self._full_arms]]
        fitted = self.store.manifest().get("fitted_epochs", {})
        if fitted.get("asked") != asked:
            if not hasattr(self, "resources"):
                return  # Ray has not been asked yet how much runs at a time
            steps = len(self.data.folds[0][0]) * (len(self.data.folds) - 1) * OVERHEAD
            speeds = {
                name: max(found["images_per_s"].values())
                for name, found in self._numerics().items()
                if found.get("images_per_s")
            }
            # One whose measuring failed is taken for endlessly fast: nothing is known by which to cut it.
            costs = [steps / speeds.get(arm.backbone, 1e12) / self._slots for arm in self.arms]
            wanted = self.arms[0].recipe.epochs
            epochs = fit_epochs(costs, wanted, self._budget.crossval_s)
            fitted = {"asked": asked, "wanted": wanted, "epochs": epochs}
            self.store.update_manifest(fitted_epochs=fitted)
        self.arms = [
            dataclasses.replace(arm, recipe=dataclasses.replace(arm.recipe, epochs=n))
            for arm, n in zip(self._full_arms, fitted["epochs"], strict=True)
        ]
        self.__dict__.pop("_listed", None)

    def _anything_missing(self) -> bool:
        """Whether Ray is needed at all: a finished run is read without starting it."""
        if self._measure() or self._screen():
            return True
        if self._budget is not None and self.arms is self._full_arms and "epochs" not in self.config.recipe:
            return True
        search = self._search()
        if search is not None and search.total:
            return True
        return self._crossval() is not None

    def _collect(self) -> None:
        everyone = self._probes() + self._kept
        for candidate in everyone:
            jobs = [self._job(candidate, f) for f in range(len(self.data.folds))]
            missing = [j.fold for j in jobs if not self.store.has_cell(j, self.data.fingerprint)]
            if not missing:
                self.result.candidates.append(candidate)
        for candidate, trial in self._noted():  # also those that failed when this run was last started
            if trial["status"] == "failed" and self._belongs(candidate):
                self._failed.setdefault(
                    candidate.id, _failure(candidate, SEARCH_FOLD, "search", trial["reason"])
                )
        complete = {candidate.id for candidate in self.result.candidates}
        self.result.failed = [f for key, f in self._failed.items() if key not in complete]
        if not self.result.candidates:
            reasons = "; ".join(f"{f['name']}: {f['reason']}" for f in self.result.failed) or "no trial ended"
            raise TrainingError(f"no candidate could be trained on every fold: {reasons}")
