"""Which weights a Cell ends with: the moving average of training, and the best epochs by monitor loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """An epoch's weights.

    Attributes:
        epoch: counted from 1.
        loss: log loss on the monitor rows.
        weights: arrays under timm's names.
        logits: float32 (monitor rows, classes) that they gave.
    """

    epoch: int
    loss: float
    weights: Arrays
    logits: NDArray[np.float32]


class BestCheckpoints:
    """The epochs of the lowest monitor loss, best first; of equal ones the earlier.

    Args:
        n: how many are kept.
    """

    def __init__(self, n: int = 1) -> None:
        self.n = n
        self.kept: list[Checkpoint] = []

    @property
    def best(self) -> Checkpoint:
        """The epoch of the lowest monitor loss."""
        return self.kept[0]

    def wants(self, loss: float) -> bool:
        """Whether an epoch of this loss would be kept: its weights are copied only then."""
        return len(self.kept) < self.n or loss < self.kept[-1].loss

    def add(self, checkpoint: Checkpoint) -> None:
        """Takes one that `wants` approved of."""
        self.kept = sorted([*self.kept, checkpoint], key=lambda c: (c.loss, c.epoch))[: self.n]

    def average(self) -> dict[str, NDArray[Any]]:
        """The mean of all that are kept; counters are the best one's."""
        return mean_weights([c.weights for c in self.kept])


def mean_weights(weights: Sequence[Arrays]) -> dict[str, NDArray[Any]]:
    """The arithmetic mean of the weights of one architecture, summed in float64; counters are the first one's."""
    return {
        key: np.mean([one[key] for one in weights], 0, np.float64).astype(value.dtype)
        if np.issubdtype(value.dtype, np.floating)
        else value
        for key, value in weights[0].items()
    }


class WeightAverage:
    """Exponential moving average of weights and BatchNorm statistics.

    The decay grows from 0.1 towards its limit as (1 + t) / (10 + t), as TensorFlow's does: a short fine-tuning
    would otherwise be averaged with its own beginning.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self._live = [t for t in model.state_dict().values() if t.is_floating_point()]
        self._average = [t.detach().clone() for t in self._live] if decay else []

    @property
    def tensors(self) -> list[Tensor]:
        """The averages themselves, in the order of the model's floating-point state; none where there are none."""
        return self._average

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards the weights of this step."""
        if self.decay:
            self.steps += 1
            decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
            torch._foreach_lerp_(self._average, self._live, 1 - decay)

    def applied(self) -> _Swap:
        """Context in which the model holds the averaged weights."""
        return _Swap(self._live, self._average)

    def close(self) -> None:
        """Frees the average's memory."""
        self._average = []


class _Swap:
    def __init__(self, live: list[Tensor], average: list[Tensor]) -> None:
        self._pairs = list(zip(live, average, strict=False))

    def __enter__(self) -> None:
        self._exchange()

    def __exit__(self, *_: object) -> None:
        self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for live, average in self._pairs:
            kept = live.clone()
            live.copy_(average)
            average.copy_(kept)
