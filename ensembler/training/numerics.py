"""Which arithmetic is fastest: measured once a backbone and device, then kept for the whole run."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch.nn import functional as F

from . import backbone
from .augment import BatchAugment
from .candidate import CellJob, Numerics, TrainingData

#: Steps timed of each way, after a first that warms up.
STEPS = 3

#: A way whose first step is slower than this share of the fastest so far is not given a second.
HOPELESS = 0.3


def measure_numerics(job: CellJob, data: TrainingData) -> tuple[Numerics, dict[str, float]]:
    """The fastest of float32 and bfloat16, contiguous and channels_last, on the job's first train rows.

    Returns:
        The choice, and images a second of every way that was tried.
    """
    torch.set_num_threads(job.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe = job.candidate.recipe
    train = data.folds[job.fold][0][: recipe.batch_size]
    pixels = torch.from_numpy(np.load(data.pixels, mmap_mode="r")[train]).to(device)
    images = BatchAugment(*backbone.normalisation(job.candidate.backbone), 0, flip=False).plain(pixels)
    labels = torch.from_numpy(data.labels[train]).to(device)
    speeds: dict[Numerics, float] = {}
    for way in _ways(device):
        torch.manual_seed(0)
        memory = torch.channels_last if way.channels_last else torch.contiguous_format
        model = backbone.create(job.candidate.backbone, len(data.classes), image_size=pixels.shape[1])
        model = model.to(device, memory_format=memory).train()  # type: ignore[call-overload]
        batch = images.contiguous(memory_format=memory)
        best = 0.0
        for _ in range(STEPS + 1):
            began = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=way.precision == "bf16"):
                loss = F.cross_entropy(model(batch).float(), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            model.zero_grad(set_to_none=True)
            if device.type == "cuda":
                torch.cuda.synchronize()
            best = max(best, len(train) / (time.perf_counter() - began))
            if best < HOPELESS * max(speeds.values(), default=0.0):
                break
        speeds[way] = round(best, 1)
    fastest = max(speeds.values())
    # Within measuring noise float32 wins: it is exact and needs no care.
    choice = next(w for w, s in speeds.items() if s >= (0.95 if w.precision == "fp32" else 1.0) * fastest)
    return choice, {_describe(way): speed for way, speed in speeds.items()}


def _ways(device: torch.device) -> list[Numerics]:
    """What is worth trying: bfloat16 only where the hardware has it; emulated it is ten times slower."""
    bf16 = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bf16()
    precisions = ("fp32", "bf16") if bf16 else ("fp32",)
    return [Numerics(p, c) for c in (True, False) for p in precisions]


def _cpu_has_bf16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _describe(way: Numerics) -> str:
    return way.precision + (" channels_last" if way.channels_last else " contiguous")
