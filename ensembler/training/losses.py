"""The training loss: cross-entropy with label smoothing, class weights, focal weighting and mixed labels."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

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

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of logits (batch, classes) and targets: int64 (batch,), or float (batch, classes) where mixed."""
        if not self.gamma:
            return F.cross_entropy(logits, targets, weight=self.weights, label_smoothing=self.smoothing)
        soft = targets if targets.is_floating_point() else F.one_hot(targets, logits.shape[1]).float()
        # Each row counts by the class that it is of: smoothing moves its label, not its weight.
        share = soft @ self.weights if self.weights is not None else torch.ones(len(soft), device=soft.device)
        soft = soft * (1 - self.smoothing) + self.smoothing / logits.shape[1]
        log_p = F.log_softmax(logits, 1)
        loss = -(soft * (1 - log_p.exp()).pow(self.gamma) * log_p).sum(1)
        return (share * loss).sum() / share.sum()


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
