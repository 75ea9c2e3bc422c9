"""Ridge heads for every penalty from one reduction of a fold's normal equations (Hoerl & Kennard 1970; Eldén 1977).

The matrix is reduced to tridiagonal form, Q T Q', at a third of the price of its eigenvectors. A penalty is added to
the diagonal of T, and a tridiagonal system is solved in no time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import lapack
from torch import Tensor

from .gram import Normal
from .logistic import Line

#: Largest factor between decision values and logits: beyond it a softmax of values around 1 says nothing new.
MAX_SCALE = 50.0

#: The search for a scale ends where the slope of the loss has fallen to this share.
SLOPE_SHARE = 1e-4

#: Columns that LAPACK reduces at a time.
BLOCK = 64

Doubles = NDArray[np.float64]


class RidgePath:
    """Minimisers of |Y - 1 bias' - X W|^2 / rows + penalty |W|^2 for one-hot Y and standardised X, of many penalties.

    The bias is `normal.shares` at every penalty, since the features are centred. scikit-learn's
    `Ridge(alpha=rows * penalty)` on the standardised features is the same.

    Args:
        normal: of the fold's train rows.
        penalties: all positive.
    """

    def __init__(self, normal: Normal, penalties: Sequence[float]) -> None:
        self.normal = normal
        self.penalties = penalties
        # Rows of torch are columns of LAPACK: its lower triangle is the upper one here.
        matrix, right = normal.matrix.cpu().numpy().T, normal.right.cpu().numpy()
        self._reduced: Doubles | None = None
        shifts = [normal.rows * penalty for penalty in penalties]
        if len(matrix) == 1:  # is tridiagonal, and smaller than what LAPACK's wrapper takes
            solutions = [right / (matrix + shift) for shift in shifts]
        else:
            self._reduced, diagonal, side, self._tau, _ = lapack.dsytrd(
                matrix, lower=1, lwork=BLOCK * len(matrix)
            )
            turned = self._turn(right, "T")
            solutions = [lapack.dptsv(diagonal + shift, side, turned)[2] for shift in shifts]
        self._solutions: Doubles = np.stack(solutions, 1)

    def coefficients(self, number: int) -> Tensor:
        """W, float64 (width, classes), of one penalty."""
        found = torch.from_numpy(self._turn(self._solutions[:, number], "N")).to(self.normal.mean.device)
        return found if self.normal.dual is None else self.normal.dual.T @ found

    def values(self, features: Tensor) -> Tensor:
        """Decision values float32 (penalties, rows, classes) of raw features (rows, width)."""
        x = self.normal.standardise(features)
        if self.normal.dual is not None:
            x = x @ self.normal.dual.T
        turned = torch.from_numpy(self._turn(x.cpu().numpy().T, "T").T.astype(np.float32))
        size, n, classes = self._solutions.shape
        flat = torch.from_numpy(self._solutions.astype(np.float32)).reshape(size, n * classes)
        values = (turned @ flat).view(-1, n, classes).permute(1, 0, 2).to(x.device)
        return values + self.normal.shares.float()

    def _turn(self, columns: Doubles, transpose: str) -> Doubles:
        """Q ("N") or Q' ("T") times columns (size, n). The first row stays: Q is made of reflections of the others."""
        turned = np.array(columns, order="F")
        if self._reduced is not None:
            size = BLOCK * turned.shape[1]
            below = self._reduced[1:, :-1]
            turned[1:] = lapack.dormqr("L", transpose, below, self._tau, turned[1:], size)[0]
        return turned


def fit_scales(values: Tensor, labels: Tensor) -> Tensor:
    """The factor of each penalty's decision values that gives the lowest log loss of their softmax.

    Args:
        values: float32 (penalties, rows, classes).
        labels: int64 (rows,).

    Returns:
        (penalties,), at most `MAX_SCALE`.
    """
    columns = values.permute(2, 0, 1).contiguous()
    taken = values[:, torch.arange(len(labels), device=values.device), labels].mean(1)
    line = Line(torch.zeros_like(columns), columns, -taken, torch.zeros_like(taken))
    scales = line.minimise(columns.mean((0, 2)) - taken, SLOPE_SHARE)[0]
    return scales.clamp(max=MAX_SCALE)


def left_out_values(
    normal: Normal, features: Tensor, labels: Tensor, coefficients: Tensor, penalty: float
) -> Tensor:
    """Decision values (rows, classes) of the train rows, each by the head of all the others (Allen 1974), float64.

    Args:
        normal: of the rows.
        features: float32 (rows, width), raw, in the order of the rows.
        labels: int64 (rows,).
        coefficients: float64 (width, classes).
        penalty: their own.
    """
    matrix = normal.matrix.triu() + normal.matrix.triu(1).T
    ridge = normal.rows * penalty
    factor = torch.linalg.cholesky(
        matrix + ridge * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    )
    x = normal.standardise(features)
    if normal.dual is None:
        leverage = torch.linalg.solve_triangular(factor, x.T, upper=False).square().sum(0)
    else:
        leverage = 1 - ridge * torch.cholesky_inverse(factor).diagonal()
    truth = torch.nn.functional.one_hot(labels, len(normal.shares)).double()
    residuals = truth - x @ coefficients - normal.shares
    # Where a row all but decides its own prediction, nothing can be said of it without it.
    left_out: Tensor = truth - residuals / (1 - leverage - 1 / normal.rows).clamp(min=1e-3)[:, None]
    return left_out
