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

#: Most float64 numbers of weights worked on at once (64 MiB).
_CHUNK = 2**23


def bootstrap_weights(
    n_samples: int, n_boot: int, seed: int, groups: ArrayLike | None = None
) -> NDArray[np.float32]:
    """How often each sample counts in each resample: Poisson(1), the limit of drawing with replacement.

    The same weights serve every member, which makes all comparisons paired.

    Args:
        n_samples: rows.
        n_boot: resamples.
        seed: of the draws.
        groups: (n_samples,), of any type; rows of one group are drawn together (cluster bootstrap).

    Returns:
        float32 (n_samples, n_boot); no column is all zero.
    """
    rng = np.random.default_rng(seed)
    cluster = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    n_drawn = n_samples if cluster is None else int(cluster.max()) + 1
    # A table instead of `rng.poisson`: ten times as fast, and its probabilities are exact to 1 / 65,536.
    weights = _POISSON[rng.integers(2**16, size=(n_drawn, n_boot), dtype=np.uint16)]
    weights[:, ~weights.any(axis=0)] = 1  # happens with a handful of rows only
    return weights if cluster is None else weights[cluster]


def bootstrap_scores(predictions: Predictions, metric: Metric, weights: NDArray[np.float32]) -> Floats:
    """The score of every member under every weighting.

    Args:
        predictions: m members over n samples.
        metric: any; means over rows are scored for all members by one matrix product.
        weights: (n, n_boot), see `bootstrap_weights`.

    Returns:
        float64 (m, n_boot). Memory beyond the result is bounded whatever `n_boot` is.
    """
    labels, proba = predictions.labels, predictions.proba
    scores = np.empty((predictions.n_members, weights.shape[1]))
    if metric.per_row is None:
        for chunk, part in _chunks(weights):
            for member, slab in enumerate(proba):
                scores[member, chunk] = metric.score(labels, slab, part)
        return scores
    rows = np.stack([metric.per_row(labels, slab) for slab in proba])
    for chunk, part in _chunks(weights):
        scores[:, chunk] = rows @ part / part.sum(axis=0)
    return scores


def interval(samples: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of (n_boot,) bootstrap samples; undefined ones (NaN) are left out."""
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


def paired_p_value(delta: float, delta_boot: ArrayLike) -> float:
    """Two-sided p-value of a difference, from its bootstrap standard error and the normal distribution.

    The share of resamples beyond zero would do without the normal distribution, but cannot go below 1 /
    n_boot: after a correction for many rows nothing could be significant.

    Args:
        delta: the observed difference.
        delta_boot: (n_boot,) the difference in each resample; NaN is left out.

    Returns:
        In [0, 1]. Where nothing varies: 1 without a difference, else 0.
    """
    values = np.asarray(delta_boot, np.float64)
    defined = values[~np.isnan(values)]
    if abs(delta) <= ROUNDING:
        return 1.0
    error = float(defined.std(ddof=1)) if defined.size > 1 else math.inf
    if error <= ROUNDING:
        return 0.0
    return math.erfc(abs(delta) / error / math.sqrt(2))


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


def _chunks(weights: NDArray[np.float32]) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Column slices of the weights, in float64."""
    n_samples, n_boot = weights.shape
    width = max(1, _CHUNK // n_samples)
    for start in range(0, n_boot, width):
        chunk = slice(start, start + width)
        yield chunk, weights[:, chunk].astype(np.float64)


def _poisson_table() -> NDArray[np.float32]:
    cumulative = np.cumsum([math.exp(-1) / math.factorial(k) for k in range(12)])
    return np.searchsorted(cumulative, (np.arange(2**16) + 0.5) / 2**16).astype(np.float32)


_POISSON = _poisson_table()
