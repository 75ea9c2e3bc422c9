"""Are two samples drawn from the same distribution? Tests by permutation: their p-values hold for samples of any size
and any distribution, ties and all, as long as the rows are independent.

Each gives a statistic that is large when the samples differ, and the share of random relabellings of the pooled rows
whose statistic is at least as large (Phipson & Smyth 2010: with the given labelling counted among them, so never 0).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]

#: Permutations whose sums are held at a time.
_AT_ONCE = 512


class Result(NamedTuple):
    """Statistic and p-value of a test."""

    statistic: float
    p_value: float


def mmd(reference: Rows, new: Rows, permutations: int, rng: np.random.Generator) -> Result:
    """Maximum mean discrepancy with a Gaussian kernel (Gretton et al. 2012), squared and biased.

    The width of the kernel is the median distance of two pooled rows, which no relabelling changes.

    Args:
        reference: (rows, columns).
        new: (other rows, columns).
        permutations: relabellings.
        rng: draws them.
    """
    pooled = np.concatenate([reference, new]).astype(np.float32)
    squares = (pooled**2).sum(1)
    distances = np.maximum(squares[:, None] + squares - 2 * pooled @ pooled.T, 0)
    some = rng.choice(len(pooled), (2, 100_000))  # pairs; all of them would take longer than the test
    width = float(np.median(distances[some[0], some[1]])) or 1.0
    kernel = np.exp(distances / -width)

    def statistics(weights: Rows) -> NDArray[np.float64]:
        return np.asarray(np.einsum("ij,ij->j", weights, kernel @ weights, dtype=np.float64))

    return _permuted(statistics, len(reference), len(new), permutations, rng)


def ks(
    reference: NDArray[np.float32], new: NDArray[np.float32], permutations: int, rng: np.random.Generator
) -> Result:
    """Kolmogorov-Smirnov: the largest distance of the two distribution functions.

    Args:
        reference: (rows,).
        new: (other rows,).
        permutations: relabellings.
        rng: draws them.
    """
    pooled = np.concatenate([reference, new])
    order = np.argsort(pooled, kind="stable")
    ends = np.append(np.diff(pooled[order]) > 0, True)  # where a run of equal values ends

    def statistics(weights: Rows) -> NDArray[np.float64]:
        return np.asarray(np.abs(np.cumsum(weights[order], 0)[ends]).max(0), np.float64)

    return _permuted(statistics, len(reference), len(new), permutations, rng)


def psi(reference: Sequence[int], new: Sequence[int], permutations: int, rng: np.random.Generator) -> Result:
    """Population stability index of two tables of counts.

    Args:
        reference: (categories,) counts.
        new: (categories,) counts.
        permutations: relabellings.
        rng: draws them.
    """
    before, after = np.asarray(reference, np.int64), np.asarray(new, np.int64)
    pooled = before + after
    drawn = rng.multivariate_hypergeometric(pooled, int(after.sum()), size=permutations, method="marginals")
    found = psi_value(before, after)
    others = psi_value(pooled - drawn, drawn)
    return Result(float(found), _p_value(float(found), others))


def psi_value(before: NDArray[np.int64], after: NDArray[np.int64]) -> NDArray[np.float64]:
    """The index itself, over the last axis; half a row is added to every category, so that none is empty.

    By custom, below 0.1 hardly anything has changed; above 0.25 much has.
    """
    old = (before + 0.5) / (before + 0.5).sum(-1, keepdims=True)
    now = (after + 0.5) / (after + 0.5).sum(-1, keepdims=True)
    return np.asarray(((now - old) * np.log(now / old)).sum(-1), np.float64)


def fewer_right(right: int, n: int, expected_right: int, expected_n: int) -> float:
    """Fisher's exact test, one-sided: the p-value of so few right answers, or fewer, if accuracy were as expected.

    Args:
        right, n: of the new images.
        expected_right, expected_n: of those that the expectation comes from.
    """
    total, good = n + expected_n, right + expected_right
    lowest = max(0, n - (total - good))
    logs = [
        _log_choose(good, x) + _log_choose(total - good, n - x) - _log_choose(total, n)
        for x in range(lowest, right + 1)
    ]
    return min(1.0, math.fsum(math.exp(value) for value in logs))


def wilson(right: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    if not n:
        return 0.0, 1.0
    share, scale = right / n, 1 + z * z / n
    middle = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    return max(0.0, middle - half), min(1.0, middle + half)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values (Holm 1979): below a level, they are wrong about anything at all no more often than that."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = worst
    return adjusted


def _permuted(
    statistics: Callable[[Rows], NDArray[np.float64]],
    n_reference: int,
    n_new: int,
    permutations: int,
    rng: np.random.Generator,
) -> Result:
    """A statistic of weights (rows, labellings), 1/n on the new rows and -1/n on the others, and its p-value."""
    given = np.full((1, n_reference + n_new), -1 / n_reference, np.float32)
    given[:, n_reference:] = 1 / n_new
    found = float(statistics(given.T)[0])
    others = []
    for start in range(0, permutations, _AT_ONCE):
        labellings = rng.permuted(np.repeat(given, min(_AT_ONCE, permutations - start), 0), axis=1)
        others.append(statistics(labellings.T))
    return Result(found, _p_value(found, np.concatenate(others)))


def _p_value(found: float, others: NDArray[np.float64]) -> float:
    slack = max(1e-6 * abs(found), 1e-7)  # sums of the same numbers in another order
    return float((1 + np.count_nonzero(others >= found - slack)) / (1 + len(others)))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
