"""Stacking with one weight a member that cannot be negative: a logarithmic pool, fitted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np
from scipy.optimize import nnls

from ..metrics import clipped_log, true_class_proba
from ..probability import log_softmax, softmax
from .base import Combiner, Floats, Fold, Labels, Proba
from .inner import best_step, inner_splits
from .stacking import PATIENCE, checked_penalties, held_out_loss

#: Most Newton steps, and what the last one may still expect to gain in mean log loss.
MAX_STEPS, TOLERANCE = 50, 1e-6

#: Keeps the curvature of copies of one member invertible.
GUARD = 1e-9


@dataclass(eq=False, kw_only=True)
class StackingNonneg(Combiner):
    """Weighs the members' log-probabilities; no weight is negative, and their sum is free.

    Breiman (1996, "Stacked regressions") found that without the sign constraint near-copies are weighed
    against each other and the noise in their difference comes out magnified; with it, most weights end at
    exactly 0. Here it is the log-probabilities that are weighed (a logarithmic opinion pool, Genest & Zidek
    1986), so that the sum of the weights is at once the inverse temperature of the ensemble.

    The L2 penalty pulls every weight to 1 / members, that is to the geometric mean; its strength is chosen by
    inner cross-validation from `penalties` and infinity.

    Attributes:
        penalties: strengths tried, positive; the loss is mean log loss + penalty / 2 x sum of squares, of the
            weights less 1 / members, times the number of members.
        scale_: float64 (1,), the sum of the weights that were fitted; `weights_` are their shares.
        penalty_: float64 (1,), the strength chosen.
    """

    name: ClassVar[str] = "stacking_nonneg"
    learned: ClassVar[tuple[str, ...]] = ("weights_", "scale_", "penalty_")
    by_name: ClassVar[bool] = True

    penalties: tuple[float, ...] = (1.0, 0.1, 0.01, 0.001)
    scale_: Floats = field(init=False, repr=False)
    penalty_: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.penalties = checked_penalties(self.name, self.penalties)

    def _fit(self, proba: Proba, labels: Labels, fold: Fold) -> None:
        logs = clipped_log(proba)
        path = (np.inf, *sorted(self.penalties, reverse=True))

        def losses() -> Iterator[float]:
            splits = list(inner_splits(labels, fold))
            fits = [nonnegative_path(logs[:, fitted], labels[fitted], path) for fitted, _ in splits]
            for weights in zip(*fits, strict=True):
                yield sum(
                    held_out_loss(np.tensordot(one, logs[:, held_out], 1), labels[held_out])
                    for (_, held_out), one in zip(splits, weights, strict=True)
                )

        best, _ = best_step(losses(), PATIENCE)
        *_, weights = nonnegative_path(logs, labels, path[: best + 1])
        self.penalty_, self.scale_ = np.array([path[best]]), np.array([weights.sum()])
        n_members = len(proba)
        self.weights_ = weights / weights.sum() if weights.any() else np.full(n_members, 1 / n_members)

    def _combine(self, proba: Proba) -> Proba:
        total = np.zeros(proba.shape[1:])
        for slab, weight in zip(proba, self.weights_ if self.weights_ is not None else (), strict=True):
            if weight > 0:  # a member without weight leaves the bits as they are
                total += weight * clipped_log(slab)
        return softmax(total * self.scale_)


def nonnegative_path(logs: Floats, labels: Labels, penalties: Sequence[float]) -> Iterator[Floats]:
    """Weights (members,) for one penalty after another, each fit starting from the last.

    Newton's method: every step minimises the quadratic model within the bounds, which is a problem of
    non-negative least squares, so weights that belong at 0 are exactly 0.

    Args:
        logs: (members, samples, classes), log-probabilities.
        labels: (samples,).
        penalties: positive, infinity allowed; strongest first.
    """
    logs = np.ascontiguousarray(logs)  # a cut of rows is not, and would be copied in every step
    n_members, n_samples, _ = logs.shape
    true = true_class_proba(labels, logs)

    def loss(weights: Floats, penalty: float) -> float:
        fit = held_out_loss(np.tensordot(weights, logs, 1), labels) / n_samples
        return float(fit + penalty * n_members / 2 * ((weights - 1 / n_members) ** 2).sum())

    def model(weights: Floats, penalty: float) -> tuple[Floats, Floats]:
        """Gradient (members,) and curvature (members, members)."""
        proba = np.exp(log_softmax(np.tensordot(weights, logs, 1)))
        weighed = logs * proba
        means = weighed.sum(axis=2)
        gradient = (means - true).mean(axis=1) + penalty * n_members * (weights - 1 / n_members)
        square = weighed.reshape(n_members, -1) @ logs.reshape(n_members, -1).T - means @ means.T
        return gradient, square / n_samples + (penalty * n_members + GUARD) * np.eye(n_members)

    weights = np.full(n_members, 1 / n_members)
    for penalty in penalties:
        if np.isfinite(penalty):
            weights = _newton(weights, partial(loss, penalty=penalty), partial(model, penalty=penalty))
        yield weights


def _newton(
    weights: Floats, loss: Callable[[Floats], float], model: Callable[[Floats], tuple[Floats, Floats]]
) -> Floats:
    """The minimum of a convex loss over non-negative weights."""
    now = loss(weights)
    for _ in range(MAX_STEPS):
        gradient, curvature = model(weights)
        root = np.linalg.cholesky(curvature).T
        goal: Floats = nnls(root, root @ weights - np.linalg.solve(root.T, gradient))[0]
        fall = -float(gradient @ (goal - weights))  # of the tangent: an upper bound of what there is to gain
        if fall <= TOLERANCE:
            return goal
        step = 1.0
        while (then := loss(weights + step * (goal - weights))) > now - 1e-4 * step * fall and step > 1e-6:
            step /= 2
        weights, now = (goal if step == 1 else weights + step * (goal - weights)), then
    return weights
