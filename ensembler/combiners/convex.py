"""The weighted mean with the lowest log loss, by convex optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..metrics import PROBA_EPS
from .base import Floats, Fold, Labels, Proba, WeightedMean
from .selection import Library

#: The optimum is reached where no slope is further from what it has to be.
_TOLERANCE = 1e-11

#: Penalty on the sum of squared weights: it makes the optimum unique, and moves it by less than 1e-6 where it is so
#: already.
_RIDGE = 1e-9

_MAX_STEPS = 200

#: Rows of a product at once: for 200 members 800 KiB.
_HEIGHT = 512


@dataclass(eq=False, kw_only=True)
class Convex(WeightedMean):
    """Weights on the simplex that minimise the log loss of the weighted mean.

    The problem is that of mixture proportions: convex, with one optimum, so there is no path and no number of rounds to
    choose, and many weights come out as exactly 0. Solved by Newton steps over the weights above 0 (Kim, Carbonetto,
    Stephens & Anitescu 2020); equal to scipy's SLSQP to 1e-6 where the problem is well conditioned. Identical members
    share their weight equally.

    Nothing holds the weights back but the simplex: with few rows and many members `bagging` overfits less. Each
    probability of a true class is held at `PROBA_EPS` or more, so that a certain error is finite.
    """

    name: ClassVar[str] = "convex"

    def _fit(self, proba: Proba, labels: Labels, fold: Fold) -> None:  # noqa: ARG002
        self.weights_ = convex_weights(Library(proba, labels).true)


def convex_weights(true: Floats) -> Floats:
    """The weights w >= 0 of sum 1 that minimise -mean(log(w @ true)) + 5e-10 |w|^2.

    The sum needs no care on the way. Without that condition, and with the sum of the weights added to the loss, the
    optimum has it by itself, but for a trace of the penalty: scaling all weights by c adds c and takes log c.

    Args:
        true: (members, rows), the probability of each row's own class.

    Returns:
        float64 (members,).
    """
    true = np.maximum(true, PROBA_EPS)
    n_rows = true.shape[1]
    weights = np.full(len(true), 1 / len(true))
    for _ in range(_MAX_STEPS):
        mixed = weights @ true
        slopes = 1 - true @ (1 / mixed) / n_rows + _RIDGE * weights
        if max(np.abs(slopes[weights > 0]).max(), -slopes.min()) <= _TOLERANCE:
            break
        # A weight of 0 stays out while it would fall further: most of a step's cost is the square of what is in.
        free = np.flatnonzero((weights > 0) | (slopes < 0))
        curvature = _curvature(true, free, mixed)
        curvature[np.diag_indices(len(free))] += _RIDGE + 1e-14 * curvature.trace()
        wanted = _nonnegative_optimum(curvature, curvature @ weights[free] - slopes[free], weights[free])
        direction = np.zeros_like(weights)
        direction[free] = wanted - weights[free]
        step = _step(mixed, direction @ true, float(direction.sum()), float(direction @ slopes))
        weights[free] = wanted if step == 1 else (weights + step * direction)[free]
    return np.asarray(weights / weights.sum())


def _curvature(true: Floats, free: NDArray[np.intp], mixed: Floats) -> Floats:
    """Second derivatives of the log loss: (free, free)."""
    total = np.zeros((len(free), len(free)))
    for start in range(0, len(mixed), _HEIGHT):
        rows = slice(start, start + _HEIGHT)
        scaled = true[free, rows] / mixed[rows]
        total += scaled @ scaled.T
    return total / len(mixed)


def _step(mixed: Floats, change: Floats, growth: float, slope: float) -> float:
    """The largest of 1, 1/2, 1/4, ... of a direction after which the loss has fallen as its slope promises.

    Args:
        mixed: (rows,) probabilities of the true class so far.
        change: (rows,) what the whole direction adds to them.
        growth: what it adds to the sum of the weights.
        slope: of the loss along the direction, negative.
    """
    step = 1.0
    while step > 1e-10:
        ratio = change * step / mixed
        if (ratio > -1).all() and step * growth - np.log1p(ratio).mean() <= 1e-4 * step * slope + 1e-15:
            break
        step /= 2
    return step


def _nonnegative_optimum(curvature: Floats, linear: Floats, start: Floats) -> Floats:
    """The x >= 0 that minimises x'Ax / 2 - b'x, by an active set that starts from that of `start`.

    Lawson & Hanson 1974, on the normal equations (Bro & de Jong 1997).

    Args:
        curvature: A, (n, n), positive definite.
        linear: b, (n,).
        start: (n,) of 0 or more.
    """
    found, free = start.copy(), start > 0
    floor = 1e-13 * np.abs(linear).max()
    for _ in range(3 * len(found)):
        while free.any():
            solved = np.zeros_like(found)
            solved[free] = np.linalg.solve(curvature[np.ix_(free, free)], linear[free])
            blocked = free & (solved <= 0)
            if not blocked.any():
                found = solved
                break
            # As far towards it as all stay at 0 or above; whoever gets there leaves.
            length = found[blocked] - solved[blocked]
            share = np.divide(found[blocked], length, out=np.zeros_like(length), where=length > 0)
            found = found + share.min() * (solved - found)
            free[np.flatnonzero(blocked)[share <= share.min()]] = False
            found[~free] = 0
        gain = np.where(free, -np.inf, linear - curvature @ found)
        if gain.max() <= floor:
            break
        free[gain.argmax()] = True
    return found
