"""Images a second of a training epoch through the whole path, as a share of forward and backward alone.

    python benchmarks/training.py

The path: pixels mapped from disk, augmented, trained with the optimiser, the moving average and gradient clipping. The
limit: the same model, batch and arithmetic on one batch of floats that lies in memory, and nothing else. The bar is
0.90. One thread each, epochs in turn.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import commit, interleave, ratio, verdict
from torch.nn import functional as F

from ensembler.training import backbone
from ensembler.training.candidate import Candidate, CellJob, TrainingData
from ensembler.training.loop import fit_cell
from ensembler.training.processor import use_threads
from ensembler.training.recipe import Recipe

BACKBONES = ("mobilenetv3_small_050", "mobilenetv4_conv_small_035", "resnet10t")
BAR = 0.90
CLASSES = 10


def training_data(folder: Path, n: int, size: int) -> TrainingData:
    """Random images on disk, and one fold that trains on `n` of them."""
    rng = np.random.default_rng(0)
    np.save(folder / "pixels.npy", rng.integers(0, 256, (n + 20, size, size, 3), np.uint8))
    rows = np.arange(n + 20)
    return TrainingData(
        pixels=folder / "pixels.npy",
        labels=rows % CLASSES,
        classes=tuple("abcdefghij"),
        folds=((rows[:n], rows[n : n + 10], rows[n + 10 :]),),
        fingerprint="",
        weights_files={},
        features=folder,
    )


def measure(name: str, folder: Path, args: argparse.Namespace) -> dict[str, list[float]]:
    """Images a second of each way, an epoch at a time."""
    data = training_data(folder, args.batches * args.batch, args.size)
    recipe = Recipe(epochs=args.repeats + 1, patience=args.repeats + 2, batch_size=args.batch, augment=0.5)
    run = fit_cell(CellJob(Candidate(name, "random", "full", recipe), 0), data)
    model: Any = backbone.create(name, CLASSES, image_size=args.size)
    model = model.to(memory_format=torch.channels_last).train()
    images = torch.randn(args.batch, 3, args.size, args.size).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(args.batch) % CLASSES

    def bare() -> float:
        began = time.perf_counter()
        for _ in range(args.batches):
            model.zero_grad(set_to_none=True)
            F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        return float(args.batches * args.batch / (time.perf_counter() - began))

    return interleave({"bare": bare, "path": lambda: next(run).images_per_s}, args.repeats)


def main(argv: list[str] | None = None) -> None:
    """Prints one line a backbone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=96)
    args = parser.parse_args(argv)
    use_threads(1)
    print(f"commit {commit()}; {args.repeats} epochs each, in turn; {args.size} px, batch {args.batch}")
    for name in args.backbones:
        with tempfile.TemporaryDirectory() as folder:
            speeds = measure(name, Path(folder), args)
        share, low, high = ratio(speeds, "path", "bare")
        bare, path = (statistics.median(speeds[way]) for way in ("bare", "path"))
        print(
            f"{name:28} bare {bare:5.0f}/s  path {path:5.0f}/s  {share:.2f} ({low:.2f} to {high:.2f}), "
            f"bar {BAR:.2f}: {verdict(share, BAR, at_least=True)}"
        )


if __name__ == "__main__":
    main()
