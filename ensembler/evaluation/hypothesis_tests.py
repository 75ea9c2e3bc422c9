"""The tests that reviewers ask for beside the bootstrap: McNemar, t over folds, Friedman and Nemenyi.

They answer narrower questions. McNemar asks whether two models are right equally often, exactly, whatever the number
of rows. The corrected resampled t-test and the critical difference look at scores by fold or data set, so they see
what differs between trainings, which no resampling of rows does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, chdtrc, fdtrc, stdtr, stdtrit

from ..errors import PredictionsError
from ..metrics import Metric
from ..predictions import Predictions
from .significance import ROUNDING

Floats = NDArray[np.float64]

# `scipy.stats` takes half a second to import, so it is left to the functions that need it.

#: Below so many discordant rows the chi-squared distribution is a poor likeness of the binomial.
EXACT_BELOW = 25


@dataclass(frozen=True)
class McNemar:
    """Whether two classifiers are right equally often.

    Attributes:
        only_first: rows on which the first alone is right.
        only_second: rows on which the second alone is right.
        statistic: the smaller of the two counts where `exact`, else chi-squared with continuity correction.
        p_value: two-sided, in [0, 1].
        exact: whether the binomial distribution gave the p-value, or the chi-squared one.
    """

    only_first: int
    only_second: int
    statistic: float
    p_value: float
    exact: bool


def mcnemar(only_first: int, only_second: int, exact: bool | None = None) -> McNemar:
    """McNemar's test (1947) from the counts of discordant rows.

    Args:
        only_first: rows on which the first alone is right, 0 or more.
        only_second: rows on which the second alone is right, 0 or more.
        exact: the binomial test, else chi-squared with one degree of freedom and Edwards' continuity
            correction (1948); by default exact below `EXACT_BELOW` discordant rows.

    >>> round(mcnemar(9, 1).p_value, 4), round(mcnemar(40, 20).p_value, 4)
    (0.0215, 0.0142)
    """
    discordant = only_first + only_second
    exact = discordant < EXACT_BELOW if exact is None else exact
    if exact:
        fewer = min(only_first, only_second)
        p_value = min(1.0, 2 * float(bdtr(fewer, discordant, 0.5))) if discordant else 1.0
        return McNemar(only_first, only_second, float(fewer), p_value, True)
    if not discordant:
        return McNemar(0, 0, 0.0, 1.0, False)
    statistic = (abs(only_first - only_second) - 1) ** 2 / discordant
    return McNemar(only_first, only_second, statistic, float(chdtrc(1, statistic)), False)


def mcnemar_of(predictions: Predictions, first: str, second: str, exact: bool | None = None) -> McNemar:
    """McNemar's test of two members by their most probable classes.

    Raises:
        PredictionsError: an unknown member.
    """
    right = predictions.select([first, second]).proba.argmax(axis=2) == predictions.labels
    return mcnemar(int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum()), exact)


@dataclass(frozen=True)
class FoldTest:
    """A mean difference over folds or repeated splits.

    Attributes:
        delta: mean difference.
        low: lower end of its 95 % interval.
        high: upper end.
        statistic: t.
        freedom: degrees of freedom.
        p_value: two-sided.
    """

    delta: float
    low: float
    high: float
    statistic: float
    freedom: int
    p_value: float


def corrected_t_test(differences: ArrayLike, test_share: float) -> FoldTest:
    """The corrected resampled t-test (Nadeau & Bengio 2003, "Inference for the generalization error").

    Scores of folds are not independent, since their training sets overlap; a plain t-test over them finds
    differences that are not there. The variance is multiplied by 1 / n + `test_share` instead of 1 / n.

    Args:
        differences: (n,) of scores, one a fold or split, two or more; positive is better for the caller's
            first model.
        test_share: rows tested over rows trained on; 1 / (k - 1) in k-fold cross-validation.

    Raises:
        PredictionsError: fewer than two differences, or one that is not finite.
    """
    values = np.asarray(differences, np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise PredictionsError(
            f"differences: {values.tolist()}; expected two or more finite numbers, one a fold"
        )
    if not test_share > 0:
        raise PredictionsError(
            f"test_share: {test_share}; expected rows tested over rows trained on, above 0"
        )
    freedom = len(values) - 1
    delta = float(values.mean())
    error = float(values.std(ddof=1)) * math.sqrt(1 / len(values) + test_share)
    if error <= ROUNDING:
        level = abs(delta) <= ROUNDING
        return FoldTest(
            delta, delta, delta, 0.0 if level else math.copysign(math.inf, delta), freedom, float(level)
        )
    statistic = delta / error
    reach = float(stdtrit(freedom, 0.975)) * error
    p_value = 2 * float(stdtr(freedom, -abs(statistic)))
    return FoldTest(delta, delta - reach, delta + reach, statistic, freedom, p_value)


def fold_scores(predictions: Predictions, metric: Metric) -> Floats:
    """The score of every member on the rows of every fold: float64 (members, folds)."""
    labels, fold = predictions.labels, predictions.fold
    return np.array(
        [
            [metric(labels[fold == f], slab[fold == f]) for f in predictions.folds]
            for slab in predictions.proba
        ]
    )


def fold_test(predictions: Predictions, metric: Metric, first: str, second: str) -> FoldTest:
    """The corrected t-test of two members over the folds; positive where the first is better.

    Raises:
        PredictionsError: an unknown member, fewer than two folds, or a fold whose score is undefined.
    """
    scores = fold_scores(predictions.select([first, second]), metric)
    if len(predictions.folds) < 2:
        raise PredictionsError(f"fold: the t-test needs two folds or more; found {predictions.folds}")
    return corrected_t_test(metric.improvement(scores[0], scores[1]), 1 / (len(predictions.folds) - 1))


@dataclass(frozen=True, eq=False)
class CriticalDifference:
    """The numbers of a critical-difference diagram (Demsar 2006).

    Attributes:
        names: best average rank first.
        ranks: float64 (rows,), average rank over the blocks, 1 is best.
        difference: average ranks closer than this are not shown to differ.
        cliques: the groups that are joined by a bar: largest sets of neighbours within the difference, two
            or more names each, best first.
        statistic: Friedman's chi-squared, corrected for ties.
        p_value: that all rows are equally good.
        f_statistic: Iman & Davenport's (1980) F, which is less conservative.
        f_p_value: by it.
        n_blocks: folds or data sets.
    """

    names: tuple[str, ...]
    ranks: Floats
    difference: float
    cliques: tuple[tuple[str, ...], ...]
    statistic: float
    p_value: float
    f_statistic: float
    f_p_value: float
    n_blocks: int


def critical_difference(
    names: Sequence[str], scores: ArrayLike, greater_is_better: bool, level: float = 0.05
) -> CriticalDifference:
    """Friedman's test (1937), and Nemenyi's critical difference (1963) for all pairs after it.

    Folds of one data set are not independent, so over them the p-value is a description; over data sets it is
    a test.

    Args:
        names: of the rows.
        scores: (rows, blocks), two or more of each.
        greater_is_better: direction of the scores.
        level: of the test and the critical difference.

    Raises:
        PredictionsError: too few rows or blocks, a name too few or many, or a score that is not finite.
    """
    table = np.asarray(scores, np.float64)
    if table.ndim != 2 or min(table.shape) < 2 or len(names) != len(table):
        raise PredictionsError(
            f"scores: shape {table.shape} for {len(names)} names; expected (rows, blocks), two or more of each"
        )
    if not np.isfinite(table).all():
        row, block = (int(i) for i in np.argwhere(~np.isfinite(table))[0])
        raise PredictionsError(
            f"scores: {names[row]!r} has {table[row, block]} in block {block}; leave out the block or choose a "
            "metric that is defined on it"
        )
    ranks = _ranks(-table if greater_is_better else table)
    n_rows, n_blocks = ranks.shape
    average = ranks.mean(axis=1)
    statistic = _friedman(ranks)
    room = n_blocks * (n_rows - 1) - statistic
    f_statistic = (n_blocks - 1) * statistic / room if room > ROUNDING else math.inf
    f_p_value = (
        float(fdtrc(n_rows - 1, (n_rows - 1) * (n_blocks - 1), f_statistic)) if room > ROUNDING else 0.0
    )
    order = np.argsort(average, kind="stable")
    difference = nemenyi_difference(n_rows, n_blocks, level)
    ordered = tuple(names[i] for i in order)
    return CriticalDifference(
        names=ordered,
        ranks=average[order],
        difference=difference,
        cliques=_cliques(ordered, average[order], difference),
        statistic=statistic,
        p_value=float(chdtrc(n_rows - 1, statistic)),
        f_statistic=f_statistic,
        f_p_value=f_p_value,
        n_blocks=n_blocks,
    )


def nemenyi_difference(n_rows: int, n_blocks: int, level: float = 0.05) -> float:
    """How far two average ranks must be apart: q sqrt(rows (rows + 1) / (6 blocks)).

    >>> round(nemenyi_difference(4, 14), 2)  # 2.569 x 0.488
    1.25
    """
    from scipy.stats import studentized_range

    quantile = float(studentized_range.ppf(1 - level, n_rows, np.inf)) / math.sqrt(2)
    return float(quantile * math.sqrt(n_rows * (n_rows + 1) / (6 * n_blocks)))


def _ranks(losses: Floats) -> Floats:
    """Rank of each row in each block, 1 for the least; equal ones share the mean of their ranks."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(losses, axis=0), np.float64)


def _friedman(ranks: Floats) -> float:
    n_rows, n_blocks = ranks.shape
    # Variance of the ranks of a block; with ties it is smaller, which is the usual correction.
    spread = float(((ranks - (n_rows + 1) / 2) ** 2).sum()) / (n_rows - 1)
    if spread <= ROUNDING:
        return 0.0
    deviations = ranks.sum(axis=1) - n_blocks * (n_rows + 1) / 2
    statistic: float = float((deviations**2).sum()) / spread
    return statistic


def _cliques(names: tuple[str, ...], ranks: Floats, difference: float) -> tuple[tuple[str, ...], ...]:
    found, reached = [], 0
    for start in range(len(names)):
        end = int(np.searchsorted(ranks, ranks[start] + difference, side="right"))
        if end - start > 1 and end > reached:
            found.append(names[start:end])
            reached = end
    return tuple(found)
