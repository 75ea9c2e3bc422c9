"""The training loss: cross-entropy with label smoothing, class weights, focal weighting and mixed or soft labels."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from .candidate import TrainingData
from .recipe import Recipe


class TrainingLoss:
    """The loss of a batch, as a recipe wants it.

    Args:
        recipe: its `label_smoothing`, `focal` and `class_weights`.
        counts: images of each class among the train rows; classes without any weigh nothing.
        device: of the logits.
    """

    def __init__(self, recipe: Recipe, counts: NDArray[np.int64], device: torch.device) -> None:
        self.smoothing = recipe.label_smoothing
        self.gamma = recipe.focal
        self.weights: Tensor | None = None
        if recipe.class_weights == "balanced":
            self.weights = torch.from_numpy(balanced_weights(counts)).to(device)

    def __call__(self, logits: Tensor, targets: Tensor, emphasis: Tensor | None = None) -> Tensor:
        """Mean loss of a batch.

        Args:
            logits: float (batch, classes).
            targets: int64 (batch,), or float (batch, classes) where they are mixed or soft.
            emphasis: float (batch,), what each row counts; None is 1 each. The sum is not divided by that of the batch:
                a batch of hard rows is to count more than one of easy rows.
        """
        if not self.gamma:
            if emphasis is None:
                return F.cross_entropy(logits, targets, weight=self.weights, label_smoothing=self.smoothing)
            each = F.cross_entropy(
                logits, targets, weight=self.weights, label_smoothing=self.smoothing, reduction="none"
            )
            total: Tensor | int = len(each)
            if self.weights is not None and not targets.is_floating_point():
                total = self.weights[targets].sum()  # as the mean of PyTorch does
            return (emphasis * each).sum() / total
        soft = targets if targets.is_floating_point() else F.one_hot(targets, logits.shape[1]).float()
        # Each row counts by the class that it is of: smoothing moves its label, not its weight.
        share = soft @ self.weights if self.weights is not None else torch.ones(len(soft), device=soft.device)
        soft = soft * (1 - self.smoothing) + self.smoothing / logits.shape[1]
        log_p = F.log_softmax(logits, 1)
        loss = -(soft * (1 - log_p.exp()).pow(self.gamma) * log_p).sum(1)
        weighted = share * loss if emphasis is None else emphasis * share * loss
        return weighted.sum() / share.sum()


class Goals:
    """What the loss holds the prediction of each row against, and what the row counts.

    Args:
        data: its `labels`, or its `targets` where it has them, and its `emphasis`.
        device: of what comes out.
    """

    def __init__(self, data: TrainingData, device: torch.device) -> None:
        self._device = device
        self._n_classes = len(data.classes)
        self._targets = torch.from_numpy(data.labels if data.targets is None else data.targets)
        self._emphasis = None if data.emphasis is None else torch.from_numpy(data.emphasis)

    def of(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor | None]:
        """Targets, int64 (batch,) or float (batch, classes), and emphasis, float (batch,), of some rows."""
        emphasis = None if self._emphasis is None else self._emphasis[rows].to(self._device)
        return self._targets[rows].to(self._device), emphasis

    def columns(self, targets: Tensor, emphasis: Tensor | None) -> Tensor:
        """Both as float (batch, classes or one more): what mixes the targets of two images mixes their emphasis."""
        soft = targets if targets.is_floating_point() else F.one_hot(targets, self._n_classes).float()
        return soft if emphasis is None else torch.cat([soft, emphasis[:, None]], 1)

    def split(self, columns: Tensor) -> tuple[Tensor, Tensor | None]:
        """The inverse of `columns`."""
        return columns[:, : self._n_classes], None if self._emphasis is None else columns[:, self._n_classes]


def balanced_weights(counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Weights (classes,) that make every class that occurs count the same; their mean over the rows is 1."""
    present = counts > 0
    weights = np.zeros(len(counts), np.float32)
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights


def epoch_order(
    train: NDArray[np.int64], labels: NDArray[np.int64], sampling: str, generator: torch.Generator
) -> NDArray[np.int64]:
    """The rows of an epoch, in order: a permutation, or as many draws with every class equally often.

    Args:
        train: row numbers.
        labels: int64 of every row of the table.
        sampling: "natural" or "balanced".
        generator: of the draws.
    """
    if sampling == "natural":
        drawn = torch.randperm(len(train), generator=generator)
    else:
        own = labels[train]
        weights = torch.from_numpy(balanced_weights(np.bincount(own))[own])
        drawn = torch.multinomial(weights, len(train), replacement=True, generator=generator)
    order: NDArray[np.int64] = train[drawn.numpy()]
    return order
