"""Multinomial logistic regression for many L2 penalties at once: one pass over the rows serves them all.

L-BFGS (Nocedal 1980) with two changes that the problem invites. The rows come in the basis of their Gram matrix's
eigenvectors, where the Hessian is nearly diagonal; that diagonal, with the model's present doubt in each class, is the
first guess of the curvature, so that badly conditioned features cost no more steps than others. And logits are linear
in the weights, so that a search along a line needs no product with the rows: a step costs two products, however many
points of the line are tried.

Each fold is solved by itself. A fold's head then has the same bits whatever is in the rows of the others, and no time
goes into rows that it must not see.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import NonFiniteLossError, TrainingError

#: A problem is solved when the step ahead promises less than this, in nats a row, and the step before promised no more
#: than `STEADY` times as much: right after a large step the curvature is a poor guess, and so is the promise.
TOLERANCE, STEADY = 1e-5, 100.0

#: First the problem is solved to this in the best `COARSE_SHARE` of the directions, where a step costs as much less.
COARSE_TOLERANCE, COARSE_SHARE = 3e-4, 0.25

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
    best = max(1, int(COARSE_SHARE * len(values)))  # eigenvalues ascend; the bias comes along
    few = columns[-best - 1 :].contiguous()
    solved = []
    for part in torch.split(penalties.float(), size):
        start = torch.zeros(n_classes, len(part), len(columns), device=rows.device)
        start[:, :, -best - 1 :] = _solve(
            few, labels, values[-best:], part, start[:, :, -best - 1 :], COARSE_TOLERANCE
        )
        solved.append(_solve(columns, labels, values, part, start, TOLERANCE))
    weights = torch.cat(solved, 1).permute(1, 2, 0)
    return weights[:, :-1], weights[:, -1]


def _solve(
    columns: Tensor, labels: Tensor, values: Tensor, penalties: Tensor, start: Tensor, tolerance: float
) -> Tensor:
    """Weights (classes, penalties, rank + 1), the bias last; `columns` is (rank + 1, rows), a row of ones last."""
    n_rows, width, n_classes = columns.shape[1], len(columns), len(start)
    device = columns.device
    decay = penalties[:, None].expand(-1, width).clone()
    decay[:, -1] = 0
    truth = torch.nn.functional.one_hot(labels, n_classes).to(columns.dtype).T @ columns.T / n_rows
    truth = truth[:, None]  # (classes, 1, rank + 1): minus the gradient's part that stays
    data = torch.cat([values / n_rows, torch.ones(1, device=device)])
    memory = _Memory()

    solved = torch.zeros(n_classes, len(penalties), width, device=device)
    open_problems = torch.arange(len(penalties), device=device)
    weights = start
    logits = (weights.flatten(0, 1) @ columns).view(n_classes, len(penalties), n_rows)
    proba = torch.softmax(logits, 0)
    doubt = _doubt(proba)
    last_promise = torch.full_like(penalties, math.inf)
    gradient = _expected(proba, columns) - truth + decay * weights
    for _ in range(MAX_STEPS):
        direction = memory.direction(gradient, doubt * data + decay)
        slope = _dot(direction, gradient)
        promise = -slope / 2
        if not torch.isfinite(promise).all():
            raise NonFiniteLossError(
                "the loss of a logistic head is not finite, because the features of its backbone are not; "
                "take other weights"
            )
        going = (promise > tolerance) | (last_promise > STEADY * tolerance)
        if not going.all():
            solved[:, open_problems[~going]] = weights[:, ~going]
            if not going.any():
                return solved
            open_problems, decay = open_problems[going], decay[going]
            memory.keep(going)
            slope, promise = slope[going], promise[going]
            weights, logits, gradient, direction = (
                t[:, going] for t in (weights, logits, gradient, direction)
            )
        slopes = (direction.flatten(0, 1) @ columns).view_as(logits)
        decayed = decay * direction
        line = Line(logits, slopes, _dot(weights, decayed) - _dot(truth, direction), _dot(direction, decayed))
        length, logits, proba = line.minimise(slope, SLOPE_SHARE)
        step = length[:, None] * direction
        weights = weights + step
        doubt = _doubt(proba)
        before, gradient = gradient, _expected(proba, columns) - truth + decay * weights
        memory.add(step, gradient - before)
        last_promise = promise
    raise TrainingError(
        f"a logistic head has not settled within {MAX_STEPS} steps; take strategy ridge instead of probe"
    )


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """(penalties,): the inner product of each problem."""
    return (a * b).sum((0, 2))


def _doubt(proba: Tensor) -> Tensor:
    """(classes, penalties, 1): mean second derivative of the cross-entropy in a class's logit."""
    return (proba.mean(2) - proba.square().mean(2)).clamp(min=1e-4)[:, :, None]


def _expected(proba: Tensor, columns: Tensor) -> Tensor:
    """Mean of the columns, weighted by each class's probability: (classes, penalties, rank + 1)."""
    return (proba.flatten(0, 1) @ columns.T).view(*proba.shape[:2], -1) / proba.shape[2]


@dataclass(eq=False)
class Line:
    """Convex functions of a length t: mean log-sum-exp of logits + t * slopes, plus t * linear + t^2 / 2 * quadratic.

    With the mean slope of the true classes as minus `linear` that is a cross-entropy.

    Attributes:
        logits: (classes, penalties, rows) at t = 0.
        slopes: their change with t.
        linear: (penalties,).
        quadratic: (penalties,).
    """

    logits: Tensor
    slopes: Tensor
    linear: Tensor
    quadratic: Tensor

    def minimise(self, first: Tensor, slope_share: float) -> tuple[Tensor, Tensor, Tensor]:
        """Lengths (penalties,) where the slope has fallen to a share of the first; the logits and probabilities there.

        Newton's method within a bracket, all problems together.

        Args:
            first: (penalties,), the slopes at t = 0, negative.
            slope_share: in (0, 1).
        """
        low = torch.zeros_like(self.linear)
        high = torch.full_like(low, math.inf)
        length = torch.ones_like(low)
        for point in range(MAX_POINTS):
            logits = torch.addcmul(self.logits, self.slopes, length[:, None])
            proba = torch.softmax(logits, 0)
            weighted = proba * self.slopes
            mean = weighted.sum(0)
            slope = mean.mean(1) + self.linear + length * self.quadratic
            done = slope.abs() <= slope_share * first.abs()
            if done.all() or point == MAX_POINTS - 1:
                break
            spread = weighted.mul_(self.slopes).sum(0) - mean.square()
            low = torch.where(slope < 0, length, low)
            high = torch.where(slope > 0, length, high)
            target = length - slope / (spread.mean(1).clamp(min=1e-12) + self.quadratic)
            inside = (target > low) & (target < high)
            middle = torch.where(torch.isinf(high), 4 * length, (low + high) / 2)
            length = torch.where(done, length, torch.where(inside, target.clamp(max=4 * length), middle))
        return length, logits, proba


class _Memory:
    """The last steps of each problem and how its gradient changed along them, for directions of L-BFGS."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Tensor, Tensor, Tensor]] = []

    def keep(self, which: Tensor) -> None:
        """Forgets the problems that are solved."""
        self._pairs = [(s[:, which], c[:, which], i[which]) for s, c, i in self._pairs]

    def add(self, step: Tensor, change: Tensor) -> None:
        """Remembers a step; one that went nowhere leaves no trace."""
        product = _dot(step, change)
        inverse = torch.where(product > 0, 1 / product, 0.0)
        self._pairs = [*self._pairs[-MEMORY + 1 :], (step, change, inverse)]

    def direction(self, gradient: Tensor, curvature: Tensor) -> Tensor:
        """Minus the inverse Hessian, as it is guessed, times the gradient; by the recursion of two loops.

        Args:
            gradient: (classes, penalties, rank + 1).
            curvature: the same, a diagonal to begin the guess with; only its proportions matter once there are steps.
        """
        left = -gradient
        shares = []
        for step, change, inverse in reversed(self._pairs):
            share = inverse * _dot(step, left)
            left = left - share[:, None] * change
            shares.append(share)
        left = left / curvature
        if self._pairs:
            step, change, inverse = self._pairs[-1]
            length = _dot(change, change / curvature)
            left = left * torch.where(inverse > 0, 1 / (inverse * length), 1.0)[:, None]
        for (step, change, inverse), share in zip(self._pairs, reversed(shares), strict=True):
            left = left + (share - inverse * _dot(change, left))[:, None] * step
        return left
