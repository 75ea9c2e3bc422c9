"""AdaBoost over a library of trained members (SAMME: Zhu, Zou, Rosset & Hastie 2009)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..probability import fit_temperature, softmax
from .base import Combiner, Floats, Fold, Labels, Proba


@dataclass(eq=False, kw_only=True)
class Samme(Combiner):
    """Weights votes by boosting: each round takes the member that errs least where the last ones erred.

    The weak learners are the members as they are, so a round only picks one. A round with weighted error e
    adds alpha = log((1 - e) / e) + log(classes - 1) to its member; rounds end when no member beats chance on
    the weighted rows. A member without an error takes all the weight; when none beats chance at all, the
    weights are equal.

    The vote of a class is the weight of the members whose first choice it is, from 0 to 1. Probabilities are
    the softmax of the votes divided by a temperature, the one number fitted to the log loss of the training
    rows.

    Attributes:
        rounds: most rounds, 1 or more.
        temperature_: float64 (1,).
    """

    name: ClassVar[str] = "samme"
    learned: ClassVar[tuple[str, ...]] = ("weights_", "temperature_")

    rounds: int = 50
    temperature_: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("rounds", int, 1)

    def _fit(self, proba: Proba, labels: Labels, fold: Fold) -> None:  # noqa: ARG002
        n_classes = proba.shape[2]
        alphas = samme_alphas(proba.argmax(axis=2) != labels, n_classes, self.rounds)
        self.weights_ = alphas / alphas.sum()
        # A unanimous vote a class, right once: without these rows, votes that never err would become certain.
        unanimous = np.tile(np.eye(n_classes)[0], (n_classes, 1))
        self.temperature_ = np.array(
            [
                fit_temperature(
                    np.concatenate([self._votes(proba), unanimous]),
                    np.concatenate([labels, np.arange(n_classes)]),
                    prior_sd=None,
                )
            ]
        )

    def _combine(self, proba: Proba) -> Proba:
        return softmax(self._votes(proba) / self.temperature_)

    def _votes(self, proba: Proba) -> Floats:
        votes = np.zeros(proba.shape[1:])
        rows = np.arange(proba.shape[1])
        for slab, weight in zip(proba, self.weights_ if self.weights_ is not None else (), strict=True):
            votes[rows, slab.argmax(axis=1)] += weight
        return votes


def samme_alphas(wrong: NDArray[np.bool_], n_classes: int, rounds: int) -> Floats:
    """The boosting itself.

    Args:
        wrong: (members, samples), where a member errs.
        n_classes: 2 or more.
        rounds: most rounds.

    Returns:
        float64 (members,): each member's alphas, summed over the rounds that took it; not all 0.
    """
    chance = 1 - 1 / n_classes
    alphas = np.zeros(len(wrong))
    weights = np.full(wrong.shape[1], 1 / wrong.shape[1])
    for _ in range(rounds):
        errors = wrong @ weights
        best = int(errors.argmin())
        error = float(errors[best])
        if error <= 0:  # right on every row: only possible in the first round
            alphas[best] = 1.0
            break
        if error >= chance - 1e-12:
            break
        alpha = np.log((1 - error) / error) + np.log(n_classes - 1)
        alphas[best] += alpha
        weights *= np.exp(alpha * wrong[best])
        weights /= weights.sum()
    return alphas if alphas.any() else np.ones(len(wrong))
