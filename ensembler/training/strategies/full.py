"""Everything is trained from the first step."""

from __future__ import annotations

from collections.abc import Generator
from typing import ClassVar

import torch

from ..candidate import CellJob, CellResult, Epoch, TrainingData
from ..loop import fine_tune
from .base import Strategy


class Full(Strategy):
    """Body and a new random head together; the only choice for random weights."""

    name: ClassVar[str] = "full"

    def fit(
        self, job: CellJob, data: TrainingData, device: torch.device
    ) -> Generator[Epoch, None, CellResult]:
        """See `Strategy.fit`."""
        return (yield from fine_tune(job, data, device))
