"""Stacked generalisation (Wolpert 1992): a multinomial logistic model on the members' log-probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from ..errors import CombinerError
from ..metrics import clipped_log, true_class_proba
from ..probability import log_softmax, softmax
from .base import Floats, Fold, Labels, Proba, weighted_mean
from .inner import best_step, inner_parts
from .meta import Stacker

#: Weaker penalties tried after the best one.
PATIENCE = 1


@dataclass(eq=False, kw_only=True)
class Stacking(Stacker):
    """Corrects the mean ensemble by a linear model of all members' log-probabilities.

    The logits are log(mean of the members) + design @ coefficients. The L2 penalty pulls every coefficient,
    intercepts too, to zero: to the mean ensemble, not to the uniform distribution. Its strength is chosen by
    inner cross-validation from `penalties` and infinity, so what the data cannot support stays the mean; from
    strong to weak, until one is no better.

    Attributes:
        penalties: strengths tried, positive; the loss is mean log loss + penalty / 2 x sum of squares.
        coef_: float64 (columns + 1, classes), the intercept last.
        penalty_: float64 (1,), the strength chosen; infinite when the mean was best.
    """

    name: ClassVar[str] = "stacking"
    learned: ClassVar[tuple[str, ...]] = (*Stacker.learned, "coef_", "penalty_")

    penalties: tuple[float, ...] = (1.0, 0.1, 0.01, 0.001)
    coef_: Floats = field(init=False, repr=False)
    penalty_: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.penalties = checked_penalties(self.name, self.penalties)

    def _fit_design(self, design: Floats, proba: Proba, labels: Labels, fold: Fold) -> None:
        design, offset = with_ones(design), clipped_log(weighted_mean(proba, None))
        path = (np.inf, *sorted(self.penalties, reverse=True))

        def losses() -> Iterator[float]:
            splits = splits_with_gram(design, labels, fold)
            fits = [fit_path(design[f], offset[f], labels[f], path, gram, 1e-4) for f, _, gram in splits]
            for coefs in zip(*fits, strict=True):
                yield sum(
                    held_out_loss(offset[h] + design[h] @ coef, labels[h])
                    for (_, h, _), coef in zip(splits, coefs, strict=True)
                )

        best, _ = best_step(losses(), PATIENCE)
        self.penalty_ = np.array([path[best]])
        *_, self.coef_ = fit_path(design, offset, labels, path[: best + 1], design.T @ design)

    def _combine_design(self, design: Floats, proba: Proba) -> Proba:
        return softmax(clipped_log(weighted_mean(proba, None)) + with_ones(design) @ self.coef_)


def checked_penalties(name: str, penalties: Sequence[float]) -> tuple[float, ...]:
    """Penalties as a tuple.

    Raises:
        CombinerError: there are none, or one is no positive number.
    """
    given = tuple(penalties)
    if not given or not all(isinstance(p, (int, float)) and p > 0 for p in given):
        raise CombinerError(f"{name}: penalties is {given}; expected positive numbers")
    return given


def held_out_loss(logits: Floats, labels: Labels) -> float:
    """Sum of the log losses of rows."""
    return -float(true_class_proba(labels, log_softmax(logits)).sum())


def with_ones(design: Floats) -> Floats:
    """The design and a column of ones, the last."""
    return np.concatenate([design, np.ones((len(design), 1))], axis=1)


def splits_with_gram(
    design: Floats, labels: Labels, fold: Fold
) -> list[tuple[NDArray[np.intp], NDArray[np.intp], Floats]]:
    """`inner_splits`, each with the Gram matrix of its fitted rows.

    One matrix a part, and sums of those: never the whole less a part, which would carry the held-out rows'
    rounding into the fit.
    """
    part = inner_parts(labels, fold)
    rows = [part == value for value in np.unique(part)]
    if len(rows) == 1:
        return []
    grams = [design[held_out].T @ design[held_out] for held_out in rows]
    return [
        (np.flatnonzero(~held_out), np.flatnonzero(held_out), np.sum(grams[:i] + grams[i + 1 :], axis=0))
        for i, held_out in enumerate(rows)
    ]


def fit_path(
    design: Floats,
    offset: Floats,
    labels: Labels,
    penalties: Sequence[float],
    gram: Floats,
    tolerance: float = 1e-5,
) -> Iterator[Floats]:
    """Coefficients (columns, classes) for one penalty after another, each fit starting from the last.

    Members say nearly the same, so the columns are close to collinear, and a search along the coefficients
    would zigzag. It goes along the axes of the curvature instead: that of the loss is about c x `gram`, c the
    mean of p (1 - p), which in its own eigenvectors, rescaled, looks the same in all directions.

    Args:
        design: (samples, columns).
        offset: (samples, classes), logits that are there without it.
        labels: (samples,).
        penalties: positive, infinity allowed; strongest first.
        gram: design.T @ design.
        tolerance: of the gradient along the rescaled axes.
    """
    n_samples, n_classes = offset.shape
    target = np.eye(n_classes)[labels]
    values, vectors = np.linalg.eigh(gram / n_samples)
    start_proba = np.exp(log_softmax(offset))
    doubt = max(float((start_proba * (1 - start_proba)).mean()), 1e-3)

    def objective(flat: Floats, penalty: float, axes: Floats) -> tuple[float, Floats]:
        coef = axes @ flat.reshape(-1, n_classes)
        log_proba = log_softmax(offset + design @ coef)
        loss = -(target * log_proba).sum() / n_samples + penalty / 2 * (coef**2).sum()
        gradient = design.T @ (np.exp(log_proba) - target) / n_samples + penalty * coef
        return loss, (axes.T @ gradient).ravel()

    coef = np.zeros((design.shape[1], n_classes))
    for penalty in penalties:
        if np.isfinite(penalty):
            scale = np.sqrt(doubt * np.maximum(values, 0) + penalty)
            start = scale[:, None] * (vectors.T @ coef)
            axes = vectors / scale
            found = minimize(
                objective,
                start.ravel(),
                (penalty, axes),
                "L-BFGS-B",
                jac=True,
                options={"maxiter": 500, "gtol": tolerance},
            )
            coef = axes @ found.x.reshape(-1, n_classes)
        yield coef
