"""Heads on frozen features in the run: solved for all folds by whoever needs one first, read ever after."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..atomic import reading, write_file
from .candidate import Candidate, TrainingData, digest
from .features import ensure_features
from .heads import PENALTIES, LinearHead, fit_heads

#: Part of every file's name: raise it when a change of the code changes what a head is.
HEADS_VERSION = 1


def heads_file(candidate: Candidate, data: TrainingData, kind: str) -> Path:
    """Where the heads of all folds lie, beside the features that they were fitted on.

    The name holds all that decides them: images, labels, classes, folds, the kind of head and its penalties.
    """
    rows = hashlib.sha256(data.labels.tobytes())
    for train, monitor, _ in data.folds:
        for part in (train, monitor):
            rows.update(f"{len(part)}:".encode() + part.tobytes())
    content = [HEADS_VERSION, kind, PENALTIES[kind], data.fingerprint, len(data.classes), rows.hexdigest()]
    features = data.features_file(candidate)
    return features.with_name(f"{features.stem}-{kind}-{digest(content, 10)}.safetensors")


def ensure_head(
    candidate: Candidate, data: TrainingData, fold: int, kind: str, device: torch.device
) -> LinearHead:
    """The head of a fold on the frozen features of a candidate's backbone.

    The first worker that needs one solves all folds; the file appears by one rename, and two writers write the same
    bytes. A fold's head knows the fold's train rows, by fitting, and its monitor rows, by the choice of the penalty.

    Args:
        candidate: its backbone and weights.
        data: of the run.
        fold: its number.
        kind: a key of `heads.PENALTIES`.
        device: where it is computed, if it has to be.

    Raises:
        StoreError: the file cannot be written, or is damaged.
        NonFiniteLossError: the backbone's features are not finite.
    """
    file = heads_file(candidate, data, kind)
    if not file.is_file():
        values = ensure_features(candidate, data, device)
        folds = [(train, monitor) for train, monitor, _ in data.folds]
        heads = fit_heads(kind, values, data.labels, folds, len(data.classes), device)
        arrays = {
            "weight": np.stack([head.weight for head in heads]),
            "bias": np.stack([head.bias for head in heads]),
            "penalty": np.array([head.penalty for head in heads]),
        }
        write_file(file, lambda stream: stream.write(save(arrays)))
    with reading(file, "delete it and run the same command again", (SafetensorError, KeyError)):
        stored = load(file.read_bytes())
        return LinearHead(stored["weight"][fold], stored["bias"][fold], float(stored["penalty"][fold]))
