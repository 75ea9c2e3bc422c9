"""The training half of the road: measure, screen, search, cross-validate.

Every stage asks the store what is done and trains the rest, so that the same command after a crash, or with one more
backbone, trains only what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..config import Config
from ..config_settings import ScreenSettings
from ..errors import TrainingError
from ..metrics import Metric, get_metric
from ..training.candidate import FROZEN_BODY, Candidate, CellJob, Numerics, TrainingData
from ..training.recipe import Recipe
from .after import AfterCrossval, source_of
from .arms import Arm, ReadyBackbone, make_arms
from .budget import Budget
from .crossval import Decisions
from .execute import Observer, execute, ray_session, share_resources, slots_for, threads_for
from .ledger import Ledger, SweepStore
from .plan import Chain, Outcome, Stage, Trial
from .refine import Previous, arms_to_dicts, refined_arms
from .screen import dropped_backbones
from .select import chance_score, rank
from .spending import Spending
from .trials import SearchPlan
from .watchdog import watchdog_for

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
        arms = make_arms(config, backbones, len(data.folds[0][0]))
        self._hints: list[tuple[Candidate, float]] = []
        if previous is not None:
            arms, self._hints = refined_arms(arms, config, store, previous)
        store.update_manifest(space=arms_to_dicts(arms))  # for runs that refine this one
        self.result = SweepResult()
        self._ledger = Ledger(store, data.fingerprint)
        self._spending: Spending | None = None
        if config.budget is not None:
            began = time.monotonic() if began is None else began
            self._spending = Spending(config, data, store, self.metric, began, len(self._probes()))
        self._slots: int | None = None
        self._failed: dict[str, dict[str, Any]] = {}
        self._full_arms = arms
        self._set_arms(arms)
        self._after = AfterCrossval(
            config, store, self.metric, self._spending, len(data.folds),
            complete=lambda: [c for c in self._probes() + self._kept if not self._missing(c)],
            arms=lambda: self.arms, missing=self._missing, slots=lambda: self._slots, on_end=self._note_cell,
        )  # fmt: skip

    def run(self, address: str | None = None, gpus: int | None = None) -> SweepResult:
        """Trains whatever is missing.

        Raises:
            TrainingError: not one candidate could be trained on all folds; the reasons are in its message.
            StoreError: a Cell could not be written.
        """
        chain = Chain([self._measure, self._screen, self._search, self._crossval, *self._after.makers])
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
                    self._plan.most_epochs,
                    late=self._spending is not None,
                    watchdog=watchdog_for(
                        self.config.resources.stalled_after, self.data, self.store.manifest
                    ),
                )
        self._collect()
        return self.result

    @property
    def budget(self) -> Budget | None:
        """What there is time for, and from when it counts; None where there is no budget."""
        return None if self._spending is None else self._spending.budget

    # ------------------------------------------------------------------ stages

    def _measure(self) -> Stage | None:
        known = self._numerics()
        timed = "precision" if self._spending is None else "images_per_s"  # what has to be known
        names = list(dict.fromkeys(b.name for b in self.backbones if timed not in known.get(b.name, {})))
        pinned: dict[str, Any] = {}
        if self.config.numerics != "auto":
            pinned = self.config.numerics.model_dump()
        if pinned and self._spending is None:  # a budget has to know how fast each backbone is
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
        return self._cells("screen", [self._job(c, f) for f in self._folds for c in self._probes()])

    def _search(self) -> Stage | None:
        self._settle_arms()
        if self._spending is None:
            return self._plan.stage(self._note_trial, None)
        if self._spending.has_searched(self._full_arms):
            return None
        for candidate, trial in self._ledger.noted():
            self._spending.pace.learn(
                candidate, trial["seconds"], trial["epochs"], trial["status"] == "finished"
            )
        return self._plan.stage(self._note_trial, self._deadline)

    def _crossval(self) -> Stage | None:
        if self.config.search is None:
            self._kept = list(dict.fromkeys(arm.default for arm in self.arms))
        elif self._spending is None:
            self._kept = rank(self._plan.trials(), self.metric).kept(self.config.keep)
        else:
            stage = self._spending.crossval(
                self._full_arms, self._plan.trials(), self._slots or 1, self._missing,
                on_decision=self._note_decisions, on_end=self._note_cell,
            )  # fmt: skip
            return stage if stage.open else None
        return self._cells("crossval", [self._job(c, f) for c in self._kept for f in self._folds])

    # ------------------------------------------------------------------ pieces

    def _job(self, candidate: Candidate, fold: int, numerics: Numerics | None = None) -> CellJob:
        if numerics is None:
            numerics = Numerics.from_dict(self._numerics().get(candidate.backbone, {}))
        threads = threads_for(self.resources) if hasattr(self, "resources") else 1
        source = source_of(self.store, candidate, [fold])
        return CellJob(candidate, fold, self.config.seed, numerics, threads, source=source)

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

    def _note_cell(self, trial: Trial, outcome: Outcome) -> None:
        if outcome.status == "failed":
            candidate = trial.job.candidate
            self._failed[candidate.id] = _failure(candidate, trial.job.fold, trial.stage, outcome.reason)

    def _note_trial(self, trial: Trial, outcome: Outcome) -> None:
        self._note_cell(trial, outcome)
        candidate = trial.job.candidate
        self._ledger.note(trial.number, candidate, outcome)
        if self._spending is not None:
            finished = outcome.status == "finished"
            self._spending.pace.learn(candidate, outcome.seconds, len(outcome.history), finished)

    def _note_decisions(self, decisions: Decisions) -> None:
        self._kept = decisions.kept  # which the stage adds to
        self._failed |= {c.id: _failure(c, None, "crossval", reason) for c, reason in decisions.left_out}

    def _deadline(self) -> float:
        assert self._spending is not None
        return self._spending.search_deadline(self.arms, self._plan.trials(), self._slots or 1)

    # ------------------------------------------------------------------ arms

    def _set_arms(self, arms: Sequence[Arm]) -> None:
        self.arms = arms
        self._plan = SearchPlan(
            self.config.search, arms, self._ledger, self.metric, self._hints,
            has_budget=self._spending is not None, job=lambda candidate: self._job(candidate, SEARCH_FOLD),
            chance=chance_score(self.metric, self.data.labels, len(self.data.classes)),
        )  # fmt: skip

    def _settle_arms(self) -> bool:
        """Leaves out what screening has dropped, cuts epochs to fit a budget; False when that is not known yet."""
        screen = self.config.screen
        if isinstance(screen, ScreenSettings):
            dropped = dropped_backbones(screen.keep, self._probes(), self.data, self.store)
            # Random weights have no features to be judged by.
            lost = [a for a in self._full_arms if a.backbone in dropped and a.weights != "random"]
            for arm in lost:
                failure = _failure(arm.default, None, "screen", dropped[arm.backbone])
                self._failed.setdefault(arm.default.id, failure)
            self._full_arms = [arm for arm in self._full_arms if arm not in lost]
        arms: Sequence[Arm] | None = self._full_arms
        if self._spending is not None and self._full_arms and "epochs" not in self.config.recipe:
            fitted = self._spending.fit_epochs(self._full_arms, self._slots)
            arms = None if fitted is None else self._affordable(fitted)
        if arms is not None and list(arms) != list(self.arms):
            self._set_arms(arms)
        return arms is not None

    def _affordable(self, fitted: Sequence[tuple[Arm, int, float]]) -> list[Arm]:
        """The arms that a budget has time for; the others are noted as left out."""
        assert self.config.budget is not None
        for arm, epochs, epoch_s in fitted:
            if not epochs:
                reason = (
                    f"not fine-tuned: an epoch of all folds takes about {epoch_s:.0f} s, too long for the budget of "
                    f"{self.config.budget:.0f} s"
                )
                failure = _failure(arm.default, None, "search", reason)
                self._failed.setdefault(arm.default.id, failure)
        return [arm.with_epochs(epochs) for arm, epochs, _ in fitted if epochs]

    def _anything_missing(self) -> bool:
        """Whether Ray is needed at all: a finished run is read without starting it."""
        if self._measure() or self._screen():
            return True
        if not self._settle_arms():
            return True
        search = self._search()
        if search is not None and search.total:
            return True
        return self._crossval() is not None or any(make() is not None for make in self._after.makers)

    def _collect(self) -> None:
        everyone = self._probes() + self._kept + self._after.candidates
        for candidate in everyone:
            if not self._missing(candidate):
                self.result.candidates.append(candidate)
        for candidate, trial in self._ledger.noted():  # also those that failed when this run was last started
            if trial["status"] == "failed" and self._plan.belongs(candidate):
                self._failed.setdefault(
                    candidate.id, _failure(candidate, SEARCH_FOLD, "search", trial["reason"])
                )
        complete = {candidate.id for candidate in self.result.candidates}
        failed = [f for key, f in self._failed.items() if key not in complete]
        # Not in the order in which they ended, which is another one each time.
        self.result.failed = sorted(failed, key=lambda f: str(f["name"]))
        for name, reason in self._after.left_out.items():
            self.result.failed.append(
                {"name": name, "fold": None, "stage": "after crossval", "reason": reason}
            )
        if not self.result.candidates:
            reasons = "; ".join(f"{f['name']}: {f['reason']}" for f in self.result.failed) or "no trial ended"
            raise TrainingError(f"no candidate could be trained on every fold: {reasons}")
