"""One network instead of k fold models, trained on every out-of-fold row: a refit, or a student of the ensemble.

No row is left to stop, to choose or to calibrate by. The epochs are in the recipe already, from the folds' best ones;
a refit takes the folds' temperatures over; a student learns probabilities that are calibrated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator

import numpy as np
import torch
from numpy.typing import NDArray

from .candidate import CellJob, CellResult, Epoch, TrainingData
from .finished import mean_temperature, parts_of
from .strategies import get_strategy

#: Share of the teacher in a student's targets; the rest is the label.
TEACHER_SHARE = 0.5


def fit_refit(job: CellJob, data: TrainingData, device: torch.device) -> Generator[Epoch, None, CellResult]:
    """Trains the candidate's strategy and recipe on every row, with the mean temperature of its parts' fold models."""
    yield from ()
    result = _unwatched(get_strategy(job.candidate.strategy).fit(job, data, device))
    return dataclasses.replace(result, temperature=mean_temperature(parts_of(job, data)))


def fit_student(job: CellJob, data: TrainingData, device: torch.device) -> Generator[Epoch, None, CellResult]:
    """Trains the candidate's strategy and recipe on every row, towards the labels and a teacher's probabilities."""
    yield from ()
    assert data.teacher is not None, f"{job.candidate.name}: a student, but the data names no teacher"
    targets = soft_targets(data.labels, np.load(data.teacher, mmap_mode="r"), TEACHER_SHARE)
    taught = dataclasses.replace(data, targets=targets)
    return _unwatched(get_strategy(job.candidate.strategy).fit(job, taught, device))


def soft_targets(
    labels: NDArray[np.int64], teacher: NDArray[np.float32], share: float
) -> NDArray[np.float32]:
    """Labels mixed with a teacher's probabilities (Hinton et al. 2015, at temperature 1).

    The cross-entropy against them is the same mixture of the two cross-entropies. A higher temperature is left out:
    the probabilities are out of fold and calibrated, where Hinton's are those of a net on its own train rows.

    Args:
        labels: (rows,) int.
        teacher: (rows, classes), rows that sum to 1.
        share: of the teacher, in [0, 1].

    Returns:
        float32 (rows, classes).
    """
    targets = np.asarray(share * teacher, np.float32)
    targets[np.arange(len(labels)), labels] += np.float32(1 - share)
    return targets


def _unwatched(run: Generator[Epoch, None, CellResult]) -> CellResult:
    """Runs to the end without reporting epochs: there are no monitor rows to report on."""
    while True:
        try:
            next(run)
        except StopIteration as end:
            result: CellResult = end.value
            return result
