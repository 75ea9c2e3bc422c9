"""Soups: one network whose weights are the mean of those of several (Wortsman et al. 2022).

Networks that were fine-tuned from the same weights often lie in one valley of the loss, and so does their mean. A soup
costs what one of them costs to run.

The greedy soup takes the ingredients best first and keeps each that makes the monitor loss smaller; the uniform soup
takes all. Unlike in the paper, where accuracy on a held-out set decides, it is the log loss after calibration, which
tells apart what a few hundred monitor rows leave equal in accuracy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim.swa_utils import update_bn

from ..metrics import get_metric
from ..probability import fit_temperature, softmax
from . import backbone
from .candidate import CellJob, CellResult, Epoch, TrainingData
from .checkpoints import Arrays, mean_weights
from .features import EVAL_BATCH
from .finished import Reader, mean_temperature, parts_of

#: Images from which running statistics are estimated anew: enough for every channel, and a second or so.
STATISTICS_ROWS = 2048


@dataclass(frozen=True, eq=False)
class Taste:
    """A soup, and what the monitor rows say of it.

    Attributes:
        weights: arrays under timm's names.
        logits: float32 (monitor rows, classes).
        temperature: fitted on them.
        loss: log loss of the monitor rows at that temperature.
    """

    weights: Arrays
    logits: NDArray[np.float32]
    temperature: float
    loss: float


def best_soup(ingredients: Sequence[Arrays], taste: Callable[[Sequence[Arrays]], Taste]) -> tuple[Taste, str]:
    """The best of the greedy soup, the uniform soup and the best ingredient alone; of equal ones the simplest.

    Args:
        ingredients: weights of one architecture, at least one.
        taste: of their mean.

    Returns:
        The soup, whose loss is that of the best ingredient or less, and what it is, in words.
    """
    n = len(ingredients)
    alone = [taste([one]) for one in ingredients]
    first, *others = sorted(range(n), key=lambda i: (alone[i].loss, i))
    inside, best = [first], alone[first]
    for i in others:
        tried = taste([ingredients[j] for j in (*inside, i)])
        if tried.loss < best.loss:
            inside, best = [*inside, i], tried
    if len(inside) == n > 1:
        return best, f"soup of all {n}"
    uniform = taste(ingredients)
    if uniform.loss < best.loss:
        return uniform, f"uniform soup of {n}"
    if len(inside) == 1:
        return best, f"no soup, the best of {n} alone"
    return best, f"greedy soup of {len(inside)} of {n}"


class Kitchen:
    """Mixes weights on one fold and tastes them on its monitor rows.

    Args:
        job: whose parts are the ingredients.
        data: its images; running statistics are estimated on the fold's train rows.
        device: where.
        monitor: rows to taste on; None is the fold's.
    """

    def __init__(
        self,
        job: CellJob,
        data: TrainingData,
        device: torch.device,
        monitor: NDArray[np.int64] | None = None,
    ) -> None:
        train, own, _ = data.rows(job.fold)
        self.reader = Reader(job.candidate, data, job, device)
        self.monitor = own if monitor is None else monitor
        self._labels = data.labels[self.monitor]
        self._statistics = train[np.linspace(0, len(train) - 1, min(len(train), STATISTICS_ROWS)).astype(int)]

    def mix(self, members: Sequence[Arrays]) -> Arrays:
        """The mean of some weights, loaded into the reader's model; statistics that differ are estimated anew."""
        weights = mean_weights(members)
        self.reader.load(weights)
        if not statistics_differ(members):
            return weights
        update_bn(self._images(), self.reader.model)
        return backbone.to_arrays(self.reader.model.state_dict())

    def taste(self, members: Sequence[Arrays]) -> Taste:
        """The mean of some weights, and what the monitor rows say of it."""
        weights = self.mix(members)
        logits = self.reader.logits(self.monitor)
        temperature = fit_temperature(logits, self._labels)
        loss = get_metric("log_loss")(self._labels, softmax(logits / temperature))
        return Taste(weights, logits, temperature, loss)

    def _images(self) -> Iterator[torch.Tensor]:
        """Plain batches: what is predicted is not augmented. A last short one would count as much as a whole one."""
        rows = self._statistics
        whole = len(rows) // EVAL_BATCH * EVAL_BATCH or len(rows)
        for part in backbone.batches(whole, EVAL_BATCH):
            yield self.reader.images(rows[part])


def statistics_differ(members: Sequence[Arrays]) -> bool:
    """Whether the weights hold running statistics of BatchNorm, other ones each."""
    return any(
        not np.array_equal(one[key], members[0][key])
        for one in members[1:]
        for key in members[0]
        if key.endswith(("running_mean", "running_var"))
    )


def fit_soup(job: CellJob, data: TrainingData, device: torch.device) -> Generator[Epoch, None, CellResult]:
    """The soup of the candidate's parts on the job's fold; there are no epochs to report."""
    yield from ()
    began = time.perf_counter()
    kitchen = Kitchen(job, data, device)
    best, note = best_soup([cell.weights() for cell in parts_of(job, data)], kitchen.taste)
    kitchen.reader.load(best.weights)
    _, monitor, holdout = data.rows(job.fold)
    monitor_proba = softmax(best.logits / best.temperature)
    return CellResult(
        job=job,
        proba=softmax(kitchen.reader.logits(holdout) / best.temperature),
        weights=best.weights,
        temperature=best.temperature,
        score=get_metric(data.metric)(data.labels[monitor], monitor_proba),
        best_epoch=0,
        history=(),
        train_s=time.perf_counter() - began,
        params=backbone.count_parameters(kitchen.reader.model),
        notes=(note,),
    )


def fit_fold_soup(
    job: CellJob, data: TrainingData, device: torch.device
) -> Generator[Epoch, None, CellResult]:
    """The mean of a candidate's fold models.

    Each part has trained on the monitor rows of nearly every other, so these say too much good of it. A soup that is
    worse on them than its parts, each on its own fold's, is certainly none, and its notes say so; one that is better
    may still be worse on new images.
    """
    yield from ()
    began = time.perf_counter()
    cells = parts_of(job, data)
    monitors = [monitor for _, monitor, _ in data.folds]
    kitchen = Kitchen(job, data, device, np.concatenate(monitors))
    labels, log_loss = data.labels[kitchen.monitor], get_metric("log_loss")
    own = []
    for cell, monitor in zip(cells, monitors, strict=True):
        kitchen.reader.load(cell.weights())
        own.append(softmax(kitchen.reader.logits(monitor) / cell.temperature))
    apart = log_loss(labels, np.concatenate(own))
    weights, temperature = kitchen.mix([cell.weights() for cell in cells]), mean_temperature(cells)
    together = log_loss(labels, softmax(kitchen.reader.logits(kitchen.monitor) / temperature))
    worse = f"no soup: log loss {together:.3f} on the monitor rows, its parts {apart:.3f}"
    return CellResult(
        job=job,
        proba=np.empty((0, len(data.classes)), np.float32),
        weights=weights,
        temperature=temperature,
        score=float("nan"),
        best_epoch=0,
        history=(),
        train_s=time.perf_counter() - began,
        params=backbone.count_parameters(kitchen.reader.model),
        notes=(worse,) if together > apart else (),
    )
