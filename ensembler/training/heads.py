"""Linear heads on frozen features, of all folds at once; the penalty of each is chosen on its fold's monitor rows.

logistic   the lowest log loss that a penalised linear head can have; what fine-tuning starts from
ridge      least squares on one-hot targets: one reduction a fold, then next to nothing a penalty
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import NonFiniteLossError
from .gram import Normal, normal_equations
from .logistic import fit_logistic
from .ridge import RidgePath, fit_scales, left_out_values

Index = NDArray[np.int64]

#: L2 penalties tried, strongest first. Of a logistic head beside the mean loss of a row; of a ridge head a row as well,
#: so that neither means something else on a larger set.
PENALTIES = {
    "logistic": tuple(np.logspace(0, -4, 13).tolist()),
    "ridge": tuple(np.logspace(2, -5, 100).tolist()),
}


@dataclass(frozen=True, eq=False)
class LinearHead:
    """A head for raw features.

    Attributes:
        weight: float32 (classes, width).
        bias: float32 (classes,).
        penalty: the one chosen.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    penalty: float

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(rows, classes) float32."""
        return np.asarray(features @ self.weight.T + self.bias, np.float32)


def fit_heads(
    kind: str,
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    folds: Sequence[tuple[Index, Index]],
    n_classes: int,
    device: torch.device | None = None,
) -> list[LinearHead]:
    """For each fold the head with the lowest log loss on its monitor rows.

    Features are standardised by the statistics of the fold's train rows, and the scaling is folded back into the
    weights, so that a head fits behind the backbone as it is. A fold's head has the same bits whatever is in the rows
    that are neither its train nor its monitor rows.

    Args:
        kind: a key of `PENALTIES`.
        features: (samples, width).
        labels: (samples,) int64.
        folds: for each fold the numbers of its (train, monitor) rows.
        n_classes: columns of the heads, whether or not every class occurs.
        device: where; None is the CPU.

    Raises:
        NonFiniteLossError: features that are not finite.
    """
    x = torch.from_numpy(np.require(features, np.float32, "W")).to(device)  # mapped files are read-only
    y = torch.from_numpy(np.require(labels, np.int64, "W")).to(device)
    solve = _FIT[kind]
    heads = []
    found = normal_equations(x, y, [train for train, _ in folds], n_classes)
    for normal, (train, monitor) in zip(found, folds, strict=True):
        rows, choice = (torch.from_numpy(np.asarray(part)).to(device) for part in (train, monitor))
        coefficients, shift, penalty = solve(normal, (x[rows], y[rows]), (x[choice], y[choice]))
        raw = coefficients.T * normal.scale
        weight, bias = (t.float().cpu().numpy() for t in (raw, shift - raw @ normal.mean))
        heads.append(LinearHead(np.ascontiguousarray(weight), bias, penalty))
    return heads


def fit_head(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    monitor_features: NDArray[np.float32],
    monitor_labels: NDArray[np.int64],
    n_classes: int,
) -> LinearHead:
    """The logistic head of one fold; see `fit_heads`.

    Args:
        features: (rows, width), the training rows alone.
        labels: (rows,) int64.
        monitor_features: (monitor rows, width).
        monitor_labels: (monitor rows,) int64.
        n_classes: columns of the head, whether or not every class occurs here.
    """
    n = len(labels)
    both = np.concatenate([features, monitor_features])
    every = np.concatenate([labels, monitor_labels])
    fold = (np.arange(n), np.arange(n, len(every)))
    return fit_heads("logistic", both, every, [fold], n_classes)[0]


# ---------------------------------------------------------------------- the two kinds

#: Raw features (rows, width) and labels.
Rows = tuple[Tensor, Tensor]
#: (normal, train, monitor) -> for standardised features float64 (width, classes), (classes,), and the penalty chosen
Fit = Callable[[Normal, Rows, Rows], tuple[Tensor, Tensor, float]]


def _logistic(normal: Normal, train: Rows, monitor: Rows) -> tuple[Tensor, Tensor, float]:
    penalties = torch.tensor(PENALTIES["logistic"], device=train[0].device)
    spectrum = normal.spectrum()
    n_classes = len(normal.shares)
    coefficients, bias = fit_logistic(
        spectrum.project(train[0]), train[1], spectrum.values, penalties, n_classes
    )
    logits = torch.einsum("mr,prc->pmc", spectrum.project(monitor[0]), coefficients) + bias[:, None]
    best = _lowest_loss(logits, monitor[1])
    turned_back = spectrum.vectors.double() @ coefficients[best].double()
    return turned_back, bias[best].double(), PENALTIES["logistic"][best]


def _ridge(normal: Normal, train: Rows, monitor: Rows) -> tuple[Tensor, Tensor, float]:
    """Least squares knows no probabilities: each penalty is judged at the scale that suits its monitor rows best.

    The head that is kept is scaled by what suits its train rows, each predicted without itself: they are many, and
    calibration on the monitor rows, as of every other candidate, then starts from about the right place.
    """
    path = RidgePath(normal, PENALTIES["ridge"])
    values = path.values(monitor[0])
    best = _lowest_loss(values * fit_scales(values, monitor[1])[:, None, None], monitor[1])
    coefficients, penalty = path.coefficients(best), PENALTIES["ridge"][best]
    left_out = left_out_values(normal, *train, coefficients, penalty)
    scale = fit_scales(left_out.float()[None], train[1])[0].double()
    return scale * coefficients, scale * normal.shares, penalty


def _lowest_loss(logits: Tensor, labels: Tensor) -> int:
    """Which of the (penalties, rows, classes) has the lowest log loss; the first of equal ones."""
    taken = torch.log_softmax(logits, -1)[:, torch.arange(len(labels), device=labels.device), labels]
    if not torch.isfinite(taken).all():
        raise NonFiniteLossError(
            "no penalty can be chosen: logits of the monitor rows are not finite; take other weights"
        )
    return int(taken.double().mean(1).argmax())


_FIT: dict[str, Fit] = {"logistic": _logistic, "ridge": _ridge}
