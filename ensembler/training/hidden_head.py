"""A head with hidden layers, fitted on frozen features before anything else moves."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from . import backbone
from .candidate import CellJob, digest

#: At most so many passes over the features, and so many without a better monitor loss.
EPOCHS, PATIENCE, BATCH = 200, 10, 64


def fit_hidden_head(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    monitor_features: NDArray[np.float32],
    monitor_labels: NDArray[np.int64],
    n_classes: int,
    job: CellJob,
) -> Mapping[str, NDArray[Any]]:
    """The arrays of a `backbone.HiddenHead` with the lowest log loss on the monitor rows.

    AdamW on standardised features; the scaling is folded into the first layer, so that the head fits behind the
    backbone as it is. The job's seed decides the bits.

    Args:
        features: (rows, width), the training rows alone.
        labels: (rows,) int64.
        monitor_features: (monitor rows, width).
        monitor_labels: (monitor rows,) int64.
        n_classes: outputs.
        job: its recipe gives `head_layers`, `head_width`, `dropout` and `weight_decay`.
    """
    recipe = job.candidate.recipe
    mean, std = features.mean(0), features.std(0) + 1e-6
    x = torch.from_numpy(np.asarray((features - mean) / std, np.float32))
    x_monitor = torch.from_numpy(np.asarray((monitor_features - mean) / std, np.float32))
    y, y_monitor = torch.from_numpy(labels), torch.from_numpy(monitor_labels)
    torch.manual_seed(int(digest([job.candidate.id, job.fold, job.seed, "head"], 15), 16))
    head = backbone.HiddenHead(x.shape[1], n_classes, backbone.hidden_widths(recipe), recipe.dropout)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=recipe.weight_decay, fused=True)
    best, best_state, best_epoch = float("inf"), head.state_dict(), 0
    for epoch in range(EPOCHS):
        head.train()
        order = torch.randperm(len(x))
        for part in backbone.batches(len(x), BATCH):
            rows = order[part]
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(head(x[rows]), y[rows], label_smoothing=recipe.label_smoothing)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.inference_mode():
            monitor_loss = float(F.cross_entropy(head.eval()(x_monitor), y_monitor))
        if monitor_loss < best:
            best, best_state, best_epoch = monitor_loss, copy.deepcopy(head.state_dict()), epoch
        elif epoch - best_epoch >= PATIENCE:
            break
    return _behind_raw_features(best_state, torch.from_numpy(mean), torch.from_numpy(std))


def _behind_raw_features(state: Mapping[str, Tensor], mean: Tensor, std: Tensor) -> dict[str, NDArray[Any]]:
    arrays = dict(state)
    weight, bias = (k for k in state if k.startswith("0."))
    arrays[weight] = state[weight] / std
    arrays[bias] = state[bias] - arrays[weight] @ mean
    return backbone.to_arrays(arrays)
