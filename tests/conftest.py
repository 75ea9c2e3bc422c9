"""What every test shares: a cache of its own, small synthetic images, and one-line errors."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests neither read nor fill the cache of whoever runs them."""
    os.environ["ENSEMBLER_CACHE"] = str(tmp_path_factory.mktemp("cache"))


def _draw_images(
    n: int, n_classes: int = 3, size: int = 32, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Noise around a colour that tells the class: uint8 (n, size, size, 3), int64 (n,)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int64) % n_classes
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [180, 180, 60], [60, 180, 180]])
    noise = rng.normal(0, 60, (n, size, size, 3))
    return np.clip(colours[labels][:, None, None] + noise, 0, 255).astype(np.uint8), labels


@pytest.fixture(scope="session")
def draw_images() -> Callable[..., tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    return _draw_images


def _write_folder(root: Path, n: int = 60, names: tuple[str, ...] = ("ant", "bee", "cow"), seed: int = 0) -> Path:
    images, labels = _draw_images(n, len(names), 24, seed)
    for i, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        folder = root / names[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")
    return root


@pytest.fixture(scope="session")
def write_images() -> Callable[..., Path]:
    """Writes class folders of small PNG files."""
    return _write_folder
