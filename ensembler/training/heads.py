"""Linear heads on frozen features: multinomial logistic regression, its penalty chosen on the monitor rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

#: L2 penalties tried, strongest first, so that each solution warms up the next.
PENALTIES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3)


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


def fit_head(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    monitor_features: NDArray[np.float32],
    monitor_labels: NDArray[np.int64],
    n_classes: int,
) -> LinearHead:
    """The logistic head with the lowest log loss on the monitor rows.

    Features are standardised by the statistics of the training rows, and the scaling is folded back into the
    weights, so that the head fits behind the backbone as it is.

    Args:
        features: (rows, width), the training rows alone.
        labels: (rows,) int64.
        monitor_features: (monitor rows, width).
        monitor_labels: (monitor rows,) int64.
        n_classes: columns of the head, whether or not every class occurs here.
    """
    mean, std = features.mean(0), features.std(0) + 1e-6
    x = torch.from_numpy(np.asarray((features - mean) / std, np.float32))
    x_monitor = torch.from_numpy(np.asarray((monitor_features - mean) / std, np.float32))
    y, y_monitor = torch.from_numpy(labels), torch.from_numpy(monitor_labels)
    weight = torch.zeros(n_classes, x.shape[1])
    bias = torch.zeros(n_classes)
    best: tuple[float, float, Tensor, Tensor] | None = None
    for penalty in PENALTIES:
        weight, bias = _solve(x, y, weight, bias, penalty)
        loss = float(F.cross_entropy(x_monitor @ weight.T + bias, y_monitor))
        if best is None or loss < best[0]:
            best = (loss, penalty, weight, bias)
        else:
            break  # the path is convex in practice: past its minimum weaker penalties only overfit further
    assert best is not None
    _, penalty, weight, bias = best
    scaled = weight.numpy() / std
    shifted = bias.numpy() - scaled @ mean
    return LinearHead(scaled.astype(np.float32), shifted.astype(np.float32), penalty)


def _solve(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    weight = weight.clone().requires_grad_()
    bias = bias.clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [weight, bias], max_iter=60, history_size=10, line_search_fn="strong_wolfe", tolerance_grad=1e-5
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(x @ weight.T + bias, y) + 0.5 * penalty * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
