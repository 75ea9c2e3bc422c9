"""Is the difference real? Paired bootstrap, p-values, and their correction for many rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..metrics import Metric
from ..predictions import Predictions

Floats = NDArray[np.float64]

#: Scores closer than this are equal: sums of the same numbers in another order differ by less.
ROUNDING = 1e-9

#: Most float64 numbers of weights worked on at once (32 MiB).
_CHUNK = 2**22

#: Random numbers turned into weights at once: they stay in the processor's cache.
_DRAWS = 2**16


def bootstrap_weights(
    n_samples: int, n_boot: int, seed: int, groups: ArrayLike | None = None
) -> NDArray[np.uint8]:
    """How often each sample counts in each resample: Poisson(1), the limit of drawing with replacement.

    The same weights serve every member, which makes all comparisons paired.

    Args:
        n_samples: rows.
        n_boot: resamples.
        seed: of the draws.
        groups: (n_samples,), of any type; rows of one group are drawn together (cluster bootstrap).

    Returns:
        uint8 (n_samples, n_boot); no column is all zero.
    """
    cluster = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    n_drawn = n_samples if cluster is None else int(cluster.max()) + 1
    weights = _poisson(n_drawn * n_boot, np.random.default_rng(seed)).reshape(n_drawn, n_boot)
    # Empty resamples happen with a handful of rows only; where there are many, the first ones tell.
    empty = np.flatnonzero(~weights[:100].any(axis=0))
    weights[:, empty[~weights[:, empty].any(axis=0)]] = 1
    return weights if cluster is None else weights[cluster]


def bootstrap_scores(predictions: Predictions, metric: Metric, weights: NDArray[Any]) -> Floats:
    """The score of every member under every weighting.

    Args:
        predictions: m members over n samples.
        metric: any; means over rows are scored for all members by one matrix product.
        weights: (n, n_boot), see `bootstrap_weights`.

    Returns:
        float64 (m, n_boot), equal to a loop over resamples but for the order of sums (1e-12). Memory beyond
        the result and the losses of the rows is bounded whatever `n_boot` is.
    """
    labels, proba = predictions.labels, predictions.proba
    if metric.per_row is not None:
        return weighted_means(np.stack([metric.per_row(labels, slab) for slab in proba]), weights)
    scores = np.empty((predictions.n_members, weights.shape[1]))
    for chunk, part in _column_chunks(weights):
        for member, slab in enumerate(proba):
            scores[member, chunk] = metric.score(labels, slab, part)
    return scores


def weighted_means(values: Floats, weights: NDArray[Any]) -> Floats:
    """Means of the rows of a table under many weightings.

    The product is taken in float64, whose error stays below `ROUNDING`: float32 would be twice as fast, but
    rows that are equal would then differ by 1e-7 and no longer be tied.

    Args:
        values: (m, n).
        weights: (n, n_boot) of any number type, non-negative.

    Returns:
        float64 (m, n_boot); NaN under a weighting that is all zero.
    """
    n_samples, n_boot = weights.shape
    total, mass = np.zeros((len(values), n_boot)), np.zeros(n_boot)
    height = max(1, _CHUNK // max(n_boot, 1))
    for start in range(0, n_samples, height):
        part = weights[start : start + height].astype(np.float64)
        total += values[:, start : start + height] @ part
        mass += part.sum(axis=0)
    means: Floats = np.divide(total, mass, out=np.full_like(total, np.nan), where=mass > 0)
    return means


def interval(samples: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of (n_boot,) bootstrap samples; undefined ones (NaN) are left out.

    It is too narrow where rows are few or their losses skewed; `intervals.score_interval` is not.
    """
    tail = (1 - level) / 2
    values = np.asarray(samples, np.float64)
    defined = values[~np.isnan(values)]
    if not defined.size:
        return math.nan, math.nan
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def includes_zero(low: float, high: float) -> bool:
    """Whether an interval of a difference leaves open that there is none."""
    return low <= ROUNDING and high >= -ROUNDING


def holm(p_values: ArrayLike) -> Floats:
    """P-values corrected for their number (Holm 1979): the chance of any false discovery stays at the level.

    Args:
        p_values: (n,) in [0, 1], without NaN.

    Returns:
        float64 (n,), in the same order, at most 1.
    """
    raw = np.asarray(p_values, np.float64)
    order = np.argsort(raw, kind="stable")
    corrected = np.empty_like(raw)
    steps = raw[order] * np.arange(len(raw), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(raw) else steps
    return corrected


def _column_chunks(weights: NDArray[Any]) -> Iterator[tuple[slice, Floats]]:
    """Column slices of the weights, in float64."""
    n_samples, n_boot = weights.shape
    width = max(1, _CHUNK // n_samples)
    for start in range(0, n_boot, width):
        chunk = slice(start, start + width)
        yield chunk, weights[:, chunk].astype(np.float64)


def _poisson(size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draws from Poisson(1), uint8 (size,): ten times as fast as `rng.poisson`, exact to 1 / 65,536.

    A uniform 16-bit number is compared with the cumulative probabilities.
    """
    draws = np.zeros(size, np.uint8)
    for start in range(0, size, _DRAWS):
        part = draws[start : start + _DRAWS]
        uniform = rng.integers(2**16, size=len(part), dtype=np.uint16)
        for threshold in _THRESHOLDS:
            part += (uniform > threshold).view(np.uint8)
    return draws


def _thresholds() -> NDArray[np.uint16]:
    cumulative = np.cumsum([math.exp(-1) / math.factorial(k) for k in range(12)])
    steps = np.floor(cumulative * 2**16 - 0.5)
    return steps[steps < 2**16 - 1].astype(np.uint16)


_THRESHOLDS = _thresholds()
