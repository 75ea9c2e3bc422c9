"""One network on every row: refits, and students that learn from an ensemble."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ensembler.training import refit
from ensembler.training.backbone import create, load_arrays
from ensembler.training.candidate import EVERY_ROW, CellJob, CellResult, TrainingData
from ensembler.training.finished import Reader
from ensembler.training.loop import train_cell
from ensembler.training.losses import TrainingLoss
from ensembler.training.recipe import Recipe
from ensembler.training.refit import soft_targets

Job = Callable[..., CellJob]
CPU = torch.device("cpu")


def _everything(part: CellJob, kind: str) -> CellJob:
    candidate = dataclasses.replace(part.candidate, kind=kind, parts=(part.candidate.id,))
    return CellJob(candidate, EVERY_ROW)


def _answers(result: CellResult, data: TrainingData) -> np.ndarray:
    reader = Reader(result.job.candidate, data, result.job, CPU)
    reader.load(result.weights)
    return reader.logits(np.arange(len(data.labels))).argmax(1)


@pytest.mark.parametrize("strategy", ["full", "lp-ft"])
def test_a_refit_learns_from_every_row_for_all_its_epochs_at_the_folds_temperature(
    strategy: str, pretrained: TrainingData, job: Job, finish: Callable[..., TrainingData]
) -> None:
    folds = [job(strategy, fold, weights="w", epochs=3) for fold in range(3)]
    data = finish(pretrained, *folds)
    assert data.cells is not None
    one = _everything(folds[0], "refit")
    result = train_cell(one, data)
    temperatures = [data.cells.cell(part.candidate.id, part.fold).temperature for part in folds]
    assert result.temperature == pytest.approx(np.prod(temperatures) ** (1 / 3))
    assert (result.best_epoch, len(result.history), result.proba.shape) == (3, 3, (0, 3))
    assert np.isnan(result.score)
    load_arrays(create("test_resnet", 3), result.weights)
    again = train_cell(one, data)
    assert all(np.array_equal(result.weights[k], again.weights[k]) for k in result.weights)
    for rows in data.folds[1]:  # train, monitor and holdout of a fold: nothing is kept aside
        labels = data.labels.copy()
        labels[rows[0]] = (labels[rows[0]] + 1) % 3
        changed = train_cell(one, dataclasses.replace(data, labels=labels))
        assert any(not np.array_equal(result.weights[k], changed.weights[k]) for k in result.weights)


def test_soft_targets_mix_labels_and_teacher_and_so_does_their_loss() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 20)
    teacher = rng.dirichlet(np.ones(4), 20).astype(np.float32)
    logits = torch.from_numpy(rng.normal(size=(20, 4)).astype(np.float32))
    np.testing.assert_array_equal(soft_targets(labels, teacher, 0.0), np.eye(4)[labels])
    np.testing.assert_array_equal(soft_targets(labels, teacher, 1.0), teacher)
    np.testing.assert_allclose(soft_targets(labels, teacher, 0.3).sum(1), 1, atol=1e-6)
    loss = TrainingLoss(Recipe(label_smoothing=0.0), np.ones(4, np.int64), CPU)
    hard = F.cross_entropy(logits, torch.from_numpy(labels))
    soft = -(torch.from_numpy(teacher) * F.log_softmax(logits, 1)).sum(1).mean()
    for share in (0.0, 0.25, 1.0):
        mixed = loss(logits, torch.from_numpy(soft_targets(labels, teacher, share)))
        torch.testing.assert_close(mixed, (1 - share) * hard + share * soft)


def test_a_student_learns_what_its_teacher_says(
    data: TrainingData, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The teacher mistakes every class for the next one; asked to believe it alone, so does the student."""
    np.save(tmp_path / "teacher.npy", np.eye(3, dtype=np.float32)[(data.labels + 1) % 3])
    data = dataclasses.replace(data, teacher=tmp_path / "teacher.npy")
    student = _everything(job(epochs=8, augment=0.0, label_smoothing=0.0), "student")
    shares: dict[float, Any] = {}
    for share in (0.0, 1.0):
        monkeypatch.setattr(refit, "TEACHER_SHARE", share)
        shares[share] = _answers(train_cell(student, data), data)
    assert (shares[0.0] == data.labels).mean() > 0.8
    assert (shares[1.0] == (data.labels + 1) % 3).mean() > 0.8
