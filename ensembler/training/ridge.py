"""Ridge heads from a fold's spectrum: every penalty is a division (Hoerl & Kennard 1970)."""

from __future__ import annotations

import torch
from torch import Tensor

from .gram import Spectrum
from .logistic import Line

#: Largest factor between decision values and logits: beyond it a softmax of values around 1 says nothing new.
MAX_SCALE = 50.0

#: The search for a scale ends where the slope of the loss has fallen to this share.
SLOPE_SHARE = 1e-4


def ridge_coefficients(spectrum: Spectrum, penalties: Tensor) -> Tensor:
    """Minimisers of |Y - 1 bias' - X W|^2 / rows + penalty |W|^2 for one-hot Y, in the basis of the eigenvectors.

    The bias is `spectrum.shares` at every penalty, since the features are centred. scikit-learn's
    `Ridge(alpha=rows * penalty)` on the standardised features is the same.

    Args:
        spectrum: of the fold's train rows.
        penalties: float64 (penalties,), all positive.

    Returns:
        float64 (penalties, rank, classes).
    """
    return spectrum.targets / (spectrum.values[:, None] + spectrum.rows * penalties[:, None, None])


def fit_scales(values: Tensor, labels: Tensor) -> Tensor:
    """The factor of each penalty's decision values that gives the lowest log loss of their softmax.

    Args:
        values: float32 (penalties, rows, classes).
        labels: int64 (rows,).

    Returns:
        (penalties,), at most `MAX_SCALE`.
    """
    columns = values.permute(2, 0, 1).contiguous()
    none = torch.zeros(values.shape[0], device=values.device)
    scales, _ = Line(torch.zeros_like(columns), columns, labels, none, none).minimise(SLOPE_SHARE)
    return scales.clamp(max=MAX_SCALE)


def held_out_scale(
    spectrum: Spectrum, rows: Tensor, labels: Tensor, coefficients: Tensor, penalty: float
) -> Tensor:
    """The factor that suits the train rows, each predicted by the head of all the others (Allen 1974).

    Args:
        spectrum: of the rows.
        rows: float32 (rows, rank), projected.
        labels: int64 (rows,).
        coefficients: float64 (rank, classes).
        penalty: their own.
    """
    truth = torch.nn.functional.one_hot(labels, len(spectrum.shares)).float()
    inverse = 1 / (spectrum.values + spectrum.rows * penalty)
    leverage = rows.square() @ inverse.float() + 1 / spectrum.rows
    residuals = truth - rows @ coefficients.float() - spectrum.shares.float()
    # Where there are as many features as rows a row may decide its own prediction; nothing is known of it without it.
    left_out = truth - residuals / (1 - leverage).clamp(min=1e-3)[:, None]
    return fit_scales(left_out[None], labels)[0]
