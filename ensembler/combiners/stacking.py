"""Stacked generalisation (Wolpert 1992): a multinomial logistic model on the members' log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from scipy.optimize import minimize

from ..errors import CombinerError
from ..metrics import clipped_log, true_class_proba
from ..probability import log_softmax, softmax
from .base import Combiner, Floats, Fold, Labels, Proba, weighted_mean
from .inner import inner_splits


@dataclass(eq=False, kw_only=True)
class Stacking(Combiner):
    """Corrects the mean ensemble by a linear model of all members' log-probabilities.

    The logits are log(mean of the members) + features @ coefficients. The L2 penalty pulls every coefficient,
    intercepts too, to zero: to the mean ensemble, not to the uniform distribution. Its strength is chosen by
    inner cross-validation from `penalties` and infinity, so what the data cannot support stays the mean.

    Attributes:
        penalties: strengths tried, positive; the loss is mean log loss + penalty / 2 x sum of squares.
        coef_: float64 (members x classes + 1, classes), the intercept last.
        penalty_: float64 (1,), the strength chosen; infinite when the mean was best.
    """

    name: ClassVar[str] = "stacking"
    learned: ClassVar[tuple[str, ...]] = ("coef_", "penalty_")

    penalties: tuple[float, ...] = (1.0, 0.1, 0.01, 0.001)
    coef_: Floats = field(init=False, repr=False)
    penalty_: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.penalties = tuple(self.penalties)
        if not self.penalties or not all(isinstance(p, (int, float)) and p > 0 for p in self.penalties):
            raise CombinerError(f"{self.name}: penalties is {self.penalties}; expected positive numbers")

    def _fit(self, proba: Proba, labels: Labels, fold: Fold) -> None:
        features, offset = _features(proba), clipped_log(weighted_mean(proba, None))
        path = (np.inf, *sorted(self.penalties, reverse=True))
        losses = np.zeros(len(path))
        for fitted, held_out in inner_splits(labels, fold):
            coefs = _fit_path(features[fitted], offset[fitted], labels[fitted], path)
            for i, coef in enumerate(coefs):
                log_proba = log_softmax(offset[held_out] + features[held_out] @ coef)
                losses[i] -= true_class_proba(labels[held_out], log_proba).sum()
        best = int(losses.argmin())
        self.penalty_ = np.array([path[best]])
        self.coef_ = _fit_path(features, offset, labels, path[: best + 1])[-1]

    def _combine(self, proba: Proba) -> Proba:
        return softmax(clipped_log(weighted_mean(proba, None)) + _features(proba) @ self.coef_)


def _features(proba: Proba) -> Floats:
    """float64 (samples, members x classes + 1): log-probabilities centred over the classes, and ones."""
    logs = clipped_log(proba.transpose(1, 0, 2))
    logs -= logs.mean(axis=2, keepdims=True)
    return np.concatenate([logs.reshape(len(logs), -1), np.ones((len(logs), 1))], axis=1)


def _fit_path(features: Floats, offset: Floats, labels: Labels, penalties: tuple[float, ...]) -> list[Floats]:
    """Coefficients for each penalty, strongest first; each fit starts from the last, which saves steps."""
    n_samples, n_classes = offset.shape
    target = np.eye(n_classes)[labels]

    def objective(flat: Floats, penalty: float) -> tuple[float, Floats]:
        coef = flat.reshape(-1, n_classes)
        log_proba = log_softmax(offset + features @ coef)
        loss = -(target * log_proba).sum() / n_samples + penalty / 2 * (coef**2).sum()
        gradient = features.T @ (np.exp(log_proba) - target) / n_samples + penalty * coef
        return loss, gradient.ravel()

    coef = np.zeros((features.shape[1], n_classes))
    coefs = []
    for penalty in penalties:
        if np.isfinite(penalty):
            start = coef.ravel()
            found = minimize(
                objective, start, (penalty,), "L-BFGS-B", jac=True, options={"maxiter": 500, "gtol": 1e-5}
            )
            coef = found.x.reshape(-1, n_classes)
        coefs.append(coef)
    return coefs
