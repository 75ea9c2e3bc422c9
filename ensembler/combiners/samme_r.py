"""Real AdaBoost over a library of trained members (SAMME.R: Zhu, Zou, Rosset & Hastie 2009)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..metrics import clipped_log, true_class_proba
from ..probability import fit_temperature, softmax
from .base import Combiner, Floats, Fold, Labels, Proba

#: Relative fall of the exponential loss below which a round is none.
TIE = 1e-9


@dataclass(eq=False, kw_only=True)
class SammeR(Combiner):
    """Weights log-probabilities by boosting: each round adds the member that helps most where the sum errs.

    A member's vote for class k is h_k = (classes - 1) (log p_k - mean over classes of log p). Where each
    round of the paper trains a learner on rows weighted by exp(-y . f / classes), f the sum of the votes so
    far, y 1 at the label and -1 / (classes - 1) elsewhere, the members are there already: a round takes the
    one whose votes leave the smallest sum of weights. Rounds end after `rounds`, or when no member makes that
    sum, the exponential loss, any smaller; the first member is taken in any case. Ties go to the first name.

    Votes count for `learning_rate` each. The paper's is 1, which suits weak learners; members that are good
    already overshoot with it, and all rounds but the first find nothing to improve.

    The weights are the shares of the rounds. Probabilities are the softmax of the members' log-probabilities
    averaged with them, divided by a temperature: the sum of the votes itself is surer with every round.

    Attributes:
        rounds: most rounds, 1 or more.
        learning_rate: in (0, 1].
        temperature_: float64 (1,).
    """

    name: ClassVar[str] = "samme_r"
    learned: ClassVar[tuple[str, ...]] = ("weights_", "temperature_")
    by_name: ClassVar[bool] = True

    rounds: int = 200
    learning_rate: float = 0.05
    temperature_: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("rounds", int, 1)
        self._require("learning_rate", (int, float), 1e-9, 1)

    def _fit(self, proba: Proba, labels: Labels, fold: Fold) -> None:  # noqa: ARG002
        counts = samme_r_counts(proba, labels, self.rounds, self.learning_rate)
        self.weights_ = counts / counts.sum()
        self.temperature_ = np.array([fit_temperature(self._log_mean(proba), labels)])

    def _combine(self, proba: Proba) -> Proba:
        return softmax(self._log_mean(proba) / self.temperature_)

    def _log_mean(self, proba: Proba) -> Floats:
        total = np.zeros(proba.shape[1:])
        for slab, weight in zip(proba, self.weights_ if self.weights_ is not None else (), strict=True):
            if weight > 0:
                total += weight * clipped_log(slab)
        return total


def samme_r_counts(proba: Proba, labels: Labels, rounds: int, learning_rate: float) -> NDArray[np.int64]:
    """The boosting itself: int64 (members,), how many rounds took each member; at least one did.

    The coding of y makes y . h = classes (log p_label - mean of log p), so a round multiplies the weights by
    exp(-(log p_label - mean of log p)), to the power of the learning rate.
    """
    logs = clipped_log(proba)
    factors = np.exp(learning_rate * (logs.mean(axis=2) - true_class_proba(labels, logs)))
    counts = np.zeros(len(proba), np.int64)
    weights = np.ones(len(labels))
    for _ in range(rounds):
        losses = factors @ weights
        best = int(np.argmax(losses <= losses.min() * (1 + TIE)))
        if counts.any() and losses[best] >= weights.sum() * (1 - TIE):
            break
        counts[best] += 1
        weights = weights * factors[best]
        weights /= weights.max()  # only their proportions matter
    return counts
