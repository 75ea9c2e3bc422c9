"""Scores of all rows on the same resamples: what every interval and every comparison is made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import PredictionsError
from ..metrics import Metric
from ..predictions import Predictions
from .intervals import difference_interval, p_value, proportion_interval, score_interval
from .significance import bootstrap_scores, bootstrap_weights, holm, weighted_means

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

#: Most resampled differences held at once (32 MiB).
_CHUNK = 2**22


@dataclass(frozen=True)
class Difference:
    """How much better one row is than another; a list of them is ready for `pandas.DataFrame`.

    Attributes:
        first: name of a row.
        second: name of the row it is compared with.
        delta: improvement of `first` on `second`, in units of the metric; positive is better.
        low: lower end of the interval of `delta`.
        high: upper end.
        p_value: two-sided, of this comparison alone.
        corrected: p-value corrected for all comparisons of the list (Holm 1979).
    """

    first: str
    second: str
    delta: float
    low: float
    high: float
    p_value: float
    corrected: float


@dataclass(frozen=True, eq=False)
class Resampled:
    """Scores on the data and on resamples of them, the same resamples for every row; see `resample`.

    Attributes:
        names: of the rows.
        metric: of the scores.
        scores: float64 (rows,).
        samples: float64 (rows, n_boot).
        n_units: what was drawn independently: samples, or groups.
        proportion: whether each score is a share of samples, such as an accuracy.
    """

    names: tuple[str, ...]
    metric: Metric
    scores: Floats
    samples: Floats
    n_units: int
    proportion: bool

    def intervals(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """Low and high end of every row's score, float64 (rows,), within the range of the metric."""
        find = proportion_interval if self.proportion else score_interval
        low, high = find(self.scores, self.samples, self.n_units, level)
        return np.maximum(low, self.metric.low), np.minimum(high, self.metric.high)

    def against(self, reference: str, level: float = 0.95) -> list[Difference]:
        """Every other row compared with this one, in their order.

        Raises:
            PredictionsError: no row has that name.
        """
        if reference not in self.names:
            raise PredictionsError(f"reference: {reference!r} is not among {list(self.names)}")
        second = self.names.index(reference)
        first = np.delete(np.arange(len(self.names)), second)
        return self._differences(first, np.full_like(first, second), level)

    def difference(self, first: str, second: str, level: float = 0.95) -> Difference:
        """One row compared with another, both by name; nothing is corrected for."""
        pair = np.array([self.names.index(first)]), np.array([self.names.index(second)])
        return self._differences(*pair, level)[0]

    def all_pairs(self, level: float = 0.95) -> list[Difference]:
        """Every pair once, the better row first, best rows first: rows x (rows - 1) / 2 of them."""
        ranking = np.argsort(-self.metric.sign * self.scores, kind="stable")
        better, worse = np.triu_indices(len(ranking), k=1)
        return self._differences(ranking[better], ranking[worse], level)

    def _differences(self, first: Indices, second: Indices, level: float) -> list[Difference]:
        delta = self.metric.improvement(self.scores[first], self.scores[second])
        low, high, p = (np.empty(len(delta)) for _ in range(3))
        step = max(1, _CHUNK // max(self.samples.shape[1], 1))
        for start in range(0, len(delta), step):
            part = slice(start, start + step)
            samples = self.metric.improvement(self.samples[first[part]], self.samples[second[part]])
            low[part], high[part] = difference_interval(delta[part], samples, self.n_units, level)
            p[part] = p_value(delta[part], samples, self.n_units)
        columns = zip(delta, low, high, p, holm(p), strict=True)
        return [
            Difference(self.names[a], self.names[b], *(float(value) for value in numbers))
            for a, b, numbers in zip(first, second, columns, strict=True)
        ]


def resample(
    predictions: Predictions,
    metric: Metric,
    *,
    groups: ArrayLike | None = None,
    n_boot: int = 2000,
    seed: int = 0,
) -> Resampled:
    """Scores every member on the data and on `n_boot` resamples that all members share.

    Args:
        predictions: the rows to compare: single models, and ensembles as cross-fitted.
        metric: any.
        groups: (samples,), of any type; samples of one group are drawn together.
        n_boot: resamples.
        seed: of the draws.

    Example:
        >>> from ensembler.metrics import METRICS
        >>> rows = Predictions.from_arrays([[[0.9, 0.1]] * 4, [[0.6, 0.4]] * 4], [0] * 4, [0, 0, 1, 1])
        >>> pair = resample(rows, METRICS["log_loss"], n_boot=100).all_pairs()[0]
        >>> pair.first, pair.second, round(pair.delta, 3)
        ('m0', 'm1', 0.405)
    """
    weights = bootstrap_weights(predictions.n_samples, n_boot, seed, groups)
    n_units = predictions.n_samples if groups is None else len(np.unique(np.asarray(groups)))
    labels, proba = predictions.labels, predictions.proba
    scores = np.array([metric(labels, slab) for slab in proba])
    if metric.per_row is None:
        samples, proportion = bootstrap_scores(predictions, metric, weights), False
    else:
        rows = np.stack([metric.per_row(labels, slab) for slab in proba])
        samples = weighted_means(rows, weights)
        proportion = bool(((rows == 0) | (rows == 1)).all())
    return Resampled(predictions.members, metric, scores, samples, n_units, proportion)
