"""Any combiner, with its decisions tuned for a score of labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import CombinerError
from ..metrics import METRICS, Metric, get_metric
from ..predictions import Predictions
from .base import Floats, Labels
from .composite import Wrapper
from .inner import inner_cross_fit, inner_splits

#: Factors tried for a class, while those of the others stand still: 1/8 to 8, in steps of a quarter octave.
GRID = 2 ** np.linspace(-3, 3, 25)

#: Rounds over all classes.
PASSES = 3

#: Scores closer than this are a tie, which goes to the factor nearest to 1.
TIE = 1e-12


@dataclass(eq=False, kw_only=True)
class Thresholds(Wrapper):
    """Multiplies the probability of each class by a factor, so that the first choices score better.

    The best first choice is the most probable class for accuracy only: a class that is rare but counts as
    much as any other (macro F1, balanced accuracy) has to be chosen earlier. The factors come from a search
    one class at a time over `GRID` on inner cross-fitted rows of the base. They are kept only if they help on
    rows they were not tuned on: factors of the other inner parts, applied to each part, have to score better
    than none. Else all factors are 1 and the base answers alone (`helps_`).

    With factors, the probabilities are about decisions; their log loss is worse than that of the base.

    Attributes:
        base: key of any combiner.
        base_params: its hyperparameters.
        metric: what is tuned, the name of a metric that looks at first choices alone.
        factors_: float64 (classes,), their geometric mean 1.
        held_out_: float64 (2,), the score on held-out inner rows without factors and with them.
    """

    name: ClassVar[str] = "thresholds"
    learned: ClassVar[tuple[str, ...]] = ("factors_", "held_out_")

    metric: str = "macro_f1"
    factors_: Floats = field(init=False, repr=False)
    held_out_: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_metric(self.metric)
        if not get_metric(self.metric).labels_only:
            fit = ", ".join(name for name, metric in METRICS.items() if metric.labels_only)
            raise CombinerError(
                f"{self.name}: metric is {self.metric!r}, which factors do not help; expected one of first "
                f"choices: {fit}"
            )

    @classmethod
    def tuned_for(cls, metric: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """The metric of a run is tuned where it scores first choices; the base has it in any case."""
        tuned = super().tuned_for(metric, options)
        if "metric" not in options and not get_metric(metric).labels_only:
            del tuned["metric"]
        return tuned

    @property
    def helps_(self) -> bool:
        """Whether factors improved the held-out inner rows; where not, all of them are 1."""
        before, after = (float(score) for score in self.held_out_)
        return get_metric(self.metric).improvement(after, before) > TIE

    def _fit_rows(self, predictions: Predictions) -> None:
        base, labels, metric = self._new_base(), predictions.labels, get_metric(self.metric)
        metric.require_classes(predictions.classes)
        self.inner_ = {"base": base.clone().fit(predictions)}
        self.factors_ = np.ones(predictions.n_classes)
        self.held_out_ = np.full(2, np.nan)
        honest = inner_cross_fit(base, predictions)
        if honest is None:
            return
        checked = honest.astype(np.float64)
        for fitted, held_out in inner_splits(labels, predictions.fold):
            checked[held_out] *= tune_factors(honest[fitted], labels[fitted], metric)
        self.held_out_ = np.array([metric(labels, honest), metric(labels, checked)])
        if self.helps_:
            self.factors_ = tune_factors(honest, labels, metric)

    def _combine_rows(self, predictions: Predictions) -> Floats:
        return self._ask("base", predictions) * self.factors_


def tune_factors(proba: NDArray[Any], labels: Labels, metric: Metric) -> Floats:
    """The factors found by coordinate search, float64 (classes,); 1 for classes without a row.

    A row's first choice is either the class that is moved or the best of the others, which stands still: the
    scores of the whole grid come from counts of (label, first choice) pairs.
    """
    proba = proba.astype(np.float64)
    n_classes = proba.shape[1]
    octaves = np.zeros(n_classes)
    for _ in range(PASSES):
        before = octaves.copy()
        for k in np.unique(labels):
            scores = _grid_scores(proba * 2**octaves, int(k), labels, metric, 2 ** -octaves[k])
            tied = np.flatnonzero(scores >= scores.max() - TIE)
            octaves[k] = np.log2(GRID[tied[np.abs(np.log2(GRID[tied])).argmin()]])
        if np.array_equal(before, octaves):
            break
    return np.asarray(2 ** (octaves - octaves.mean()))


def _grid_scores(proba: Floats, k: int, labels: Labels, metric: Metric, undo: float) -> Floats:
    """Score, greater better, of each factor of class `k`; `undo` takes its present factor away."""
    n_samples, n_classes = proba.shape
    own = proba[:, k] * undo
    others = proba.copy()
    others[:, k] = -1
    rival = others.argmax(axis=1)
    best = others[np.arange(n_samples), rival]
    scaled = own[:, None] * GRID
    wins = (scaled > best[:, None]) | ((scaled == best[:, None]) & (k < rival)[:, None])
    pairs, code = np.unique(
        np.concatenate([labels * n_classes + k, labels * n_classes + rival]), return_inverse=True
    )
    rows = np.concatenate([wins, ~wins]).astype(np.float64)
    counts = np.stack([np.bincount(code, rows[:, g], len(pairs)) for g in range(len(GRID))], axis=1)
    scores = metric.sign * metric.score(pairs // n_classes, np.eye(n_classes)[pairs % n_classes], counts)
    return np.where(np.isnan(scores), -np.inf, scores)  # undefined is no reason to move
