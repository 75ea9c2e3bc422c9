"""Finished Cells read back as models: what soups, emphasis and fold collapse start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from . import backbone
from .augment import BatchAugment
from .candidate import EVERY_ROW, Candidate, CellJob, FinishedCell, TrainingData
from .features import predict_logits


def parts_of(job: CellJob, data: TrainingData) -> list[FinishedCell]:
    """The Cells that a job is made from: of its own fold, or of every fold where it is trained on every row.

    Raises:
        StoreError: one is absent or damaged.
    """
    assert data.cells is not None, f"{job.candidate.name}: made from Cells, but the data reads none"
    folds = range(len(data.folds)) if job.fold == EVERY_ROW else (job.fold,)
    return [data.cells.cell(part, fold) for part in job.candidate.parts for fold in folds]


class Reader:
    """Predicts with the weights of finished Cells of one architecture, one after another in the same model.

    Args:
        candidate: its backbone, the shape of its head and whether it mirrors.
        data: whose images it predicts.
        job: that needs it: memory format and parts of a batch.
        device: where it predicts.
    """

    def __init__(self, candidate: Candidate, data: TrainingData, job: CellJob, device: torch.device) -> None:
        recipe = candidate.recipe
        self._device = device
        self._splits = job.splits
        self._mirror = recipe.tta
        self._memory = torch.channels_last if job.numerics.channels_last else torch.contiguous_format
        self.pixels = np.load(data.pixels, mmap_mode="r")
        self.normalise = BatchAugment(*backbone.normalisation(candidate.backbone), strength=0, flip=False)
        model = backbone.create(
            candidate.backbone,
            len(data.classes),
            hidden=backbone.hidden_widths(recipe),
            image_size=self.pixels.shape[1],
        )
        self.model: nn.Module = model.to(device, memory_format=self._memory).eval()  # type: ignore[call-overload]

    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Takes the weights of a Cell."""
        backbone.load_arrays(self.model, arrays)

    def logits(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits float32 (rows, classes) by the weights loaded last."""
        return predict_logits(
            self.model, self.normalise, self.pixels, rows, self._device, self._splits, self._mirror
        )

    def images(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """Normalised images (rows, 3, height, width) on the device."""
        plain = self.normalise.plain(torch.from_numpy(self.pixels[rows]).to(self._device))
        return plain.contiguous(memory_format=self._memory)


def mean_temperature(cells: Sequence[FinishedCell]) -> float:
    """The geometric mean of the temperatures of some Cells."""
    return float(np.exp(np.mean([np.log(cell.temperature) for cell in cells])))
