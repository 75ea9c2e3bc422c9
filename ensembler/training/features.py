"""Frozen features: what each backbone sees before it is trained, computed once a (backbone, weights, size)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..atomic import reading, write_array, write_file
from .augment import BatchAugment
from .backbone import batches, create, features, normalisation
from .candidate import Candidate, TrainingData
from .processor import keep_freed_memory

#: Images a forward pass without gradients.
EVAL_BATCH = 128


def ensure_features(candidate: Candidate, data: TrainingData, device: torch.device) -> NDArray[np.float32]:
    """Features (samples, width) of every out-of-fold image by the untrained backbone, mapped from the run.

    The first worker that needs them writes them; the file appears by one rename, so that a reader sees all or
    nothing, and two writers write the same bytes.
    """
    file = data.features_file(candidate)
    if not file.is_file():
        torch.manual_seed(0)
        pixels = np.load(data.pixels, mmap_mode="r")
        body = data.weights_files.get(candidate.weights)
        model = create(candidate.backbone, len(data.classes), body, image_size=pixels.shape[1])
        values = extract(model, candidate.backbone, pixels, device)
        write_file(file, lambda stream: write_array(stream, values))
    with reading(file, "delete it and run the same command again", (ValueError, EOFError)):
        loaded: NDArray[np.float32] = np.load(file, mmap_mode="r")
    return loaded


@torch.inference_mode()
def extract(
    model: nn.Module, backbone: str, pixels: NDArray[np.uint8], device: torch.device
) -> NDArray[np.float32]:
    """Features (samples, width) float32 of uint8 images (samples, size, size, 3)."""
    keep_freed_memory()
    model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    normalise = BatchAugment(*normalisation(backbone), strength=0, flip=False)
    parts = []
    for rows in batches(len(pixels), EVAL_BATCH):
        images = torch.from_numpy(np.array(pixels[rows])).to(device)
        parts.append(features(model, normalise.plain(images)).float().cpu().numpy())
    return np.concatenate(parts)


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    normalise: BatchAugment,
    pixels: NDArray[np.uint8],
    rows: NDArray[Any],
    device: torch.device,
    splits: int = 1,
    mirror: bool = False,
) -> NDArray[np.float32]:
    """Logits (rows, classes) float32 of the given rows; the model must be in eval mode.

    Args:
        model: of logits.
        normalise: its `plain`.
        pixels: uint8 (samples, size, size, 3).
        rows: which of them.
        device: where the model is.
        splits: parts of each batch, when memory does not hold it whole.
        mirror: average the logits of each image and of its mirror image.
    """
    parts = []
    for part in batches(len(rows), max(1, EVAL_BATCH // splits)):
        images = normalise.plain(torch.from_numpy(pixels[rows[part]]).to(device))
        logits = (model(images) + model(images.flip(3))) / 2 if mirror else model(images)
        parts.append(logits.float().cpu().numpy())
    return np.concatenate(parts)
