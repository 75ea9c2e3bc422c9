"""Accuracy: bounds tell which rows one more member could turn, and only those are added up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..base import Floats, Labels, Proba
from .objective import Members, Objective
from .search import TIE

Rows = NDArray[np.intp]

#: Above the rounding of float32, and of probabilities that may be 1e-6 below 0: whatever is closer to a threshold is
#: added up.
_MARGIN = np.float32(1e-5)

#: Up to so many classes, one pass a class is faster than a maximum a row.
_FEW_CLASSES = 32


class Accuracy(Objective):
    """Share of rows whose first choice is right.

    Let D be the lead of the true class over its best rival in the sum of the picks. A candidate that is itself ahead of
    its best rival by w (negative where it errs), and ahead of the sum's rival by b, makes of it at least D + w and at
    most D + b. The two are the same where both have the same rival, and mostly of one sign where not; so two
    comparisons decide nearly every candidate and row, and rows on which all candidates agree are not even compared. The
    others are added up, candidate by candidate, as long as they could still beat the best one.

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
        rows: Rows | None,
    ) -> None:
        super().__init__(true)
        self._slabs = slabs
        self._samples = np.arange(len(labels)) if rows is None else rows
        self._labels = labels[self._samples]
        self._worst = leads
        self._least, self._most = leads.min(axis=0) - _MARGIN, true.max(axis=0) + _MARGIN
        self._sum = np.zeros((len(self._labels), slabs[0].shape[1]))
        self._lead = np.zeros(len(self._labels))
        self._rival = np.full(len(self._labels), -1)
        #: How far each candidate puts the true class ahead of the class in `_against`, by row.
        self._best = leads.copy()
        self._against = self._rival

    def add(self, member: int) -> None:
        """See `Objective`."""
        super().add(member)
        self._sum += self._slabs[member].take(self._samples, axis=0)
        self._lead, self._rival = lead_and_rival(self._sum, self._labels)

    def remove(self, member: int) -> None:
        """See `Objective`."""
        super().remove(member)
        self._sum -= self._slabs[member].take(self._samples, axis=0)
        self._lead, self._rival = lead_and_rival(self._sum, self._labels)

    def losses(self, members: Members, step: int) -> Floats:
        """See `Objective`."""
        everything = np.arange(len(self._labels))
        hits = np.array([self._hits(member, everything, step) for member in members])
        return np.asarray(-hits / len(self._labels))

    def after_adding(self) -> Floats:
        """See `Objective`."""
        needed = -self._lead
        rows = np.flatnonzero((needed >= self._least) & (needed <= self._most))
        self._update_best(rows)
        bound = needed[rows].astype(np.float32)
        surely, perhaps = bound + _MARGIN, bound - _MARGIN
        sure, maybe = np.empty((2, self.n_members, len(rows)), np.bool_)
        least, most = np.full((2, self.n_members), np.count_nonzero(needed < self._least))
        for member in range(self.n_members):  # one at a time, and all of it stays in the processor's cache
            np.greater(self._worst[member].take(rows), surely, out=sure[member])
            np.greater_equal(self._best[member].take(rows), perhaps, out=maybe[member])
            least[member] += np.count_nonzero(sure[member])
            most[member] += np.count_nonzero(maybe[member])

        slack = TIE * len(self._labels)
        hits = np.full(self.n_members, -np.inf)
        top = float(least.max())
        for member in np.argsort(-most, kind="stable"):
            if most[member] < top - slack:
                break
            doubt = rows[np.flatnonzero(maybe[member] & ~sure[member])]
            hits[member] = least[member] + self._hits(member, doubt, 1)
            top = max(top, hits[member])
        return np.asarray(-hits / len(self._labels))

    def _update_best(self, rows: Rows) -> None:
        """Makes `_best` that of today's rivals, on the rows that are looked at. Without picks there is no rival."""
        changed = rows[self._rival[rows] != self._against[rows]]
        if len(changed):
            self._against = self._against.copy()
            self._against[changed] = self._rival[changed]
            index = self._samples[changed] * self._sum.shape[1] + self._rival[changed]
            for best, true, slab in zip(self._best, self._true, self._slabs, strict=True):
                best[changed] = true.take(changed) - slab.reshape(-1).take(index)

    def _hits(self, member: int, rows: Rows, step: int) -> int:
        """How many of some rows are right with one pick of a member more or less."""
        sums = self._sum.take(rows, axis=0)
        change = self._slabs[member].take(self._samples.take(rows), axis=0)
        sums = np.add(sums, change, out=sums) if step > 0 else np.subtract(sums, change, out=sums)
        return int(np.count_nonzero(sums.argmax(axis=1) == self._labels.take(rows)))


def lead(values: NDArray[Any], labels: Labels) -> NDArray[Any]:
    """By how much each row's own class is ahead of its best rival: (rows, classes) -> (rows,)."""
    own, others = _apart(values, labels)
    if values.shape[1] > _FEW_CLASSES:
        return np.asarray(own - others.max(axis=1))
    best = others[:, 0].copy()
    for column in others.T[1:]:
        np.maximum(best, column, out=best)
    return np.asarray(own - best)


def lead_and_rival(values: NDArray[Any], labels: Labels) -> tuple[NDArray[Any], Rows]:
    """`lead`, and the rival: the best other class of each row."""
    own, others = _apart(values, labels)
    rival = others.argmax(axis=1)
    return own - others.reshape(-1).take(np.arange(len(labels)) * values.shape[1] + rival), rival


def _apart(values: NDArray[Any], labels: Labels) -> tuple[NDArray[Any], NDArray[Any]]:
    """The values of each row's own class, and a copy of all of them without these (-inf)."""
    own = np.arange(len(labels)) * values.shape[1] + labels
    others = np.array(values, order="C")
    flat = others.reshape(-1)
    found = flat.take(own)
    flat[own] = -np.inf
    return found, others
