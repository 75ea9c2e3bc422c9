"""How a sweep spends its budget: what it decided, kept in the manifest, and what it has learned of the speed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from ..config import Config
from ..metrics import Metric
from ..training.candidate import Candidate, CellJob, TrainingData, digest
from .arms import Arm
from .budget import (
    LAST_TRIAL_SHARE,
    MORE_KEPT,
    MOST_EPOCHS,
    OVERHEAD,
    SEARCH_SHARE,
    Budget,
    Finish,
    Pace,
    fit_epochs,
    makespan,
)
from .crossval import BudgetStage, Decisions
from .ledger import SweepStore
from .plan import Outcome, Trial
from .select import Ranking, chance_score, near_best, rank

Trials = Iterable[tuple[Candidate, Mapping[str, Any]]]


class Spending:
    """A budget over one run.

    Args:
        config: with a `budget`.
        data: the out-of-fold images.
        store: of the run.
        metric: direction of the scores.
        began: `time.monotonic()` when the run began.
        n_probes: candidates that screening trains.
    """

    def __init__(
        self,
        config: Config,
        data: TrainingData,
        store: SweepStore,
        metric: Metric,
        began: float,
        n_probes: int,
    ) -> None:
        assert config.budget is not None
        self._config = config
        self._data = data
        self._store = store
        self._metric = metric
        self._began = began
        self._n_probes = n_probes
        self._seconds = config.budget

    @property
    def budget(self) -> Budget:
        """With what comes after the last Cell, as far as speeds are known by now."""
        speeds = self._speeds().values()
        known = {"images_per_s": len(speeds) / sum(1 / s for s in speeds)} if speeds else {}
        finish = Finish(
            rows=len(self._data.labels),
            classes=len(self._data.classes),
            folds=len(self._data.folds),
            boosting=any(entry.name == "boosting" for entry in self._config.ensembles),
            test_rows=self._store.manifest().get("test_images", 0),
            **known,
        )
        return Budget(self._seconds, self._began, finish)

    @cached_property
    def pace(self) -> Pace:
        """Made when the speeds have been measured; it learns from then on."""
        rows = len(self._data.folds[0][0])
        return Pace({name: rows / speed * OVERHEAD for name, speed in self._speeds().items()})

    def asked(self, arms: Sequence[Arm]) -> str:
        """What decisions depend on, beside the time."""
        search = self._config.search.model_dump() if self._config.search else None
        return digest([self._seconds, self._config.keep, search, [arm.key for arm in arms]])

    def has_searched(self, arms: Sequence[Arm]) -> bool:
        """Whether the budget has ended the search of these arms, in an earlier process too."""
        return bool(self._store.manifest().get("searched") == self.asked(arms))

    def fit_epochs(self, arms: Sequence[Arm], slots: int | None) -> list[tuple[Arm, int, float]] | None:
        """How many epochs each arm may have so that there is time for one candidate of each.

        Args:
            arms: with the epochs of the config.
            slots: trials at a time; None as long as Ray has not said it, and then what was decided before.

        Returns:
            (arm, epochs, expected seconds of training an epoch of all folds) each, 0 epochs where it is left out; None
            when nothing was decided and `slots` is not known.
        """
        folds = self._data.folds
        asked = [self._seconds, len(folds), [arm.key for arm in arms]]
        fitted = self._store.manifest().get("fitted_epochs", {})
        if fitted.get("asked") != asked:
            if slots is None:
                return None
            steps = len(folds[0][0]) * (len(folds) - 1) * OVERHEAD
            speeds = self._speeds()
            # One whose measuring failed is taken for endlessly fast: nothing is known by which to cut it.
            costs = [steps / speeds.get(arm.backbone, 1e12) / slots for arm in arms]
            wanted = arms[0].recipe.epochs
            seconds = (1 - SEARCH_SHARE) * self.budget.left_s(len(arms) + self._n_probes)
            fitted = {
                "asked": asked,
                "wanted": wanted,
                "epochs": fit_epochs(costs, wanted, seconds),
                "epoch_s": costs,
            }
            self._store.update_manifest(fitted_epochs=fitted)
        return list(zip(arms, fitted["epochs"], fitted["epoch_s"], strict=True))

    def search_deadline(self, arms: Sequence[Arm], trials: Trials, slots: int) -> float:
        """When the search may start its last trial, from what trials have taken so far."""
        trials = list(trials)
        defaults = {arm.default.id for arm in arms}
        finished = {c.id for c, trial in trials if trial["status"] == "finished"}
        ranking = rank(trials, self._metric)
        keep, folds = self._config.keep, range(len(self._data.folds))
        found = ranking.turn[: max(keep, len(ranking.must))] or [arm.default for arm in arms]
        cells = [[self.pace.cell_s(c)] * len(folds[c.id in finished :]) for c in found]
        while len(cells) < keep:  # those that are still to be found will take as long
            cells.append(cells[len(cells) % len(found)][: len(folds) - 1])
        needed = [
            makespan([], [s for one in cells[:n] for s in one], slots) for n in range(1, len(cells) + 1)
        ]
        trial_s = [float(t["seconds"]) for c, t in trials if t["seconds"] and c.id not in defaults]
        trial_s = trial_s or [self.pace.cell_s(arm.default) for arm in arms]
        n_must = min(len(needed), len({(arm.backbone, arm.weights) for arm in arms}))
        most_s = None
        if self._most_epochs:
            n_must = min(n_must, len(self._contenders(ranking, trials)) or n_must)
            long = [self.pace.cell_s(c.with_epochs(self._most_epochs)) for c in found]
            most_s = makespan([], [s for i in range(keep) for s in [long[i % len(long)]] * len(folds)], slots)
        ends = self.budget.search_ends(needed, n_must, self._n_probes, most_s)
        return ends - sum(trial_s) / len(trial_s) * LAST_TRIAL_SHARE

    def crossval(
        self,
        arms: Sequence[Arm],
        trials: Trials,
        slots: int,
        missing: Callable[[Candidate], Sequence[CellJob]],
        on_decision: Callable[[Decisions], None],
        on_end: Callable[[Trial, Outcome], None],
    ) -> BudgetStage:
        """The stage that takes on what there is time for; from now on the search is over.

        Args:
            arms: with the epochs of the config.
            trials: of the search.
            slots: that train at a time.
            missing: the Cells of a candidate that are still to be trained.
            on_decision: told of all decisions, at once and after each.
            on_end: see `Stage`.
        """
        asked = self.asked(arms)
        self._store.update_manifest(searched=asked)
        decided = self._store.manifest().get("afforded", {})
        decisions = Decisions.from_dict(decided) if decided.get("asked") == asked else Decisions()

        def note() -> None:
            on_decision(decisions)
            self._store.update_manifest(afforded={"asked": asked, **decisions.to_dict()})

        note()
        trials = list(trials)
        ranking = rank(trials, self._metric)
        wanted = len(ranking.kept(self._config.keep))
        contenders = self._contenders(ranking, trials)
        turn = [*contenders, *(c for c in ranking.turn if c not in contenders)]
        return BudgetStage(
            "crossval", turn, wanted, max(wanted, MORE_KEPT * self._config.keep), decisions,
            self.budget, self.pace, slots, missing=missing, on_decision=note, on_end=on_end,
            others=self._n_probes, most_epochs=self._most_epochs, n_equal=len(contenders),
        )  # fmt: skip

    @property
    def _most_epochs(self) -> int:
        """To which epochs are raised; 0 where the config says how many there are."""
        search = self._config.search
        free = search is not None and search.epochs == "auto" and "epochs" not in search.space
        return MOST_EPOCHS if free and "epochs" not in self._config.recipe else 0

    def _contenders(self, ranking: Ranking, trials: Trials) -> list[Candidate]:
        """The best of every backbone, as far as it comes near the best of all."""
        scores = {c.id: trial["score"] for c, trial in trials}
        chance = chance_score(self._metric, self._data.labels, len(self._data.classes))
        return near_best({c: scores[c.id] for c in ranking.must}, self._metric, chance)

    def _speeds(self) -> dict[str, float]:
        """Images a second of training, by backbone, as measured."""
        return {
            name: max(found["images_per_s"].values())
            for name, found in self._store.manifest().get("numerics", {}).items()
            if found.get("images_per_s")
        }
