"""Greedy forward selection with replacement.

Caruana, Niculescu-Mizil, Crew & Ksikes 2004, "Ensemble selection from libraries of models".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..metrics import PROBA_EPS, Metric, get_metric, true_class_proba
from .base import Floats, Fold, Labels, Proba, WeightedMean

#: Losses closer than this are a tie: rounding must not choose a member.
TIE = 1e-12


@dataclass(eq=False, kw_only=True)
class Greedy(WeightedMean):
    """Adds, round by round and with replacement, the member that helps the running mean most.

    The weights are the counts at the first best point of the trajectory, divided by its length. Ties go to a
    member already chosen (a smaller ensemble), then to the lower log loss of the resulting mean, then to the
    first in order; no seed is involved.

    Attributes:
        metric: what is optimised, a key of `METRICS`.
        rounds: length of the trajectory, 1 or more.
    """

    name: ClassVar[str] = "greedy"

    metric: str = "log_loss"
    rounds: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_metric(self.metric)
        self._require("rounds", int, 1)

    def _fit(self, proba: Proba, labels: Labels, fold: Fold) -> None:  # noqa: ARG002
        self.weights_ = greedy_weights(proba, labels, get_metric(self.metric), self.rounds)


def greedy_weights(proba: Proba, labels: Labels, metric: Metric, rounds: int) -> Floats:
    """The selection itself, on (members, samples, classes): float64 (members,) weights that sum to 1."""
    true = true_class_proba(labels, proba)
    library, loss = _objective(proba, true, labels, metric)
    total, total_true = np.zeros(library.shape[1:]), np.zeros(len(labels))
    counts = np.zeros(len(proba), np.int64)
    picks: list[int] = []
    trajectory: list[float] = []
    for size in range(1, rounds + 1):
        losses = np.array([loss((total + slab) / size) for slab in library])
        tied = np.flatnonzero(losses <= losses.min() + TIE)
        pick = int(tied[0]) if len(tied) == 1 else _break_tie(tied, counts, total_true, true)
        total += library[pick]
        total_true += true[pick]
        counts[pick] += 1
        picks.append(pick)
        trajectory.append(losses[pick])
    size = 1 + int(np.argmax(np.array(trajectory) <= min(trajectory) + TIE))
    return np.bincount(picks[:size], minlength=len(proba)) / size


def _objective(
    proba: Proba, true: Floats, labels: Labels, metric: Metric
) -> tuple[NDArray[Any], Callable[[Floats], float]]:
    """What is averaged over members, and the loss of such an average.

    Log loss needs the probability of the true class alone: rounds work on (members, samples) instead of the
    cube.
    """
    if metric.name == "log_loss":
        return true, _log_loss_of_true

    def loss(average: Floats) -> float:
        return -metric.sign * metric(labels, average)

    return proba, loss


def _break_tie(tied: NDArray[np.intp], counts: NDArray[np.int64], total_true: Floats, true: Floats) -> int:
    size = counts.sum() + 1

    def rank(member: int) -> tuple[bool, float]:
        return counts[member] == 0, _log_loss_of_true((total_true + true[member]) / size)

    return min((int(member) for member in tied), key=rank)


def _log_loss_of_true(true: Floats) -> float:
    """Mean log loss from (samples,) probabilities of the true class.

    One logarithm for 32 rows: their product stays above 1e-222, since each is clipped at 1.2e-7, and a
    product costs a fraction of a logarithm.
    """
    held = np.clip(true, PROBA_EPS, 1 - PROBA_EPS)
    whole = len(held) // 32 * 32
    products = held[:whole].reshape(32, -1).prod(axis=0)
    return -float(np.log(products).sum() + np.log(held[whole:]).sum()) / len(held)
