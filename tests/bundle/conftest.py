"""A bundle that answers at once, for tests of what is built around bundles."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ensembler.bundle import Bundle

CLASSES = ("red", "green", "blue")


class ColourBundle:
    """Two members of two fold models each that tell the strongest colour; has what `Bundle` has.

    Args:
        seconds: what a call of the model takes.
    """

    def __init__(self, classes: tuple[str, ...] = CLASSES, seconds: float = 0.0, size: int = 8) -> None:
        self.classes = classes
        self.image_size = size
        self.name = "colours"
        self.members = {"one": None, "two": None}
        self.index: dict[str, Any] = {"name": self.name, "classes": list(classes), "files": {}}
        self.seconds = seconds
        self.batches: list[int] = []

    def fold_probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        colour = pixels.reshape(len(pixels), -1, 3).mean(1)
        left = pixels[:, :, : self.image_size // 2].reshape(len(pixels), -1, 3).mean(1)
        logits = np.stack([np.stack([colour, colour + 8]), np.stack([left, left - 8 * np.arange(3)])]) / 32
        power = np.exp(logits - logits.max(-1, keepdims=True))
        proba: NDArray[np.float32] = (power / power.sum(-1, keepdims=True)).astype(np.float32)
        return proba

    def votes(self, proba: NDArray[np.float32]) -> NDArray[np.float32]:
        return proba.mean(1)

    def combine(self, proba: NDArray[np.float32]) -> NDArray[np.float32]:
        return proba.mean((0, 1))

    def predict_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(len(pixels))
        time.sleep(self.seconds)
        return self.combine(self.fold_probabilities(pixels))


@pytest.fixture(scope="session")
def mean_bundle(finished_run: Any, once: Callable[..., Path]) -> Path:
    """The mean of the finished run as it is exported; tests that change it work on a copy."""
    from ensembler.experiment import Experiment

    run = Experiment.from_run(finished_run.run)
    return once("mean", lambda home: run.export(home / "bundle", "mean")) / "bundle"


@pytest.fixture
def colour_bundle(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ColourBundle]:
    """Makes one, and lets `Bundle.load` find it under any path."""

    def make(**settings: Any) -> ColourBundle:
        bundle = ColourBundle(**settings)
        monkeypatch.setattr(Bundle, "load", classmethod(lambda cls, path: bundle))
        return bundle

    return make


@pytest.fixture
def colour_images(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder of small PNG files, every tenth of them in a folder below."""
    from PIL import Image

    def write(n: int = 30, name: str = "images", seed: int = 0) -> Path:
        folder = tmp_path / name
        (folder / "below").mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 3), np.uint8)
        for i, one in enumerate(pixels):
            file = folder / ("below" if i % 10 == 0 else "") / f"{i:04d}.png"
            Image.fromarray(one).save(file)
        return folder

    return write
