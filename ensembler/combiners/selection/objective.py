"""What a search asks: the loss of the mean of its picks, with one more or one less of them."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from ...metrics import PROBA_EPS
from ..base import Floats

Members = NDArray[np.intp]

#: Probabilities multiplied for one logarithm: a product costs a fraction of one. Each is held at 1.2e-7 or more, so
#: 32 of them stay above 1e-222.
_FACTORS = 32

#: Numbers worked on at once (256 KiB): they stay in the processor's second cache.
_AT_ONCE = 2**15


class Objective(ABC):
    """The loss of the mean of the picks so far, and of what one step makes of it.

    Losses fall where ensembles get better, whatever the metric's direction. Every objective knows the log loss too,
    which decides ties.

    Args:
        true: float64 (members, rows), the probability of each row's own class; it is kept, not copied.

    Attributes:
        size: number of picks.
    """

    def __init__(self, true: Floats) -> None:
        self._true = true
        self._total = np.zeros(true.shape[1])
        self.size = 0

    @property
    def n_members(self) -> int:
        """Number of members that may be picked."""
        return len(self._true)

    def add(self, member: int) -> None:
        """Picks a member, once more."""
        self._total += self._true[member]
        self.size += 1

    def remove(self, member: int) -> None:
        """Takes one pick of a member back."""
        self._total -= self._true[member]
        self.size -= 1

    @abstractmethod
    def losses(self, members: Members, step: int) -> Floats:
        """Loss of the mean when each of `members` alone is added (`step` 1) or taken back (-1): (len(members),)."""

    def after_adding(self) -> Floats:
        """Loss of the mean when a member is added, (members,); infinite for one that cannot be the best or tie with it.

        Whoever knows a bound that is cheaper than the loss overrides this.
        """
        return self.losses(np.arange(self.n_members), 1)

    def log_losses(self, members: Members, step: int) -> Floats:
        """`losses` for the log loss: mean over rows, probabilities held within [PROBA_EPS, 1 - PROBA_EPS]."""
        size, n_rows = self.size + step, self._true.shape[1]
        combine = np.add if step > 0 else np.subtract
        whole = n_rows // _FACTORS * _FACTORS
        height = max(1, min(_AT_ONCE // n_rows, len(members)))
        buffer = np.empty((height, n_rows))
        log_sums = np.empty(len(members))
        for start in range(0, len(members), height):
            part = members[start : start + height]
            sums = buffer[: len(part)]
            for row, member in zip(sums, part, strict=True):
                combine(self._total, self._true[member], out=row)
            np.clip(sums, PROBA_EPS * size, (1 - PROBA_EPS) * size, out=sums)
            products = sums[:, :whole].reshape(len(part), _FACTORS, -1).prod(axis=1)
            log_sums[start : start + height] = np.log(products).sum(axis=1) + np.log(sums[:, whole:]).sum(
                axis=1
            )
        return np.asarray(np.log(size) - log_sums / n_rows)
