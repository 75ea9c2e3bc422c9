"""What searches over the same rows share."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...metrics import Metric
from ..base import Floats, Labels, Proba
from .accuracy import Accuracy, lead
from .any_metric import AnyMetric
from .brier import Brier
from .log_loss import LogLoss
from .objective import Members, Objective


class Library:
    """The predictions that ensembles are selected from.

    A bag is a search over some members and over rows drawn with replacement. It takes from tables with one number a
    member and row, or weights the rows; the cube itself is never copied.

    Args:
        proba: float32 (members, rows, classes).
        labels: int64 (rows,).
    """

    def __init__(self, proba: Proba, labels: Labels) -> None:
        self.proba, self.labels = proba, labels

    @cached_property
    def true(self) -> Floats:
        """Probability of each row's own class: float64 (members, rows)."""
        n_members, n_rows, n_classes = self.proba.shape
        own = np.arange(n_rows) * n_classes + self.labels
        table = np.empty((n_members, n_rows))
        for row, slab in zip(table, self.proba, strict=True):
            row[:] = slab.reshape(-1).take(own)
        return table

    @cached_property
    def lead(self) -> NDArray[np.float32]:
        """By how much the own class is ahead of the best other one: float32 (members, rows)."""
        return np.stack([lead(slab, self.labels) for slab in self.proba])

    def objective(
        self, metric: Metric, members: Members | None = None, rows: NDArray[np.intp] | None = None
    ) -> Objective:
        """The objective of a search.

        Args:
            metric: any of `METRICS`.
            members: the members to select from, in the order that decides the last ties; None for all.
            rows: the rows to score on; one that was drawn twice counts twice. None for all.
        """
        chosen = np.arange(len(self.proba)) if members is None else np.asarray(members, np.intp)
        true = _cut(self.true, members, rows)
        if metric.name == "log_loss":
            return LogLoss(true)
        slabs = [self.proba[member] for member in chosen]
        if metric.name in ("accuracy", "weighted_recall"):  # two names of one number
            return Accuracy(true, _cut(self.lead, members, rows), slabs, self.labels, rows)
        counts = None if rows is None else np.bincount(rows, minlength=len(self.labels)).astype(np.float64)
        if metric.name == "brier":
            return Brier(true, slabs, counts)
        return AnyMetric(true, slabs, self.labels, metric, counts)


def _cut(table: NDArray[Any], members: Members | None, rows: NDArray[np.intp] | None) -> NDArray[Any]:
    """Some rows and columns of a table, the table itself where all are asked for."""
    part = table if members is None else table[members]
    return part if rows is None else part.take(rows, axis=1)
