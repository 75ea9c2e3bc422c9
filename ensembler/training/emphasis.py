"""What each train row weighs for a boosted candidate: the loss of the ensemble before it.

A row of fold f's train part has an out-of-fold prediction, but by a model of another fold, which has trained on fold
f's holdout rows: weights made from it would carry the holdout's labels into the model that is to predict them. So the
weights of fold f are made by fold f's models alone, which know its train and monitor rows. Of their own train rows they
think too well; their probabilities are flattened until they lose as much as on the monitor rows, which gave no
gradient.

AdaBoost (Freund & Schapire 1997; SAMME: Zhu et al. 2009) weighs by an exponent of hard mistakes on the train rows. A
network makes few of those there, so here the weight is in proportion to the log loss, within limits: a mislabelled
image has the largest loss of all, and must not take over.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator

import numpy as np
import torch
from numpy.typing import NDArray

from ..metrics import clipped_log, true_class_proba
from ..probability import log_softmax, softmax
from .candidate import CellJob, CellResult, Epoch, TrainingData
from .finished import Reader, parts_of
from .strategies import get_strategy

#: Least and most that a row weighs.
LIMITS = (0.25, 4.0)

#: Largest temperature by which probabilities are flattened.
FLATTEST = 20.0

#: Halvings of an interval: to the last bit of what is looked for, and always as many.
HALVINGS = 60

#: Loss of a row over the mean loss, at least: what lost nothing can still be raised to any weight.
LEAST = 1e-9

Floats = NDArray[np.float64]


def fit_boosted(job: CellJob, data: TrainingData, device: torch.device) -> Generator[Epoch, None, CellResult]:
    """Trains the candidate's strategy on the fold's train rows, weighed by the loss of its parts' mean."""
    began = time.perf_counter()
    weighed = dataclasses.replace(data, emphasis=fold_emphasis(job, data, device))
    seconds = time.perf_counter() - began
    result = yield from get_strategy(job.candidate.strategy).fit(job, weighed, device)
    return dataclasses.replace(result, train_s=result.train_s + seconds)


def fold_emphasis(job: CellJob, data: TrainingData, device: torch.device) -> NDArray[np.float32]:
    """What each row weighs in a fold, from the fold's own models of the candidate's parts.

    Returns:
        float32 (samples,), mean 1 over the train rows; 0 elsewhere.
    """
    train, monitor, _ = data.rows(job.fold)
    rows = np.concatenate([train, monitor])
    proba = np.zeros((len(rows), len(data.classes)))
    cells = parts_of(job, data)
    for cell in cells:
        reader = Reader(cell.candidate, data, job, device)
        reader.load(cell.weights())
        proba += softmax(reader.logits(rows) / cell.temperature) / len(cells)
    n = len(train)
    flat = flattened(proba[:n], data.labels[train], row_loss(proba[n:], data.labels[monitor]).mean())
    emphasis = np.zeros(len(data.labels), np.float32)
    emphasis[train] = loss_weights(row_loss(flat, data.labels[train]))
    return emphasis


def row_loss(proba: Floats, labels: NDArray[np.int64]) -> Floats:
    """Log loss of each row: proba (rows, classes), labels (rows,) -> float64 (rows,)."""
    return -clipped_log(true_class_proba(labels, proba))


def flattened(proba: Floats, labels: NDArray[np.int64], loss: float) -> Floats:
    """Probabilities at the temperature, from 1 to `FLATTEST`, at which their mean log loss is `loss`.

    They stay as they are where they lose as much already, and are as flat as they may be where none is flat enough.

    Args:
        proba: (rows, classes).
        labels: (rows,) int.
        loss: to come to.
    """
    logits = clipped_log(proba)

    def at(log_t: float) -> Floats:
        return np.exp(log_softmax(logits / np.exp(log_t)))

    low, high = 0.0, float(np.log(FLATTEST))
    if row_loss(proba, labels).mean() >= loss:
        return proba
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if row_loss(at(middle), labels).mean() < loss else (low, middle)
    return at(high)


def loss_weights(loss: Floats, limits: tuple[float, float] = LIMITS) -> Floats:
    """Weights in proportion to a loss, held within limits, with mean 1.

    Args:
        loss: (rows,), none negative.
        limits: least and most of a weight; 1 lies between them.

    Returns:
        float64 (rows,); all 1 where no row has lost anything.

    >>> loss_weights(np.array([0.0, 1.0, 1.0, 2.0])).round(4).tolist()
    [0.25, 0.9375, 0.9375, 1.875]
    """
    if not loss.any():
        return np.ones(len(loss))
    relative = np.maximum(loss / loss.mean(), LEAST)
    low, high = 0.0, 1.0
    while np.clip(high * relative, *limits).mean() < 1:
        high *= 2
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(middle * relative, *limits).mean() < 1 else (low, middle)
    weights: Floats = np.clip(high * relative, *limits)
    return weights
