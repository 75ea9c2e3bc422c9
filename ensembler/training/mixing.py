"""Mixup and CutMix on the batch."""

from __future__ import annotations

import torch
from torch import Tensor


def mix(
    images: Tensor, targets: Tensor, mixup: float, cutmix: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Placeholder until the real one is written."""
    raise NotImplementedError
