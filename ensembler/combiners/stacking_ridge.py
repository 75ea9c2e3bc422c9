"""Stacking by ridge regression (Breiman 1996, "Stacked regressions") on one-hot labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ..metrics import true_class_proba
from ..probability import fit_temperature, log_softmax, softmax
from .base import Floats, Fold, Labels, Proba
from .meta import Stacker
from .stacking import checked_penalties, splits_with_gram, with_ones


@dataclass(eq=False, kw_only=True)
class StackingRidge(Stacker):
    """Regresses the one-hot label on all members' log-probabilities, and makes the scores probabilities.

    A score is about the share of rows of its class, but nothing holds it within 0 and 1. The probabilities are
    the softmax of the scores divided by a temperature, which is fitted to inner held-out rows together with
    the penalty: one eigendecomposition of an inner part's Gram matrix solves the regression for all penalties.

    Attributes:
        penalties: strengths tried, positive; the loss is mean squared error + penalty x sum of squares,
            without the intercept.
        coef_: float64 (columns + 1, classes), the intercept last.
        penalty_: float64 (1,), the strength chosen.
        temperature_: float64 (1,).
    """

    name: ClassVar[str] = "stacking_ridge"
    learned: ClassVar[tuple[str, ...]] = (*Stacker.learned, "coef_", "penalty_", "temperature_")

    penalties: tuple[float, ...] = (100.0, 10.0, 1.0, 0.1, 0.01)
    coef_: Floats = field(init=False, repr=False)
    penalty_: Floats = field(init=False, repr=False)
    temperature_: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.penalties = checked_penalties(self.name, self.penalties)

    def _fit_design(self, design: Floats, proba: Proba, labels: Labels, fold: Fold) -> None:
        design, n_classes = with_ones(design), proba.shape[2]
        target = np.eye(n_classes)[labels]
        path = sorted(self.penalties, reverse=True)
        scores = np.zeros((len(path), len(labels), n_classes))
        for fitted, held_out, gram in splits_with_gram(design, labels, fold):
            for i, coef in enumerate(ridge_path(gram, design[fitted].T @ target[fitted], path)):
                scores[i, held_out] = design[held_out] @ coef
        # Scores of one row stay 0: its strongest penalty and its temperature are as good as any.
        temperatures = [_temperature(one, labels) for one in scores]
        losses = [
            -true_class_proba(labels, log_softmax(one / t)).sum()
            for one, t in zip(scores, temperatures, strict=True)
        ]
        best = int(np.argmin(losses))
        self.penalty_, self.temperature_ = np.array([path[best]]), np.array([temperatures[best]])
        self.coef_ = ridge_path(design.T @ design, design.T @ target, [path[best]])[0]

    def _combine_design(self, design: Floats, proba: Proba) -> Proba:  # noqa: ARG002
        return softmax(with_ones(design) @ self.coef_ / self.temperature_)


def ridge_path(gram: Floats, moment: Floats, penalties: Sequence[float]) -> list[Floats]:
    """Coefficients (columns, classes) for each penalty, from one eigendecomposition.

    Args:
        gram: design.T @ design, the last column of the design all ones, whose coefficients go unpenalised.
        moment: design.T @ target.
        penalties: positive.
    """
    n_samples = gram[-1, -1]
    mean, mean_target = gram[-1, :-1] / n_samples, moment[-1] / n_samples
    covariance = gram[:-1, :-1] / n_samples - np.outer(mean, mean)
    cross = moment[:-1] / n_samples - np.outer(mean, mean_target)
    values, vectors = np.linalg.eigh(covariance)
    values, rotated = np.maximum(values, 0), vectors.T @ cross
    coefs = []
    for penalty in penalties:
        slopes = vectors @ (rotated / (values + penalty)[:, None])
        coefs.append(np.concatenate([slopes, (mean_target - mean @ slopes)[None]]))
    return coefs


def _temperature(scores: Floats, labels: Labels) -> float:
    """Of regression scores, whose scale is not that of logits: no prior, but one clear row a class, misjudged.

    Without these rows, scores that never err on a small set would become certain.
    """
    n_classes = scores.shape[1]
    unclear = np.tile(np.eye(n_classes)[0], (n_classes, 1))
    return fit_temperature(
        np.concatenate([scores, unclear]),
        np.concatenate([labels, np.arange(n_classes)]),
        prior_sd=None,
    )
