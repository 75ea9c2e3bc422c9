"""Multinomial logistic regression for many L2 penalties at once: one pass over the rows serves them all.

L-BFGS (Nocedal 1980) with two changes that the problem invites. The rows come in the basis of their Gram matrix's
eigenvectors, where a bound of the Hessian is diagonal (Böhning 1992); it is the first guess of the curvature, so that
badly conditioned features cost no more steps than others. And logits are linear in the weights, so that a search
along a line needs no product with the rows: a step costs two products, however many points of the line are tried.

Each fold is solved by itself. A fold's head then has the same bits whatever is in the rows of the others, and no time
goes into rows that it must not see.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import NonFiniteLossError, TrainingError

#: A problem is solved when the step ahead promises less than this, in nats a row.
TOLERANCE = 2e-8

MAX_STEPS = 2000

#: Steps remembered.
MEMORY = 10

#: Logits held at a time, rows x penalties x classes: what is beyond waits for its turn.
MAX_LOGITS = 2**26

#: A search along a line ends where the slope has fallen to this share, or after so many points.
SLOPE_SHARE, MAX_POINTS = 0.25, 12


def fit_logistic(
    rows: Tensor, labels: Tensor, values: Tensor, penalties: Tensor, n_classes: int
) -> tuple[Tensor, Tensor]:
    """For each penalty the weights that minimise mean cross-entropy + penalty / 2 * |weights|^2; the bias is free.

    Args:
        rows: float32 (rows, rank), centred and in the basis of the eigenvectors; see `gram.Spectrum.project`.
        labels: int64 (rows,).
        values: (rank,), eigenvalues of the Gram matrix.
        penalties: (penalties,), all positive.
        n_classes: whether or not every class occurs; that of a class that does not is pushed towards minus infinity.

    Returns:
        coefficients float32 (penalties, rank, classes), bias float32 (penalties, classes).

    Raises:
        NonFiniteLossError: the rows are not finite.
        TrainingError: no convergence.
    """
    size = max(1, MAX_LOGITS // (len(rows) * n_classes))
    ones = torch.ones(len(rows), 1, device=rows.device)
    columns = torch.cat([rows, ones], 1).T.contiguous()
    solved = [
        _solve(columns, labels, values.float(), part.float(), n_classes)
        for part in torch.split(penalties, size)
    ]
    weights = torch.cat(solved, 1).permute(1, 2, 0)
    return weights[:, :-1], weights[:, -1]


def _solve(columns: Tensor, labels: Tensor, values: Tensor, penalties: Tensor, n_classes: int) -> Tensor:
    """Weights (classes, penalties, rank + 1), the bias last; `columns` is (rank + 1, rows), a row of ones last."""
    n_rows, width = columns.shape[1], len(columns)
    device = columns.device
    # The second derivative of the cross-entropy is at most 1/2 a logit (Böhning 1992), with the bias as with weights.
    decay = penalties[:, None].expand(-1, width).clone()
    decay[:, -1] = 0
    data = torch.cat([values / n_rows, torch.ones(1, device=device)])
    memory = _Memory(data / 2 + decay)

    solved = torch.zeros(n_classes, len(penalties), width, device=device)
    open_problems = torch.arange(len(penalties), device=device)
    weights = solved
    logits = torch.zeros(n_classes, len(penalties), n_rows, device=device)
    gradient = _gradient(torch.full_like(logits, 1 / n_classes), columns, labels)
    for _ in range(MAX_STEPS):
        direction = memory.direction(gradient)
        promise = -_dot(direction, gradient) / 2
        if not torch.isfinite(promise).all():
            raise NonFiniteLossError(
                "the loss of a logistic head is not finite, because the features of its backbone are not; "
                "take other weights"
            )
        going = promise > TOLERANCE
        if not going.all():
            solved[:, open_problems[~going]] = weights[:, ~going]
            if not going.any():
                return solved
            open_problems, decay = open_problems[going], decay[going]
            memory.keep(going)
            weights, logits, gradient, direction = (
                t[:, going] for t in (weights, logits, gradient, direction)
            )
        slopes = (direction.flatten(0, 1) @ columns).view_as(logits)
        decayed = decay * direction
        line = Line(logits, slopes, labels, _dot(weights, decayed), _dot(direction, decayed))
        length, proba = line.minimise(SLOPE_SHARE)
        step = length[:, None] * direction
        weights = weights + step
        logits = logits + length[:, None] * slopes
        before, gradient = gradient, _gradient(proba, columns, labels) + decay * weights
        memory.add(step, gradient - before)
    raise TrainingError(
        f"a logistic head has not settled within {MAX_STEPS} steps; take strategy ridge instead of probe"
    )


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """(penalties,): the inner product of each problem."""
    return (a * b).sum((0, 2))


def _gradient(proba: Tensor, columns: Tensor, labels: Tensor) -> Tensor:
    """Of the mean cross-entropy, (classes, penalties, rank + 1). Changes `proba`."""
    proba[labels, :, torch.arange(len(labels), device=labels.device)] -= 1
    return (proba.flatten(0, 1) @ columns.T).view(*proba.shape[:2], -1) / len(labels)


@dataclass(eq=False)
class Line:
    """The objective of each problem along its direction: convex in the length t of the step.

    Attributes:
        logits: (classes, penalties, rows) at t = 0.
        slopes: their change with t.
        labels: (rows,).
        linear: (penalties,), of the penalty: t * linear + t^2 / 2 * quadratic.
        quadratic: (penalties,).
    """

    logits: Tensor
    slopes: Tensor
    labels: Tensor
    linear: Tensor
    quadratic: Tensor

    def minimise(self, slope_share: float) -> tuple[Tensor, Tensor]:
        """Lengths (penalties,) where the slope has fallen to a share of the first, and the probabilities there.

        Newton's method within a bracket, all problems together.
        """
        taken = self.slopes[self.labels, :, torch.arange(len(self.labels), device=self.labels.device)].mean(0)
        low = torch.zeros_like(self.linear)
        high = torch.full_like(low, math.inf)
        first, _, proba = self._derivatives(low, taken)
        length = torch.ones_like(low)
        for _ in range(MAX_POINTS):
            slope, curvature, proba = self._derivatives(length, taken)
            done = slope.abs() <= slope_share * first.abs()
            if done.all():
                break
            low = torch.where(slope < 0, length, low)
            high = torch.where(slope > 0, length, high)
            target = (length - slope / curvature).clamp(max=4 * length)
            inside = (target > low) & (target < high)
            middle = torch.where(torch.isinf(high), 4 * length, (low + high) / 2)
            length = torch.where(done, length, torch.where(inside, target, middle))
        else:
            proba = self._derivatives(length, taken)[2]
        return length, proba

    def _derivatives(self, length: Tensor, taken: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Slope (penalties,), curvature (penalties,) and probabilities (classes, penalties, rows) at a length."""
        proba = torch.softmax(self.logits + length[:, None] * self.slopes, 0)
        weighted = proba * self.slopes
        mean = weighted.sum(0)
        slope = mean.mean(1) - taken + self.linear + length * self.quadratic
        spread = (weighted * self.slopes).sum(0) - mean.square()
        return slope, spread.mean(1).clamp(min=1e-12) + self.quadratic, proba


class _Memory:
    """The last steps of each problem and how its gradient changed along them, for directions of L-BFGS.

    Args:
        curvature: (penalties, rank + 1), a diagonal guess of the Hessian.
    """

    def __init__(self, curvature: Tensor) -> None:
        self._curvature = curvature
        self._pairs: list[tuple[Tensor, Tensor, Tensor]] = []

    def keep(self, which: Tensor) -> None:
        """Forgets the problems that are solved."""
        self._curvature = self._curvature[which]
        self._pairs = [(s[:, which], c[:, which], i[which]) for s, c, i in self._pairs]

    def add(self, step: Tensor, change: Tensor) -> None:
        """Remembers a step; one that went nowhere leaves no trace."""
        product = _dot(step, change)
        inverse = torch.where(product > 0, 1 / product, 0.0)
        self._pairs = [*self._pairs[-MEMORY + 1 :], (step, change, inverse)]

    def direction(self, gradient: Tensor) -> Tensor:
        """Minus the gradient times the guess of the inverse Hessian, by the recursion of two loops."""
        left = -gradient
        shares = []
        for step, change, inverse in reversed(self._pairs):
            share = inverse * _dot(step, left)
            left = left - share[:, None] * change
            shares.append(share)
        left = left / self._curvature
        if self._pairs:
            step, change, inverse = self._pairs[-1]
            length = _dot(change, change / self._curvature)
            left = left * torch.where(inverse > 0, 1 / (inverse * length), 1.0)[:, None]
        for (step, change, inverse), share in zip(self._pairs, reversed(shares), strict=True):
            left = left + (share - inverse * _dot(change, left))[:, None] * step
        return left
