"""Whether `ensembler predict` keeps its memory flat: 60,000 images of 32 pixels through a bundle.

    python benchmarks/predict.py BUNDLE [--images 60000] [--size 32] [--output csv|parquet]

Writes the images into a temporary folder, classifies them, and prints images a second and the resident memory after
the first 1,000 images, after half of them, and at the end. Expect it at the end within 5 % of what it was after 1,000.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measure import commit, verdict
from PIL import Image

from ensembler.bundle import predict as predict_module
from ensembler.bundle.table import Table

#: How much more memory than after the first 1,000 images.
BAR = 1.05


def resident_mb() -> float:
    """Resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def write_images(folder: Path, n: int, size: int) -> None:
    """Noise around a colour, a thousand files a folder."""
    rng = np.random.default_rng(0)
    for i in range(n):
        home = folder / f"{i // 1000:03d}"
        home.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 64, (size, size, 3), np.uint8) + rng.integers(0, 192, 3, np.uint8)
        Image.fromarray(pixels.astype(np.uint8)).save(home / f"{i:06d}.png", compress_level=1)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--output", choices=("csv", "parquet"), default="csv")
    options = parser.parse_args()

    memory: list[tuple[int, float]] = []

    class Watched(Table):
        """Notes the memory whenever rows are written."""

        def add(self, paths: Sequence[Path], *rest: Any) -> None:
            super().add(paths, *rest)
            memory.append((self.rows, resident_mb()))

    vars(predict_module)["Table"] = Watched
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "images", options.images, options.size)
        began = time.perf_counter()
        predict_module.predict_files(options.bundle, [folder / "images"], folder / f"preds.{options.output}")
        seconds = time.perf_counter() - began
        memory.append((options.images, resident_mb()))
    first = next((m for n, m in memory if n >= 1000), memory[0][1])
    half = next(m for n, m in memory if n >= options.images / 2)
    last = max(m for n, m in memory if n >= options.images * 0.9)
    print(
        f"commit {commit()}: {options.images:,} images in {seconds:.0f} s, {options.images / seconds:,.0f} a second"
    )
    print(
        f"resident memory: {first:.0f} MB after 1,000 images, {half:.0f} MB half way, {last:.0f} MB at the end"
    )
    print(f"{last / first:.3f} times, bar {BAR:.2f}: {verdict(last / first, BAR, at_least=False)}")


if __name__ == "__main__":
    main()
