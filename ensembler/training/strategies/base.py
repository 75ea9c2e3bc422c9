"""The seam: a strategy trains one Cell."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from typing import ClassVar

import torch

from ..candidate import CellJob, CellResult, Epoch, TrainingData


class Strategy(ABC):
    """How a pretrained backbone becomes a classifier of the classes at hand.

    `fit` is a generator: it yields after each epoch, so that whoever drives it may stop it, and returns the
    finished Cell. It reads the fold's train rows for gradients, the monitor rows for every choice, and the
    holdout rows once, at the end.
    """

    name: ClassVar[str]

    @abstractmethod
    def fit(
        self, job: CellJob, data: TrainingData, device: torch.device
    ) -> Generator[Epoch, None, CellResult]:
        """Trains the job's candidate on its fold."""
