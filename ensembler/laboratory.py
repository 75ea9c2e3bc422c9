"""One ensemble after another over the same rows: what the app's lab asks, answered while somebody waits.

Every number is the leaderboard's own: `cross_fit` scores, and the same resamples give the intervals. Those, and what
the best single model scores on them, are made once; an answer costs its fits and one product with the resamples. Up to
10,000 rows there are as many resamples as on the leaderboard; beyond, fewer, so that an answer takes no longer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .combiners import COMBINERS
from .comparison import make_entry
from .errors import CombinerError
from .evaluation.contribution import Contributions, contributions
from .evaluation.cost import Cost
from .evaluation.cross_fit import CrossFit, cross_fit, require_folds
from .evaluation.paired import Difference, Resampled
from .evaluation.significance import bootstrap_scores, bootstrap_weights, weighted_means
from .evaluation.subsets import MeanValue
from .metrics import Metric
from .predictions import Predictions

Floats = NDArray[np.float64]
Report = Callable[[int, int], None]
Answer = TypeVar("Answer")

#: Combiners that answer in under a second at 50 members, 10,000 rows and 10 classes; `benchmarks/lab.py` measures it.
FAST = ("mean", "weighted", "greedy", "convex")

#: Metrics that greedy selection searches as fast: it knows their loss from tables.
_TABLES = ("log_loss", "brier")

#: Combiners that are made of others, which the lab does itself.
_OURS = ("subset",)

#: What an ensemble is called while it has no name.
UNNAMED = "this ensemble"

#: Resamples where rows are few, as on the leaderboard; most (row, resample) pairs; and resamples of a metric that is no
#: mean over rows, where each costs a pass over them.
_RESAMPLES, _PAIRS, _PASSES = 2000, 20_000_000, 200

#: Answers that are kept.
_KEPT = 128

#: Numbers that all orders behind the contributions may look at: half a second.
_LOOKS = 12_000_000


@dataclass(frozen=True)
class Setup:
    """An ensemble as somebody puts it together.

    Attributes:
        members: that are switched on.
        combiner: a key of `choices`.
        weights: of the members, in their order, for the combiner "weighted"; only their ratios count.
        limit_ms: most milliseconds an image, for the combiner "constrained", which searches under it.
    """

    members: tuple[str, ...]
    combiner: str = "mean"
    weights: tuple[float, ...] = ()
    limit_ms: float | None = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What an ensemble is worth, and what it costs.

    Attributes:
        fit: cross-fitted score, in-sample score, and the combiner fitted on everything.
        low, high: 95 % interval of the score.
        gain: on the best single model, positive is better; its p-value is of this comparison alone.
        cost: of the members that are used.
        n_resamples: behind the intervals.
    """

    fit: CrossFit
    low: float
    high: float
    gain: Difference
    cost: Cost
    n_resamples: int

    @property
    def members(self) -> tuple[str, ...]:
        """The members that influence the answer."""
        return self.fit.combiner.used_members_

    @property
    def weights(self) -> dict[str, float] | None:
        """Share of each member, where the answer is a weighted mean."""
        combiner = self.fit.combiner
        if combiner.weights_ is None:
            return None
        return dict(zip(combiner.members_, (float(w) for w in combiner.weights_), strict=True))


class Laboratory:
    """Answers for the members of one run; may be shared between threads.

    Args:
        predictions: out-of-fold rows of the single models, of two folds or more.
        metric: of every score.
        costs: of the single models, by name.
        groups: (samples,), rows of one group are resampled together.

    Attributes:
        scores: of the single models, by name.
        best_single: the best of them; of equal ones the first.

    Raises:
        PredictionsError: fewer than two folds.
    """

    def __init__(
        self,
        predictions: Predictions,
        metric: Metric,
        costs: Mapping[str, Cost] | None = None,
        groups: ArrayLike | None = None,
    ) -> None:
        require_folds(predictions)
        self.predictions, self.metric, self.costs = predictions, metric, dict(costs or {})
        n_rows = predictions.n_samples
        self._n_units = n_rows if groups is None else len(np.unique(np.asarray(groups)))
        n_resamples = _RESAMPLES if n_rows * _RESAMPLES <= _PAIRS else max(_PASSES, _PAIRS // n_rows)
        self._resamples = bootstrap_weights(n_rows, n_resamples, 0, groups)
        if metric.per_row is None:
            self._resamples = np.ascontiguousarray(self._resamples[:, :_PASSES])
        self.scores = {
            name: metric(predictions.labels, slab)
            for name, slab in zip(predictions.members, predictions.proba, strict=True)
        }
        self.best_single = max(predictions.members, key=lambda name: metric.sign * self.scores[name])
        self._best = self._resampled(predictions.select([self.best_single]))
        self._known: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = Lock()

    # ------------------------------------------------------------------ what it is asked

    def choices(self) -> list[str]:
        """The combiners that can be chosen, those that answer at once first."""
        keys = [*FAST, *(key for key in COMBINERS if key not in (*FAST, *_OURS))]
        if self.cost(self.predictions.members).latency_ms is None:
            keys.remove("constrained")  # without costs there is nothing to keep to
        return sorted(keys, key=lambda key: not self.is_fast(key))

    def is_fast(self, combiner: str) -> bool:
        """Whether it answers at once, even where members and rows are many."""
        return combiner in FAST and (combiner != "greedy" or self.metric.name in _TABLES)

    def cost(self, members: Sequence[str]) -> Cost:
        """What these members cost together; unknown where one of them is."""
        return Cost.total(self.costs, dict.fromkeys(members, 1.0))

    def knows(self, setup: Setup) -> bool:
        """Whether `measure` answers at once, since somebody has asked before."""
        return setup in self._known

    def measure(self, setup: Setup, report: Report | None = None) -> Outcome:
        """The ensemble, scored as the leaderboard would.

        Args:
            setup: what to measure.
            report: is told how many fits are done, and of how many.

        Raises:
            CombinerError: no members, weights that are none, or a limit that no member keeps to.
        """
        return self._remembered(setup, lambda: self._measure(setup, report))

    def contributions(self, members: Sequence[str]) -> Contributions:
        """What each of these members adds to their plain mean; as many orders as half a second allows."""
        chosen = tuple(members)
        return self._remembered(("contributions", chosen), lambda: self._contributions(chosen))

    def options(self, setup: Setup) -> dict[str, Any]:
        """The ensemble as an entry of a config's `ensembles`: what `saving.save_ensemble` takes.

        Raises:
            CombinerError: no members, or no weight for each.
        """
        _require(setup)
        if setup.combiner == "weighted":
            weights = dict(zip(setup.members, setup.weights, strict=True))
            return {"combiner": "weighted", "weights": weights}
        params = self._params(setup)
        base = {"base": setup.combiner, **({"base_params": params} if params else {})}
        return {"combiner": "subset", "members": sorted(setup.members), **base}

    # ------------------------------------------------------------------ pieces

    def _params(self, setup: Setup) -> dict[str, Any]:
        """Hyperparameters that are not the defaults."""
        costs = {name: self.costs.get(name, Cost()).latency_ms for name in sorted(setup.members)}
        if setup.combiner == "constrained" and setup.limit_ms is not None:
            return {"costs": costs, "limit": setup.limit_ms}
        if setup.combiner == "cascade" and None not in costs.values():
            return {"costs": costs}
        return {}

    def _measure(self, setup: Setup, report: Report | None) -> Outcome:
        _require(setup)
        if setup.combiner == "weighted":
            options = self.options(setup)
        else:  # the base of a subset, given these members alone: the same without their names
            options = {"combiner": setup.combiner, **self._params(setup)}
        combiner = make_entry(setup.combiner, options, self.metric)
        members = self.predictions.select(sorted(setup.members))
        fit = cross_fit(combiner, members, self.metric, UNNAMED, report)
        own, best = self._resampled(fit.predictions), self._best
        pair = Resampled(
            (UNNAMED, self.best_single),
            self.metric,
            np.concatenate([own.scores, best.scores]),
            np.concatenate([own.samples, best.samples]),
            self._n_units,
            own.proportion,
        )
        low, high = own.intervals()
        return Outcome(
            fit=fit,
            low=float(low[0]),
            high=float(high[0]),
            gain=pair.difference(UNNAMED, self.best_single),
            cost=Cost.total(self.costs, fit.combiner.asked_(members)),
            n_resamples=self._resamples.shape[1],
        )

    def _resampled(self, one: Predictions) -> Resampled:
        """A single row's score, on the data and on the resamples."""
        metric, labels, proba = self.metric, one.labels, one.proba[0]
        scores = np.array([metric(labels, proba)])
        if metric.per_row is None:
            samples, proportion = bootstrap_scores(one, metric, self._resamples), False
        else:
            rows = metric.per_row(labels, proba)
            samples = weighted_means(rows[None], self._resamples)
            proportion = bool(((rows == 0) | (rows == 1)).all())
        return Resampled(one.members, metric, scores, samples, self._n_units, proportion)

    def _contributions(self, members: tuple[str, ...]) -> Contributions:
        chosen = self.predictions.select(members)
        width = {"log_loss": 1.0, "brier": 0.1}.get(
            self.metric.name, 4.0 * chosen.n_classes
        )  # see `MeanValue`
        looks = chosen.n_members * chosen.n_samples * width
        return contributions(MeanValue(chosen, self.metric), n_orders=int(np.clip(_LOOKS // looks, 4, 200)))

    def _remembered(self, key: Hashable, make: Callable[[], Answer]) -> Answer:
        """The answer that was given before, or a new one; nothing is locked while it is made."""
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return cast(Answer, self._known[key])
        answer = make()
        with self._lock:
            self._known[key] = answer
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return answer


def _require(setup: Setup) -> None:
    if not setup.members:
        raise CombinerError("no members: switch on one at least")
    if setup.combiner == "weighted" and len(setup.weights) != len(setup.members):
        raise CombinerError(f"weights: {len(setup.weights)} for {len(setup.members)} members; give one each")
