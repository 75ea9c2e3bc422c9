"""The training half of the road: measure, screen, search, cross-validate.

Every stage asks the store what is done and trains the rest, so that the same command after a crash, or with one more
backbone, trains only what is missing.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..config import Config, ScreenSettings
from ..errors import TrainingError
from ..metrics import Metric, get_metric
from ..training.candidate import FROZEN_BODY, Candidate, CellJob, Numerics, TrainingData, digest
from ..training.recipe import Recipe
from ..training.space import Choice
from .arms import Arm, ReadyBackbone, make_arms
from .budget import (
    LAST_TRIAL_SHARE,
    MORE_KEPT,
    MORE_TRIALS,
    OVERHEAD,
    SEARCH_SHARE,
    Budget,
    Finish,
    Pace,
    fit_epochs,
    makespan,
)
from .crossval import BudgetStage, Decisions
from .execute import Observer, execute, ray_session, share_resources, slots_for, threads_for
from .halving import GENERATION, HalvingStage, listed_generations, sampled_generations
from .ledger import Ledger, SweepStore
from .plan import Chain, Deadline, Outcome, Stage, Trial
from .refine import Previous, arms_from_dicts, arms_to_dicts, refine
from .sampler import OptunaSampler
from .screen import rank_screened, score_backbones
from .search import OptunaStage, grid_candidates, random_candidates
from .select import rank

#: Algorithms whose candidates the seed alone decides.
LISTED = ("random", "grid")

#: The fold on which recipes are searched.
SEARCH_FOLD = 0


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


def _dropped(arm: Arm, dropped: Mapping[str, str]) -> bool:
    """Whether screening has dropped it; random weights have no features to be judged by."""
    return arm.backbone in dropped and arm.weights != "random"


class Sweep:
    """One sweep over one run; `run` does it.

    Args:
        config: the experiment's.
        data: the out-of-fold images.
        backbones: with their weights found.
        store: the run's.
        observer: told of everything that happens.
        began: `time.monotonic()` when the run began, from which a budget counts; None is now.
        previous: reads the run that this one refines; not called where that was done before. None refines none.
    """

    def __init__(
        self,
        config: Config,
        data: TrainingData,
        backbones: Sequence[ReadyBackbone],
        store: SweepStore,
        observer: Observer,
        began: float | None = None,
        previous: Callable[[], Previous] | None = None,
    ) -> None:
        self.config = config
        self.data = data
        self.backbones = backbones
        self.store = store
        self.observer = observer
        self.metric: Metric = get_metric(data.metric)
        self._hints: list[tuple[Candidate, float]] = []
        self.arms = self._full_arms = self._make_arms(previous)
        self.result = SweepResult()
        self._ledger = Ledger(store, data.fingerprint)
        began = time.monotonic() if began is None else began
        self._budget = Budget(config.budget, began, self._finish()) if config.budget else None
        self._slots = 1
        self._fitted = False
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
                scheduler = self.config.search.scheduler if self.config.search else "none"
                execute(
                    chain,
                    self.data,
                    self.store,
                    self.resources,
                    self.observer,
                    self.metric,
                    self._slots,
                    scheduler,
                    self._most_epochs,
                )
        self._collect()
        return self.result

    def _make_arms(self, previous: Callable[[], Previous] | None) -> list[Arm]:
        """The arms of the config, narrowed around an earlier run where it says so; noted for runs that refine this.

        What was read of the earlier run is kept: a run that goes on neither needs it nor follows its changes.
        """
        arms = make_arms(self.config, self.backbones, len(self.data.folds[0][0]))
        if previous is not None:
            manifest = self.store.manifest()
            asked = digest([self.config.refine, arms_to_dicts(arms)])
            refined = manifest.get("refined", {})
            if refined.get("asked") != asked:
                found = previous()
                pinned = ["epochs", *self.config.recipe]
                arms = refine(arms, found, pinned)
                same = found.same_question(manifest.get("identity", {}), self.config.metric)
                hints = [
                    [candidate.to_dict(), trial["score"]]
                    for candidate, trial in found.trials
                    if same and trial["status"] != "failed" and trial["score"] is not None
                ]
                refined = {"asked": asked, "from": found.path, "arms": arms_to_dicts(arms), "hints": hints}
                self.store.update_manifest(refined=refined)
            arms = arms_from_dicts(refined["arms"])
            self._hints = [(Candidate.from_dict(c), score) for c, score in refined["hints"]]
        self.store.update_manifest(space=arms_to_dicts(arms))
        return arms

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
        if self._budget is not None:  # the speeds are known now
            self._budget = dataclasses.replace(self._budget, finish=self._finish())
        jobs = [self._job(c, f) for f in range(len(self.data.folds)) for c in self._probes()]
        return self._cells("screen", jobs)

    def _search(self) -> Stage | None:
        search = self.config.search
        self._drop_arms()
        self._fit_epochs()
        if search is None or not self.arms or self._searched:
            return None
        listed = search.algorithm in LISTED
        wanted = self._listed if listed else [arm.default for arm in self.arms]
        self._ledger.adopt([self._job(c, SEARCH_FOLD) for c in wanted])
        stage = (
            self._halving()
            if search.scheduler == "halving"
            else self._list_stage()
            if listed
            else self._optuna_stage()
        )
        if self._budget is not None:  # which goes on for as long as there is time
            stage.total = min(stage.total, search.trials)
        return stage

    def _list_stage(self) -> Stage:
        done = {candidate.id for candidate, trial in self._ledger.noted() if trial["status"] != "failed"}
        missing = [c for c in self._listed if c.id not in done]
        trials = [self._search_trial(n, c) for n, c in self._ledger.numbered(missing)]
        at_least = sum(c.id in self._default_ids for c in missing)
        return Stage("search", trials, self._note_trial, self._deadline, at_least)

    def _optuna_stage(self) -> Stage:
        known = [
            (candidate, None if trial["status"] == "failed" else trial["score"])
            for candidate, trial in self._ledger.noted()
            if self._belongs(candidate)
        ]
        return OptunaStage(
            "search", self.arms, self._n_trials, self._sampler(len(known)), make=self._search_trial, known=known,
            on_end=self._note_trial, deadline=self._deadline, first=self._ledger.free_number(),
        )  # fmt: skip

    def _halving(self) -> Stage:
        search = self.config.search
        assert search is not None
        scores: dict[str, float | None] = {}
        if search.algorithm in LISTED:
            size = GENERATION if self._budget else len(self._listed)
            generations = listed_generations(self._listed, size)
        else:
            # What was known is asked for and told again in the same order, so the seed is that of a new run.
            generations = sampled_generations(self.arms, self._n_trials, self._sampler(), scores)
        known = {c.id: t for c, t in self._ledger.noted() if t["status"] != "failed" and self._belongs(c)}
        number = self._ledger.numbering()
        return HalvingStage(
            "search", generations, max(search.trials, len(self.arms)), self._most_epochs, self.metric,
            make=lambda candidate, until: self._search_trial(number(candidate), candidate, until),
            always=self._default_ids, scores=scores, known=known, on_end=self._note_trial,
            deadline=self._deadline, at_least=len(self._default_ids - known.keys()),
        )  # fmt: skip

    def _sampler(self, seed: int = 0) -> OptunaSampler:
        search = self.config.search
        assert search is not None
        sampler = OptunaSampler(self.arms, search.algorithm, search.seed + seed, self.metric)
        for candidate, score in self._hints:
            # Only what would be trained alike is comparable.
            if any(a.is_of(candidate) and a.recipe.epochs == candidate.recipe.epochs for a in self.arms):
                sampler.learn(candidate, score)
        return sampler

    def _crossval(self) -> Stage | None:
        if self._budget is None or self.config.search is None:
            self._kept = self._wanted()
            return self._cells("crossval", [self._job(c, f) for c in self._kept for f in self._folds])
        self.store.update_manifest(searched=self._asked)
        ranking = rank(self._belonging(), self.metric)
        decisions = self._decisions()
        self._kept = decisions.kept  # which the stage adds to

        def note() -> None:
            self._failed |= {c.id: _failure(c, None, "crossval", reason) for c, reason in decisions.left_out}
            self.store.update_manifest(
                afforded={
                    "asked": self._asked,
                    "kept": [c.to_dict() for c in decisions.kept],
                    "left_out": [[c.to_dict(), reason] for c, reason in decisions.left_out],
                    "closed": decisions.closed,
                }
            )

        note()
        wanted = len(ranking.kept(self.config.keep))
        stage = BudgetStage(
            "crossval", ranking.turn, wanted, max(wanted, MORE_KEPT * self.config.keep), decisions, self._budget,
            self._pace, self._slots, missing=self._missing, on_decision=note, on_end=self._note_cell,
            others=len(self._probes()),
        )  # fmt: skip
        return stage if stage.open else None

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
        wanted = {*self.config.strategies, *(("probe",) if self.config.screen else ())}
        return [
            Candidate(b.name, b.weights.label, strategy, Recipe())
            for strategy in FROZEN_BODY
            for b in self.backbones
            if strategy in wanted and b.weights.label != "random"
        ]

    def _belonging(self) -> list[tuple[Candidate, dict[str, Any]]]:
        """The trials of the config as it is now."""
        return [(candidate, trial) for candidate, trial in self._ledger.noted() if self._belongs(candidate)]

    def _belongs(self, candidate: Candidate) -> bool:
        """Whether the config as it is now could have brought a candidate forth; a run may hold older ones."""
        if self.config.search is not None and self.config.search.algorithm not in LISTED:
            return any(arm.covers(candidate) for arm in self.arms)
        return candidate.id in self._listed_ids

    @cached_property
    def _listed(self) -> list[Candidate]:
        """Candidates of a search that the seed alone decides."""
        search = self.config.search
        if search is None:
            return [arm.default for arm in self.arms]
        if not self.arms:
            return []
        if search.algorithm == "grid":
            return grid_candidates(self.arms, self._n_trials)
        return random_candidates(self.arms, self._n_trials, search.seed)

    @cached_property
    def _listed_ids(self) -> set[str]:
        return {candidate.id for candidate in self._listed}

    @cached_property
    def _default_ids(self) -> set[str]:
        return {arm.default.id for arm in self.arms}

    @property
    def _n_trials(self) -> int:
        """Trials of the search at most: a budget is spent."""
        assert self.config.search is not None
        return self.config.search.trials * (MORE_TRIALS if self._budget else 1)

    @property
    def _most_epochs(self) -> int:
        """Epochs of the longest trial of the search."""
        drawn = [d for arm in self.arms for key, d in arm.space.items() if key == "epochs"]
        most = [max(d.values) if isinstance(d, Choice) else round(d.high) for d in drawn]
        return max([arm.recipe.epochs for arm in self.arms] + most, default=1)

    @property
    def _folds(self) -> range:
        return range(len(self.data.folds))

    def _missing(self, candidate: Candidate) -> list[CellJob]:
        jobs = [self._job(candidate, fold) for fold in self._folds]
        return [job for job in jobs if not self.store.has_cell(job, self.data.fingerprint)]

    def _cells(self, stage: str, jobs: Sequence[CellJob]) -> Stage | None:
        missing = [job for job in jobs if not self.store.has_cell(job, self.data.fingerprint)]
        trials = [Trial(stage, "cell", job, i) for i, job in enumerate(missing)]
        return Stage(stage, trials, self._note_cell) if trials else None

    def _search_trial(self, number: int, candidate: Candidate, until: int | None = None) -> Trial:
        # A backbone's default recipe runs to its end: every other is held against it, and often it is kept.
        stoppable = candidate.id not in self._default_ids
        return Trial("search", "cell", self._job(candidate, SEARCH_FOLD), number, stoppable, until)

    def _note_cell(self, trial: Trial, outcome: Outcome) -> None:
        if outcome.status == "failed":
            candidate = trial.job.candidate
            self._failed[candidate.id] = _failure(candidate, trial.job.fold, trial.stage, outcome.reason)

    def _note_trial(self, trial: Trial, outcome: Outcome) -> None:
        self._note_cell(trial, outcome)
        self._ledger.note(trial.number, trial.job.candidate, outcome)
        finished = outcome.status == "finished"
        self._pace.learn(trial.job.candidate, outcome.seconds, len(outcome.history), finished)

    def _wanted(self) -> list[Candidate]:
        """What is cross-validated where time is no matter, best first."""
        if self.config.search is None:
            return list(dict.fromkeys(arm.default for arm in self.arms))
        return rank(self._belonging(), self.metric).kept(self.config.keep)

    def _drop_arms(self) -> None:
        """Leaves the search those backbones that screening found most promising, and records the others."""
        screen = self.config.screen
        if not isinstance(screen, ScreenSettings):
            return
        names = [b.name for b in self.backbones if b.weights.label != "random"]
        asked = digest([screen.keep, sorted(set(names)), self.data.fingerprint])
        screened = self.store.manifest().get("screened", {})
        if screened.get("asked") != asked:
            scores = score_backbones(self._probes(), self.data)
            screened = {"asked": asked, **rank_screened(scores, screen.keep)}
            self.store.update_manifest(screened=screened)
        dropped: dict[str, str] = screened["dropped"]
        for arm in self._full_arms:
            if _dropped(arm, dropped):
                failure = _failure(arm.default, None, "screen", dropped[arm.backbone])
                self._failed.setdefault(arm.default.id, failure)
        self._full_arms = [arm for arm in self._full_arms if not _dropped(arm, dropped)]
        self._set_arms(self._full_arms)

    # ------------------------------------------------------------------ budget

    def _finish(self) -> Finish:
        speeds = self._speeds().values()
        known = {"images_per_s": len(speeds) / sum(1 / s for s in speeds)} if speeds else {}
        return Finish(
            rows=len(self.data.labels),
            classes=len(self.data.classes),
            folds=len(self.data.folds),
            boosting=any(entry.name == "boosting" for entry in self.config.ensembles),
            test_rows=self.store.manifest().get("test_images", 0),
            **known,
        )

    @property
    def _asked(self) -> str:
        """What decisions under a budget depend on, beside the time."""
        search = self.config.search.model_dump() if self.config.search else None
        keys = [arm.key for arm in self._full_arms]
        return digest([self.config.budget, self.config.keep, search, keys])

    @property
    def _searched(self) -> bool:
        """Whether a budget has ended the search, in an earlier process too."""
        return self._budget is not None and self.store.manifest().get("searched") == self._asked

    def _decisions(self) -> Decisions:
        """What was decided already: a run that goes on keeps to it."""
        decided = self.store.manifest().get("afforded", {})
        if decided.get("asked") != self._asked:
            return Decisions()
        return Decisions(
            [Candidate.from_dict(c) for c in decided["kept"]],
            [(Candidate.from_dict(c), reason) for c, reason in decided["left_out"]],
            decided["closed"],
        )

    @cached_property
    def _pace(self) -> Pace:
        rows = len(self.data.folds[0][0])
        pace = Pace({name: rows / speed * OVERHEAD for name, speed in self._speeds().items()})
        for candidate, trial in self._ledger.noted():
            pace.learn(candidate, trial["seconds"], trial["epochs"], trial["status"] == "finished")
        return pace

    def _speeds(self) -> dict[str, float]:
        """Images a second of training, by backbone, as measured."""
        return {
            name: max(found["images_per_s"].values())
            for name, found in self._numerics().items()
            if found.get("images_per_s")
        }

    @property
    def _deadline(self) -> Deadline:
        return None if self._budget is None else self._search_deadline

    def _search_deadline(self) -> float:
        """When a budget lets the search start its last trial, from what trials have taken so far."""
        assert self._budget is not None
        trials = self._belonging()
        finished = {c.id for c, trial in trials if trial["status"] == "finished"}
        ranking = rank(trials, self.metric)
        found = ranking.turn[: max(self.config.keep, len(ranking.must))] or [arm.default for arm in self.arms]
        cells = [[self._pace.cell_s(c)] * len(self._folds[c.id in finished :]) for c in found]
        while (
            len(cells) < self.config.keep
        ):  # the search is still to find them: they will take as long as these
            cells.append(cells[len(cells) % len(found)][: len(self._folds) - 1])
        needed = [
            makespan([], [s for one in cells[:n] for s in one], self._slots) for n in range(1, len(cells) + 1)
        ]
        trial_s = [float(t["seconds"]) for c, t in trials if t["seconds"] and c.id not in self._default_ids]
        trial_s = trial_s or [self._pace.cell_s(arm.default) for arm in self.arms]
        n_must = min(len(needed), len({(arm.backbone, arm.weights) for arm in self.arms}))
        ends = self._budget.search_ends(needed, n_must, len(self._probes()))
        return ends - sum(trial_s) / len(trial_s) * LAST_TRIAL_SHARE

    def _fit_epochs(self) -> None:
        """Cuts the epochs of slow backbones so that a budget has time for one candidate of each, and records it."""
        self._fitted = self._budget is None or "epochs" in self.config.recipe or not self._full_arms
        if self._fitted:
            return
        assert self._budget is not None
        asked = [self.config.budget, len(self.data.folds), [arm.key for arm in self._full_arms]]
        fitted = self.store.manifest().get("fitted_epochs", {})
        if fitted.get("asked") != asked:
            if not hasattr(self, "resources"):
                return  # Ray has not been asked yet how much runs at a time
            steps = len(self.data.folds[0][0]) * (len(self.data.folds) - 1) * OVERHEAD
            speeds = self._speeds()
            # One whose measuring failed is taken for endlessly fast: nothing is known by which to cut it.
            costs = [steps / speeds.get(arm.backbone, 1e12) / self._slots for arm in self.arms]
            wanted = self.arms[0].recipe.epochs
            seconds = (1 - SEARCH_SHARE) * self._budget.left_s(len(self.arms) + len(self._probes()))
            epochs = fit_epochs(costs, wanted, seconds)
            fitted = {"asked": asked, "wanted": wanted, "epochs": epochs}
            self.store.update_manifest(fitted_epochs=fitted)
        self._set_arms([arm.with_epochs(n) for arm, n in zip(self._full_arms, fitted["epochs"], strict=True)])
        self._fitted = True

    def _set_arms(self, arms: list[Arm]) -> None:
        self.arms = arms
        for derived in ("_listed", "_listed_ids", "_default_ids"):
            self.__dict__.pop(derived, None)

    def _anything_missing(self) -> bool:
        """Whether Ray is needed at all: a finished run is read without starting it."""
        if self._measure() or self._screen():
            return True
        search = self._search()
        if not self._fitted or (search is not None and search.total):
            return True
        return self._crossval() is not None

    def _collect(self) -> None:
        everyone = self._probes() + self._kept
        for candidate in everyone:
            if not self._missing(candidate):
                self.result.candidates.append(candidate)
        for candidate, trial in self._ledger.noted():  # also those that failed when this run was last started
            if trial["status"] == "failed" and self._belongs(candidate):
                self._failed.setdefault(
                    candidate.id, _failure(candidate, SEARCH_FOLD, "search", trial["reason"])
                )
        complete = {candidate.id for candidate in self.result.candidates}
        self.result.failed = [f for key, f in self._failed.items() if key not in complete]
        if not self.result.candidates:
            reasons = "; ".join(f"{f['name']}: {f['reason']}" for f in self.result.failed) or "no trial ended"
            raise TrainingError(f"no candidate could be trained on every fold: {reasons}")
