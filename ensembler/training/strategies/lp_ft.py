"""First the head on frozen features, then everything (Kumar et al. 2022).

A random head sends large random gradients into a good body; a fitted one does not. The head stage is solved on
features that screening has computed already, so it costs about a second.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import ClassVar

import torch

from ..adaptation import Adaptation
from ..candidate import CellJob, CellResult, Epoch, TrainingData
from ..features import ensure_features
from ..head_cache import ensure_head
from ..hidden_head import fit_hidden_head
from ..loop import fine_tune
from .base import Strategy


class LpFt(Strategy):
    """Linear probe, then fine-tuning of body and head."""

    name: ClassVar[str] = "lp-ft"
    adaptation: ClassVar[type[Adaptation]] = Adaptation

    def fit(
        self, job: CellJob, data: TrainingData, device: torch.device
    ) -> Generator[Epoch, None, CellResult]:
        """See `Strategy.fit`."""
        # What is trained on every row has no row to choose a penalty by: it starts from the head of the first fold.
        fold = max(job.fold, 0)
        train, monitor, _ = data.folds[fold]
        values = ensure_features(job.candidate, data, device)
        rows = (values[train], data.labels[train], values[monitor], data.labels[monitor])
        if job.candidate.recipe.head_layers:
            start = fit_hidden_head(*rows, len(data.classes), job)
        else:
            head = ensure_head(job.candidate, data, fold, "logistic", device)
            start = {"weight": head.weight, "bias": head.bias}
        return (yield from fine_tune(job, data, device, start, self.adaptation()))
