"""Which arithmetic is fastest: measured once a backbone and device, then kept for the whole run."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import torch
from torch.nn import functional as F

from . import backbone
from .augment import BatchAugment
from .candidate import CellJob, Numerics, TrainingData
from .processor import use_threads

#: Steps timed of each way, after a first that warms up.
STEPS = 3

#: A way whose first step is slower than this share of the fastest so far is not given a second.
HOPELESS = 0.3

#: Compiling is tried where a Cell trains for longer than this: it takes a minute.
COMPILE_FROM_S = 600.0


def measure_numerics(job: CellJob, data: TrainingData) -> tuple[Numerics, dict[str, float]]:
    """The fastest of float32 and bfloat16, contiguous and channels_last, on the job's first train rows.

    For long Cells the fastest is compiled as well, and taken if that pays for itself.

    Returns:
        The choice, and images a second of every way that was tried.
    """
    use_threads(job.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe = job.candidate.recipe
    images_a_cell = recipe.epochs * len(data.folds[job.fold][0])
    train = data.folds[job.fold][0][: recipe.batch_size]
    pixels = torch.from_numpy(np.load(data.pixels, mmap_mode="r")[train]).to(device)
    images = BatchAugment(*backbone.normalisation(job.candidate.backbone), 0, flip=False).plain(pixels)
    labels = torch.from_numpy(data.labels[train]).to(device)

    def time_steps(way: Numerics) -> tuple[float, float]:
        """Images a second, and the seconds of the first step."""
        torch.manual_seed(0)
        memory = torch.channels_last if way.channels_last else torch.contiguous_format
        model = backbone.create(job.candidate.backbone, len(data.classes), image_size=pixels.shape[1])
        model = model.to(device, memory_format=memory).train()  # type: ignore[call-overload]
        forward = torch.compile(model) if way.compile else model
        batch = images.contiguous(memory_format=memory)
        best, first_s = 0.0, 0.0
        for step in range(STEPS + 1):
            began = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=way.precision == "bf16"):
                loss = F.cross_entropy(forward(batch).float(), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            model.zero_grad(set_to_none=True)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - began
            first_s = first_s if step else seconds
            best = max(best, len(train) / seconds)
            if best < HOPELESS * max(speeds.values(), default=0.0):
                break
        return round(best, 1), first_s

    speeds: dict[Numerics, float] = {}
    for way in _ways(device):
        speeds[way] = time_steps(way)[0]
    fastest = max(speeds.values())
    # Within measuring noise float32 wins: it is exact and needs no care.
    choice = next(w for w, s in speeds.items() if s >= (0.95 if w.precision == "fp32" else 1.0) * fastest)
    if images_a_cell / speeds[choice] >= COMPILE_FROM_S:
        compiled = dataclasses.replace(choice, compile=True)
        speeds[compiled], compile_s = time_steps(compiled)
        if compile_pays(images_a_cell, speeds[choice], speeds[compiled], compile_s):
            choice = compiled
    return choice, {_describe(way): speed for way, speed in speeds.items()}


def compile_pays(images: int, plain: float, compiled: float, compile_s: float) -> bool:
    """Whether a Cell of so many images is trained sooner when its model is compiled first.

    Args:
        images: of all epochs together.
        plain: images a second without compiling.
        compiled: images a second once compiled.
        compile_s: seconds that compiling takes, in each Cell anew.
    """
    return compile_s + images / compiled < images / plain


def _ways(device: torch.device) -> list[Numerics]:
    """What is worth trying: bfloat16 only where the hardware has it; emulated it is ten times slower."""
    bf16 = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bf16()
    precisions = ("fp32", "bf16") if bf16 else ("fp32",)
    return [Numerics(p, c) for c in (True, False) for p in precisions]


def _cpu_has_bf16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _describe(way: Numerics) -> str:
    return (
        way.precision + (" channels_last" if way.channels_last else " contiguous") + way.compile * " compiled"
    )
