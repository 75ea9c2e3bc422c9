"""Intervals and p-values that hold for few rows and for skewed losses.

The percentile bootstrap covers too little there: a log loss over 50 rows has a long right tail, and the resamples
of a sample that happens to lack the tail lack it too. Here the bootstrap gives the standard error and the
skewness of a score, and a t-statistic from which the skewness is removed gives the rest (Hall 1992, "On the removal of
skewness by transformation"). With T = (estimate - truth) / error and k the skewness of the score,

    g(T) = T + k / 6 + k T^2 / 3 + k^2 T^3 / 27

is close to Student's t with one degree of freedom less than there are independent units. Hall has the normal
distribution, and the skewness of the rows divided by the root of their number; the bootstrap's own skewness is the same
number for a mean, and exists for every metric.

That holds for a score, whose losses have one tail. Differences have two, and the skewness of a sample of them is that
of its few largest values: g would bring in an end that should have stayed. So for a difference skewness may move an end
out, never in: each end is the further one of g's and of plain T's, and the p-value the larger one.
`reports/statistics.md` has what all this covers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

from .significance import ROUNDING

Floats = NDArray[np.float64]

#: Skewness below this changes nothing that 2,000 resamples can tell, and would be divided by.
_SYMMETRIC = 1e-6


@dataclass(frozen=True, eq=False)
class Moments:
    """Spread and shape of bootstrap samples.

    Attributes:
        error: float64 (...), their standard deviation: the standard error of the estimate; 0 where nothing
            varies but by rounding, NaN where fewer than two samples are defined.
        skew: float64 (...), their skewness; 0 where nothing varies.
    """

    error: Floats
    skew: Floats


def bootstrap_moments(samples: ArrayLike) -> Moments:
    """The moments of (..., n_boot) bootstrap samples over the last axis; undefined ones (NaN) are left out."""
    values = np.asarray(samples, np.float64)
    defined = ~np.isnan(values)
    count = defined.sum(axis=-1)
    centred = np.where(defined, values, 0.0)
    centred -= (centred.sum(axis=-1) / np.maximum(count, 1))[..., None]
    centred *= defined
    squares = centred**2
    variance = np.where(count > 1, squares.sum(axis=-1) / np.maximum(count - 1, 1), np.nan)
    error = np.sqrt(variance)
    error = np.where(error <= ROUNDING, 0.0, error)
    third = np.multiply(squares, centred, out=squares).sum(axis=-1) / np.maximum(count, 1)
    skew = np.divide(third, error**3, out=np.zeros_like(third), where=error > 0)
    return Moments(error, skew)


def score_interval(
    estimate: ArrayLike, samples: ArrayLike, n_units: int, level: float = 0.95
) -> tuple[Floats, Floats]:
    """Interval of a score.

    Args:
        estimate: (...), on the data themselves.
        samples: (..., n_boot), on resamples of them.
        n_units: what was drawn independently: rows, or groups where rows of a group were drawn together.
        level: of confidence, in (0, 1).

    Returns:
        low and high, float64 (...); equal to the estimate where nothing varies, NaN where the estimate or
        all samples but one are undefined.
    """
    centre, moments = np.asarray(estimate, np.float64), bootstrap_moments(samples)
    reach = t_quantile(n_units, level)
    below, above = _g_inverse(reach, moments.skew), -_g_inverse(-reach, moments.skew)
    return centre - moments.error * below, centre + moments.error * above


def difference_interval(
    delta: ArrayLike, samples: ArrayLike, n_units: int, level: float = 0.95
) -> tuple[Floats, Floats]:
    """Interval of a difference of two scores; arguments and result as for `score_interval`."""
    centre, moments = np.asarray(delta, np.float64), bootstrap_moments(samples)
    reach = t_quantile(n_units, level)
    below = np.maximum(reach, _g_inverse(reach, moments.skew))
    above = np.maximum(reach, -_g_inverse(-reach, moments.skew))
    return centre - moments.error * below, centre + moments.error * above


def p_value(delta: ArrayLike, samples: ArrayLike, n_units: int) -> Floats:
    """Two-sided p-value of a difference: 1 - the level at which its interval begins to include zero.

    Args:
        delta: (...), the observed difference.
        samples: (..., n_boot), the difference in each resample.
        n_units: as for `score_interval`.

    Returns:
        float64 (...) in [0, 1]. Where nothing varies: 1 without a difference, else 0. Where no two samples
        are defined: 1.
    """
    observed, moments = np.asarray(delta, np.float64), bootstrap_moments(samples)
    varies = moments.error > 0
    statistic = np.divide(observed, moments.error, out=np.zeros_like(moments.error), where=varies)
    least = np.minimum(np.abs(statistic), np.abs(_g(statistic, moments.skew)))
    value = 2 * stdtr(_freedom(n_units), -least)
    certain = np.where(np.isnan(moments.error), 1.0, 0.0)
    result = np.where(varies, np.minimum(value, 1.0), certain)
    return np.where(np.abs(observed) > ROUNDING, result, 1.0)


def proportion_interval(
    share: ArrayLike, samples: ArrayLike, n_units: int, level: float = 0.95
) -> tuple[Floats, Floats]:
    """Interval of a share of rows (Wilson 1927), such as an accuracy.

    A model that is right on all of 50 rows has no spread to bootstrap, and yet may err on one row in 20; and
    near 0 and 1 no resample goes beyond. Wilson's interval asks instead which true shares make the observed
    one plausible. Rows of a group count as fewer: the number that would have the bootstrap's standard error.

    Args:
        share: (...) in [0, 1].
        samples: (..., n_boot), the share in each resample.
        n_units: rows, or groups.
        level: of confidence, in (0, 1).

    Returns:
        low and high, float64 (...), in [0, 1].
    """
    p, error = np.asarray(share, np.float64), bootstrap_moments(samples).error
    binomial = p * (1 - p)
    varies = (error > 0) & (binomial > ROUNDING)
    size = np.divide(binomial, error**2, out=np.full_like(error, float(n_units)), where=varies)
    reach = t_quantile(n_units, level)
    spread = 1 + reach**2 / size
    centre = (p + reach**2 / (2 * size)) / spread
    half = reach / spread * np.sqrt(binomial / size + reach**2 / (4 * size**2))
    return np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)


def t_quantile(n_units: int, level: float) -> float:
    """How many standard errors a two-sided interval reaches, by Student's t.

    >>> round(t_quantile(50, 0.95), 3)
    2.01
    """
    return float(stdtrit(_freedom(n_units), (1 + level) / 2))


def _freedom(n_units: int) -> int:
    return max(n_units - 1, 1)


def _g(statistic: Floats, skew: Floats) -> Floats:
    return statistic + skew / 6 + skew * statistic**2 / 3 + skew**2 * statistic**3 / 27


def _g_inverse(value: float, skew: Floats) -> Floats:
    skewed = np.abs(skew) > _SYMMETRIC
    k = np.where(skewed, skew, 1.0)
    return np.where(skewed, 3 / k * (np.cbrt(1 + k * (value - k / 6)) - 1), value)
