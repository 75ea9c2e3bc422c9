"""Fold collapse: one network instead of the k fold models of a candidate, in several ways; see docs/design.md.

It trains on out-of-fold rows alone, once the winner has been chosen; `collapsed.py` compares the ways on the test
split.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import Config
from ..metrics import Metric
from ..training.candidate import COLLAPSED, EVERY_ROW, Candidate, CellJob, Numerics, TrainingData, digest
from .after import EPOCHS_A_PART, source_of
from .budget import Budget, makespan
from .execute import Observer, execute, ray_session, share_resources, slots_for, threads_for
from .ledger import SweepStore
from .left_out import LeftOut
from .plan import Chain, Outcome, Stage, Trial
from .watchdog import watchdog_for

#: A way of the config -> the kind of candidate that takes the place of the fold models.
WAYS = {"refit": "refit", "soup": "fold-soup", "distill": "student"}


@dataclass(frozen=True)
class Teacher:
    """The ensemble that students learn from.

    Attributes:
        members: ids of the candidates that it uses.
        file: its cross-fitted probabilities: `.npy` float32 (samples, classes).
    """

    members: tuple[str, ...]
    file: Path


@dataclass(frozen=True)
class Option:
    """One way to deploy a candidate.

    Attributes:
        of: the candidate.
        way: "folds", or a key of `WAYS`.
        deployed: whose Cells run: the candidate itself for "folds"; None where there are none.
        reason: why there are none, or "".
    """

    of: Candidate
    way: str
    deployed: Candidate | None = None
    reason: str = ""


def options_of(
    candidate: Candidate, ways: Sequence[str], best_epochs: Sequence[int], teacher: Teacher | None
) -> list[Option]:
    """A candidate's fold models first, then every way that was asked for, those that there are not with the reason.

    Args:
        candidate: to deploy.
        ways: "folds" and keys of `WAYS`.
        best_epochs: of its fold models.
        teacher: of students; None where there is no ensemble.
    """
    options = [Option(candidate, "folds", candidate)]
    epochs = math.ceil(statistics.median(best_epochs))
    recipe = dataclasses.replace(candidate.recipe, epochs=max(1, epochs), average_best=1)
    for way in (way for way in WAYS if way in ways):
        reason = _why_not(candidate, way, teacher)
        if reason:
            options.append(Option(candidate, way, reason=reason))
            continue
        made = dataclasses.replace(candidate, kind=WAYS[way], parts=(candidate.id,))
        if way == "refit":
            made = dataclasses.replace(made, recipe=recipe)
        elif way == "distill":
            assert teacher is not None
            # The teacher's probabilities take the place of label smoothing.
            unsmoothed = dataclasses.replace(recipe, label_smoothing=0.0)
            made = dataclasses.replace(made, recipe=unsmoothed, parts=teacher.members)
        options.append(Option(candidate, way, made))
    return options


def _why_not(candidate: Candidate, way: str, teacher: Teacher | None) -> str:
    """Why a candidate cannot be collapsed in some way, or ""."""
    if candidate.frozen_body:
        return "its fold models are heads on one frozen network already"
    if way == "distill" and teacher is None:
        return "there is no ensemble to learn from"
    if way != "soup" and candidate.kind == "soup":
        return "a soup is mixed, not trained"
    if way == "refit" and candidate.kind == "boosted":
        return "what its rows weigh differs from fold to fold"
    return ""


class Collapse:
    """Trains what could take the place of the fold models of some candidates.

    Args:
        config: its `collapse` and `resources`.
        data: the out-of-fold images, with `cells`.
        store: of the run.
        observer: told of everything that happens.
        metric: direction of the scores.
        budget: of the run; None where there is none.
        n_candidates: on the board, which take their time on the test split.
    """

    def __init__(
        self,
        config: Config,
        data: TrainingData,
        store: SweepStore,
        observer: Observer,
        metric: Metric,
        budget: Budget | None = None,
        n_candidates: int = 0,
    ) -> None:
        self._config = config
        self._data = data
        self._store = store
        self._observer = observer
        self._metric = metric
        self._budget = budget
        self._n_candidates = n_candidates
        self._decided = LeftOut(store, "collapse_left_out", [config.budget])
        self._threads = 1
        self._taught = ""

    def run(self, candidates: Sequence[Candidate], teacher: Teacher | None) -> list[Option]:
        """Trains whatever is missing.

        Args:
            candidates: to deploy.
            teacher: of students; None where there is no ensemble.

        Returns:
            Every option, those that failed or had no time with the reason.

        Raises:
            StoreError: a Cell could not be written.
        """
        options = [
            option
            for candidate in candidates
            for option in options_of(candidate, self._config.collapse, self._best_epochs(candidate), teacher)
        ]
        if teacher is not None:
            self._taught = hashlib.sha256(teacher.file.read_bytes()).hexdigest()
            self._data = dataclasses.replace(self._data, teacher=teacher.file)
        reasons = {made.name: self._decided.known(made.name) for made in self._missing(options)}
        if not all(reasons.values()):
            reasons = self._train(options)
        return [
            dataclasses.replace(option, deployed=None, reason=reasons[option.deployed.name])
            if option.deployed and reasons.get(option.deployed.name)
            else option
            for option in options
        ]

    def _train(self, options: Sequence[Option]) -> dict[str, str]:
        """Trains what is missing; returns by name why something could not be."""
        with ray_session() as (cpus, gpus):
            wanted = (self._config.resources.cpus, self._config.resources.gpus)
            resources = share_resources(cpus, gpus, wanted)
            slots = slots_for(resources, cpus, gpus)
            self._threads = threads_for(resources)
            missing = self._missing(options)
            reasons = self._no_time(missing, slots)
            jobs = [self._job(made) for made in missing if not reasons.get(made.name)]

            def note(trial: Trial, outcome: Outcome) -> None:
                if outcome.status == "failed":
                    reasons[trial.job.candidate.name] = outcome.reason

            trials = [Trial("collapse", "cell", job, i) for i, job in enumerate(jobs)]
            chain = Chain([lambda: Stage("collapse", trials, note)])
            watchdog = watchdog_for(self._config.resources.stalled_after, self._data, self._store.manifest)
            execute(
                chain, self._data, self._store, resources, self._observer, self._metric, slots,
                watchdog=watchdog,
            )  # fmt: skip
        return reasons

    def _no_time(self, missing: Mapping[Candidate, Candidate], slots: int) -> dict[str, str]:
        """By name, why the budget has no time for something; in turn, each after those before it."""
        if self._budget is None:
            return {}
        reasons: dict[str, str] = {}
        taken: list[float] = []
        left = self._budget.left_s(self._n_candidates)
        for made, candidate in missing.items():
            seconds = self._seconds(made, candidate)
            reasons[made.name] = self._decided.decide(made.name, makespan([], [*taken, seconds], slots), left)
            if not reasons[made.name]:
                taken.append(seconds)
        return reasons

    # ------------------------------------------------------------------ pieces

    @property
    def _folds(self) -> range:
        return range(len(self._data.folds))

    def _best_epochs(self, candidate: Candidate) -> list[int]:
        return [self._store.cell(candidate.id, fold).best_epoch for fold in self._folds]

    def _missing(self, options: Sequence[Option]) -> dict[Candidate, Candidate]:
        """What has no Cell yet -> the candidate whose fold models it may replace."""
        return {
            option.deployed: option.of
            for option in options
            if option.deployed is not None
            and option.deployed.kind in COLLAPSED
            and not self._store.has_cell(self._job(option.deployed), self._data.fingerprint)
        }

    def _job(self, candidate: Candidate) -> CellJob:
        source = source_of(self._store, candidate, self._folds)
        if candidate.kind == "student":
            source = digest([source, self._taught])
        numerics = self._store.manifest().get("numerics", {}).get(candidate.backbone, {})
        arithmetic = Numerics.from_dict(numerics)
        return CellJob(candidate, EVERY_ROW, self._config.seed, arithmetic, self._threads, source=source)

    def _seconds(self, made: Candidate, candidate: Candidate) -> float:
        """About how long something trains, from what the fold models of its candidate took."""
        cells = [self._store.cell(candidate.id, fold) for fold in self._folds]
        trained_s, epochs = sum(cell.train_s for cell in cells), sum(len(cell.history()) for cell in cells)
        epoch_s = float(trained_s / max(1, epochs))
        if made.kind == WAYS["soup"]:
            return EPOCHS_A_PART * epoch_s * len(cells)
        return epoch_s * made.recipe.epochs * len(self._data.labels) / len(self._data.folds[0][0])
