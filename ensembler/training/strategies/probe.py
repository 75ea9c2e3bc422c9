"""A logistic head on frozen features: seconds, and already a candidate."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import ClassVar

import numpy as np
import torch

from ... import metrics
from ...probability import fit_temperature, softmax
from ..backbone import count_parameters, create, head_names
from ..candidate import CellJob, CellResult, Epoch, TrainingData
from ..features import ensure_features
from ..head_cache import ensure_head
from .base import Strategy


class Probe(Strategy):
    """The backbone stays as it is; only the head is learned, and only the head is stored."""

    name: ClassVar[str] = "probe"
    #: Of the head; see `heads.PENALTIES`.
    kind: ClassVar[str] = "logistic"

    def fit(
        self, job: CellJob, data: TrainingData, device: torch.device
    ) -> Generator[Epoch, None, CellResult]:
        """See `Strategy.fit`; there are no epochs to report."""
        yield from ()
        start = time.perf_counter()
        _, monitor, holdout = data.folds[job.fold]
        head = ensure_head(job.candidate, data, job.fold, self.kind, device)
        values = ensure_features(job.candidate, data, device)
        monitor_logits = head.logits(values[monitor])
        temperature = fit_temperature(monitor_logits, data.labels[monitor])
        monitor_proba = softmax(monitor_logits / temperature)
        model = create(
            job.candidate.backbone,
            len(data.classes),
            image_size=np.load(data.pixels, mmap_mode="r").shape[1],
        )
        weight_name, bias_name = head_names(model)
        return CellResult(
            job=job,
            proba=softmax(head.logits(values[holdout]) / temperature),
            weights={weight_name: head.weight, bias_name: head.bias},
            temperature=temperature,
            score=metrics.get_metric(data.metric)(data.labels[monitor], monitor_proba),
            best_epoch=0,
            history=(),
            train_s=time.perf_counter() - start,
            params=count_parameters(model),
        )
