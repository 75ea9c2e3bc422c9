"""A few dozen synthetic images, three folds, and jobs that train in a blink."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ensembler.folds import make_folds
from ensembler.training.candidate import Candidate, CellJob, TrainingData
from ensembler.training.recipe import Recipe

BACKBONE = "test_resnet"

#: Small, so that a Cell takes half a second.
RECIPE = Recipe(epochs=2, batch_size=16, lr=3e-3, head_lr=1e-2)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def data(tmp_path: Path, draw_images: Callable[..., Any]) -> TrainingData:
    """48 images of 3 classes at 32 pixels."""
    pixels, labels = draw_images(48)
    np.save(tmp_path / "pixels.npy", pixels)
    folds = make_folds(labels, 3, 0, monitor_fraction=0.2, class_names=["a", "b", "c"])
    return TrainingData(
        pixels=tmp_path / "pixels.npy",
        labels=labels,
        classes=("a", "b", "c"),
        folds=tuple((f.train, f.monitor, f.holdout) for f in folds),
        fingerprint="x",
        weights_files={},
        features=tmp_path / "features",
    )


def make_job(strategy: str = "full", fold: int = 0, backbone: str = BACKBONE, **changes: Any) -> CellJob:
    values = {**RECIPE.__dict__, **changes}
    return CellJob(Candidate(backbone, "random", strategy, Recipe(**values)), fold)


@pytest.fixture
def job() -> Callable[..., CellJob]:
    """Makes a job: strategy, fold, backbone, and changes of the recipe."""
    return make_job
