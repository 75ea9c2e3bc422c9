"""A few dozen synthetic images, three folds, and jobs that train in a blink."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from ensembler.folds import make_folds
from ensembler.training.backbone import create, to_arrays
from ensembler.training.candidate import Candidate, CellJob, CellResult, TrainingData
from ensembler.training.loop import train_cell
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


def make_job(
    strategy: str = "full", fold: int = 0, backbone: str = BACKBONE, weights: str = "random", **changes: Any
) -> CellJob:
    values = {**RECIPE.__dict__, **changes}
    return CellJob(Candidate(backbone, weights, strategy, Recipe(**values)), fold)


@pytest.fixture
def job() -> Callable[..., CellJob]:
    """Makes a job: strategy, fold, backbone, weights, and changes of the recipe."""
    return make_job


class MemoryCells:
    """Finished Cells of a run, in memory; what is not among them is not there to be read."""

    def __init__(self, results: Sequence[CellResult]) -> None:
        self._cells = {(r.job.candidate.id, r.job.fold): r for r in results}

    def cell(self, candidate_id: str, fold: int) -> Any:
        result = self._cells[candidate_id, fold]
        return SimpleNamespace(
            candidate=result.job.candidate,
            key=result.job.key("x"),
            temperature=result.temperature,
            score=result.score,
            best_epoch=result.best_epoch,
            weights=lambda: dict(result.weights),
        )


@pytest.fixture
def finish() -> Callable[..., TrainingData]:
    """Trains jobs; returns the data with their Cells to read."""

    def train(data: TrainingData, *jobs: CellJob) -> TrainingData:
        return dataclasses.replace(data, cells=MemoryCells([train_cell(job, data) for job in jobs]))

    return train


@pytest.fixture
def pretrained(data: TrainingData, tmp_path: Path) -> TrainingData:
    """The data with a file of weights to start from, called "w"."""
    torch.manual_seed(0)
    save_file(to_arrays(create(BACKBONE, 5).state_dict()), tmp_path / "w.safetensors")
    return dataclasses.replace(data, weights_files={"w": tmp_path / "w.safetensors"})
