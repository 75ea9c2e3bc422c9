"""What a sweep makes of cross-validated candidates: boosted ones, a stage a round, then soups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ..config import Config
from ..metrics import Metric
from ..training.candidate import Candidate, CellJob, digest
from .arms import Arm
from .boosted import next_boosted
from .budget import makespan
from .ledger import SweepStore
from .left_out import LeftOut
from .plan import Outcome, Stage, Trial
from .soups import soups_of
from .spending import Spending

#: Time that a Cell takes to read one of its parts, in epochs of that part's training: its train or monitor rows are
#: predicted, for a soup running statistics estimated as well.
EPOCHS_A_PART = 0.5


def source_of(store: SweepStore, candidate: Candidate, folds: Sequence[int]) -> str:
    """What Cells are made from: a digest of the keys, temperatures and scores of their parts' Cells; "" without parts.

    A part that was trained again with other bits has another temperature. Neither holdout rows nor what was predicted
    of them is in it.

    Args:
        store: that has the Cells.
        candidate: its `parts`.
        folds: of the Cells that are read.
    """
    cells = [store.cell(part, fold) for part in candidate.parts for fold in folds]
    return digest([[cell.key, cell.temperature, cell.score] for cell in cells]) if cells else ""


class AfterCrossval:
    """The stages after cross-validation; each is made when those before it have ended, and may be made again.

    Args:
        config: `boosted`, `soups` and `budget`.
        store: of the run.
        metric: direction of the scores.
        spending: of the budget, where there is one.
        n_folds: of the run.
        complete: the candidates so far whose Cells are all there.
        arms: that may be trained.
        missing: the Cells of a candidate that are still to be trained.
        slots: that train at a time; None before that is known, when nothing is left out.
        on_end: see `Stage`.
    """

    def __init__(
        self,
        config: Config,
        store: SweepStore,
        metric: Metric,
        spending: Spending | None,
        n_folds: int,
        *,
        complete: Callable[[], Sequence[Candidate]],
        arms: Callable[[], Sequence[Arm]],
        missing: Callable[[Candidate], Sequence[CellJob]],
        slots: Callable[[], int | None],
        on_end: Callable[[Trial, Outcome], None],
    ) -> None:
        self._config = config
        self._store = store
        self._metric = metric
        self._spending = spending
        self._n_folds = n_folds
        self._complete = complete
        self._arms = arms
        self._missing = missing
        self._slots = slots
        self._on_end = on_end
        boosted = config.boosted.model_dump() if config.boosted else None
        self._decided = LeftOut(store, "after_crossval", [config.budget, boosted, config.soups])
        self._made: dict[str, list[Candidate]] = {}
        self._left_out: dict[str, dict[str, str]] = {}

    @property
    def makers(self) -> list[Callable[[], Stage | None]]:
        """For the chain, in order."""
        rounds = self._config.boosted.rounds if self._config.boosted else 0
        boosts = [partial(self._boost, number) for number in range(1, rounds + 1)]
        return [*boosts, *([self._soup] if self._config.soups else [])]

    @property
    def candidates(self) -> list[Candidate]:
        """All that have been made, whether their Cells are there or not."""
        return [candidate for made in self._made.values() for candidate in made]

    @property
    def left_out(self) -> dict[str, str]:
        """What was asked for and not made, with the reason."""
        return {name: reason for one in self._left_out.values() for name, reason in one.items()}

    # ------------------------------------------------------------------ stages

    def _boost(self, number: int) -> Stage | None:
        assert self._config.boosted is not None
        name = f"boosted, round {number}"
        self._made[name], self._left_out[name] = [], {}
        tried = [c for n in range(1, number) for c in self._made[f"boosted, round {n}"]]
        if len(tried) < number - 1:
            self._left_out[name][name] = "left out, as the round before it"
            return None
        ensemble = self._ensemble()
        scores = {candidate.id: self._score(candidate) for candidate in ensemble}
        backbones = self._config.boosted.backbones
        candidate = next_boosted(ensemble, tried, scores, self._arms(), self._metric, backbones)
        if candidate is None:
            what = "candidate of " + " or ".join(backbones) if backbones else "candidate"
            self._left_out[name][name] = f"left out: no fine-tuned {what} has all its Cells"
            return None
        jobs = self._missing(candidate)
        reason = self._no_time(name, jobs, self._training_s(candidate) + self._reading_s(ensemble))
        if reason:
            self._left_out[name][name] = reason
            return None
        self._made[name] = [candidate]
        return self._stage("boosted", jobs)

    def _soup(self) -> Stage | None:
        self._made["soup"], self._left_out["soup"] = [], {}
        ensemble = {candidate.id: candidate for candidate in self._ensemble()}
        jobs: list[CellJob] = []
        for soup in soups_of(list(ensemble.values())):
            missing = self._missing(soup)
            name = f"soup of {soup.backbone} ({soup.id[:6]})"
            reason = self._no_time(name, missing, self._reading_s([ensemble[part] for part in soup.parts]))
            if reason:
                self._left_out["soup"][name] = reason
            else:
                self._made["soup"].append(soup)
                jobs += missing
        if not self._made["soup"] and not self._left_out["soup"]:
            self._left_out["soup"]["soup"] = (
                "left out: no two candidates of one backbone started from the same pretrained weights; raise `keep`"
            )
        return self._stage("soup", jobs)

    # ------------------------------------------------------------------ pieces

    def _ensemble(self) -> list[Candidate]:
        """Fine-tuned candidates with all their Cells, boosted ones included."""
        boosted = [c for c in self.candidates if c.fine_tuned and not self._missing(c)]
        return [*(c for c in self._complete() if c.fine_tuned), *boosted]

    def _score(self, candidate: Candidate) -> float:
        """Mean score on the monitor rows of the folds."""
        scores = [float(self._store.cell(candidate.id, fold).score) for fold in range(self._n_folds)]
        return sum(scores) / len(scores)

    def _stage(self, name: str, jobs: Sequence[CellJob]) -> Stage | None:
        trials = [Trial(name, "cell", job, i) for i, job in enumerate(jobs)]
        return Stage(name, trials, self._on_end) if trials else None

    def _training_s(self, candidate: Candidate) -> float:
        return self._spending.pace.cell_s(candidate) if self._spending else 0.0

    def _reading_s(self, parts: Sequence[Candidate]) -> float:
        return EPOCHS_A_PART * sum(self._training_s(part) / part.recipe.epochs for part in parts)

    def _no_time(self, name: str, jobs: Sequence[CellJob], cell_s: float) -> str:
        """Why a budget has no time for some Cells, or ""."""
        if self._spending is None or not jobs:
            return ""
        slots = self._slots()
        if slots is None:
            return self._decided.known(name)
        left = self._spending.budget.left_s(len(self._complete()) + len(self.candidates) + 1)
        return self._decided.decide(name, makespan([], [cell_s] * len(jobs), slots), left)
