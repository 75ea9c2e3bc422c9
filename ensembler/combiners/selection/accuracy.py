"""Accuracy: bounds tell which rows one more member could turn, and only those are added up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..base import Floats, Labels, Proba
from .objective import Members, Objective
from .search import TIE

#: Above the rounding of float32, and of probabilities that may be 1e-6 below 0: whatever is closer to a threshold is
#: added up.
_MARGIN = 1e-5


class Accuracy(Objective):
    """Share of rows whose first choice is right.

    With D the lead of the true class in the sum of the picks, over the best other class, a candidate that gives the true
    class t, and leads by l (negative where it errs), makes of it at least D + l, and at most D + t. Most rows are decided
    by that, which takes two comparisons for a candidate and row; rows on which all candidates agree are not even
    compared. The others are added up, candidate by candidate, as long as they could still beat the best one.

    Args:
        true: see `Objective`.
        leads: float32 (members, rows), see `lead`.
        slabs: each member's float32 (samples, classes).
        labels: int64 (samples,).
        rows: the sample of each row; None where they are the same.
    """

    def __init__(
        self,
        true: Floats,
        leads: NDArray[np.float32],
        slabs: Sequence[Proba],
        labels: Labels,
        rows: NDArray[np.intp] | None,
    ) -> None:
        super().__init__(true)
        self._slabs = slabs
        self._samples = np.arange(len(labels)) if rows is None else rows
        self._labels = labels[self._samples]
        self._worst, self._best = leads, true.astype(np.float32)
        self._least, self._most = self._worst.min(axis=0) - _MARGIN, self._best.max(axis=0) + _MARGIN
        self._sum = np.zeros((len(self._labels), slabs[0].shape[1]))
        self._lead = np.zeros(len(self._labels))

    def add(self, member: int) -> None:
        """See `Objective`."""
        super().add(member)
        self._sum += self._slabs[member][self._samples]
        self._lead = lead(self._sum, self._labels)

    def remove(self, member: int) -> None:
        """See `Objective`."""
        super().remove(member)
        self._sum -= self._slabs[member][self._samples]
        self._lead = lead(self._sum, self._labels)

    def losses(self, members: Members, step: int) -> Floats:
        """See `Objective`."""
        everything = np.arange(len(self._labels))
        hits = np.array([self._hits(member, everything, step) for member in members])
        return np.asarray(-hits / len(self._labels))

    def after_adding(self) -> Floats:
        """See `Objective`."""
        needed = -self._lead
        doubtful = np.flatnonzero((needed >= self._least) & (needed <= self._most))
        # Without picks a member's own lead is all there is.
        worst = self._worst.take(doubtful, axis=1)
        best = self._best.take(doubtful, axis=1) if self.size else worst
        thresholds = needed[doubtful].astype(np.float32)
        sure = worst > thresholds + np.float32(_MARGIN)
        doubt = (best >= thresholds - np.float32(_MARGIN)) & ~sure
        least = np.count_nonzero(needed < self._least) + np.count_nonzero(sure, axis=1)
        most = least + np.count_nonzero(doubt, axis=1)

        slack = TIE * len(self._labels)
        hits = np.full(self.n_members, -np.inf)
        top = float(least.max())
        for member in np.argsort(-most, kind="stable"):
            if most[member] < top - slack:
                break
            hits[member] = least[member] + self._hits(member, doubtful[doubt[member]], 1)
            top = max(top, hits[member])
        return np.asarray(-hits / len(self._labels))

    def _hits(self, member: int, rows: NDArray[np.intp], step: int) -> int:
        """How many of some rows are right with one pick of a member more or less."""
        change = self._slabs[member][self._samples[rows]]
        sums = self._sum[rows] + change if step > 0 else self._sum[rows] - change
        return int(np.count_nonzero(sums.argmax(axis=1) == self._labels[rows]))


def lead(values: NDArray[Any], labels: Labels) -> NDArray[Any]:
    """By how much the value of each row's own class is above the best other one: (rows, classes) -> (rows,)."""
    rows = np.arange(len(labels))
    own = values[rows, labels]
    others = values.copy()
    others[rows, labels] = -np.inf
    return np.asarray(own - others.max(axis=1))
