"""Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019) on a batch, each image with a share and a box of its own."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def mix(
    images: Tensor, targets: Tensor, mixup: float, cutmix: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mixes each image, and its label, with another of the batch.

    Args:
        images: float (batch, 3, height, width).
        targets: float (batch, classes), rows that sum to one.
        mixup: alpha of the Beta distribution of mixup's share; 0 is off.
        cutmix: alpha of the Beta distribution of CutMix's area; 0 is off. With both on, each batch draws one.
        generator: on the CPU, of everything that is drawn: the same on every device.

    Returns:
        New images and targets; the inputs themselves where both are off.
    """
    if not mixup and not cutmix:
        return images, targets
    n = len(images)
    # torch draws no Beta from a generator: numpy does, from a seed that the generator gives.
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    partner = torch.from_numpy(rng.permutation(n)).to(images.device)
    if cutmix and (not mixup or rng.random() < 0.5):
        inside = torch.from_numpy(_boxes(rng.beta(cutmix, cutmix, n), images.shape[2:], rng))
        kept = (1 - inside.float().mean((1, 2))).to(images.device)  # of the pixels themselves, not as drawn
        mixed = torch.where(inside[:, None].to(images.device), images[partner], images)
    else:
        kept = torch.from_numpy(rng.beta(mixup, mixup, n).astype(np.float32)).to(images.device)
        mixed = torch.lerp(images[partner], images, kept[:, None, None, None])
    return mixed, torch.lerp(targets[partner], targets, kept[:, None])


def _boxes(
    kept: np.ndarray[tuple[int], np.dtype[np.float64]], size: torch.Size, rng: np.random.Generator
) -> np.ndarray[tuple[int, int, int], np.dtype[np.bool_]]:
    """Masks (batch, height, width) of boxes of area 1 - `kept` and the image's own shape, cut off at its edges."""
    height, width = size
    side = np.sqrt(1 - kept) / 2
    centre_y, centre_x = rng.random((2, len(kept)))
    y = (np.arange(height) + 0.5) / height
    x = (np.arange(width) + 0.5) / width
    rows = np.abs(y - centre_y[:, None]) < side[:, None]
    columns = np.abs(x - centre_x[:, None]) < side[:, None]
    mask: np.ndarray[tuple[int, int, int], np.dtype[np.bool_]] = rows[:, :, None] & columns[:, None, :]
    return mask
