"""Cheap members first, and no more of them than a row needs (a cascade of classifiers: Viola & Jones 2001)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import CombinerError
from ..metrics import METRICS
from ..predictions import Predictions
from .base import Combiner, Floats, Labels


@dataclass(eq=False, kw_only=True)
class Cascade(Combiner):
    """Asks one member after another; a row is answered as soon as the mean of those asked is sure enough.

    Stage s answers with the mean of the first s members, the last one with the mean of all. How sure a row has
    to be (its largest probability) is chosen for each stage, first to last, as low as the fitted rows allow:
    at no point of its threshold's way down may the rows answered early have lost more than `max_loss` of
    accuracy against the mean of all. Rows that a stage wins back count for the later ones.

    Each stage asks the member with which most of the remaining rows are answered per millisecond, so a cheap member
    that is seldom sure does not stand in the way of a dearer one that mostly is.

    Attributes:
        order: names of all members, first to last; empty: found as above.
        costs: milliseconds of each member, for the order and for `expected_cost_ms_`; empty: unknown, and each
            counts as much as any other. A run fills in those that it has measured.
        max_loss: accuracy that may be lost, in [0, 1].
        order_: int64 (members,), positions in `members_`.
        thresholds_: float64 (members - 1,), largest probability with which each stage but the last answers;
            infinite where it never does.
    """

    name: ClassVar[str] = "cascade"
    learned: ClassVar[tuple[str, ...]] = ("order_", "thresholds_")
    by_name: ClassVar[bool] = True

    order: tuple[str, ...] = ()
    costs: dict[str, float] = field(default_factory=dict)
    max_loss: float = 0.001
    order_: NDArray[np.int64] = field(init=False, repr=False)
    thresholds_: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("max_loss", (int, float), 0, 1)
        given: object = self.order
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise CombinerError(f"{self.name}: order is {self.order!r}; expected a list of members")
        self.order = tuple(str(member) for member in self.order)
        if not isinstance(self.costs, Mapping) or not all(_is_cost(ms) for ms in self.costs.values()):
            raise CombinerError(
                f"{self.name}: costs is {self.costs!r}; expected the milliseconds of each member, such as "
                "{resnet10t: 3.5}"
            )
        self.costs = {str(member): float(ms) for member, ms in self.costs.items()}

    def _fit_rows(self, predictions: Predictions) -> None:
        if self.order:
            self._require_all("order", self.order, predictions)
            if len(set(self.order)) < len(self.order):
                raise CombinerError(f"{self.label}: order names a member twice: {list(self.order)}")
            self.order_ = np.array([predictions.members.index(name) for name in self.order])
            stages = _stage_means(predictions, self.order_)
            self.thresholds_ = find_thresholds(stages, predictions.labels, self.max_loss)
        else:
            if self.costs:
                self._require_all("costs", self.costs, predictions)
            self.order_, self.thresholds_ = self._search(predictions)

    def _combine_rows(self, predictions: Predictions) -> Floats:
        stages = _stage_means(predictions, self.order_)
        stage = _answering(stages, self.thresholds_)
        return np.asarray(stages[stage, np.arange(predictions.n_samples)])

    def stages_(self, predictions: Predictions) -> NDArray[np.intp]:
        """How many members each row asks: (samples,), from 1 to all.

        Raises:
            CombinerError: before `fit`, or when members are not those of `fit`.
        """
        self.predict(predictions)  # refuses what does not fit
        stages = _stage_means(predictions.select(self.members_), self.order_)
        return _answering(stages, self.thresholds_) + 1

    def expected_cost_ms_(self, predictions: Predictions) -> float:
        """Milliseconds that a row takes on average: those of the members it asks.

        Raises:
            CombinerError: `costs` were not given.
        """
        if not self.costs:
            raise CombinerError(
                f"{self.label}: costs are not known; give them, such as costs: {{resnet10t: 3.5}}"
            )
        spent = np.cumsum([self.costs[self.members_[i]] for i in self.order_])
        return float(spent[self.stages_(predictions) - 1].mean())

    def asked_(self, predictions: Predictions) -> dict[str, float]:
        """Share of the rows for which each member is asked."""
        asked = self.stages_(predictions)
        return {self.members_[m]: float((asked > stage).mean()) for stage, m in enumerate(self.order_)}

    def _require_all(self, what: str, given: Collection[str], predictions: Predictions) -> None:
        differing = sorted(set(predictions.members) ^ set(given))
        if differing:
            raise CombinerError(
                f"{self.label}: {what} and members differ in {differing[:6]}; name each of the "
                f"{predictions.n_members} members once"
            )

    def _search(self, predictions: Predictions) -> tuple[NDArray[np.int64], Floats]:
        """Order and thresholds, a stage at a time."""
        proba, labels, names = predictions.proba, predictions.labels, predictions.members
        prices = [max(self.costs.get(name, 1.0), 1e-9) for name in names]
        losses = [METRICS["log_loss"](labels, slab) for slab in proba]
        # Where several do equally well, the cheapest is asked, then the best.
        unasked = sorted(range(len(names)), key=lambda m: (prices[m], losses[m], names[m]))
        right = proba.mean(axis=0, dtype=np.float64).argmax(axis=1) == labels
        sums = np.zeros(proba.shape[1:])
        remaining = Remaining.of(right, self.max_loss)
        order: list[int] = []
        thresholds: list[float] = []
        while len(unasked) > 1:
            found = [
                remaining.answer((sums[remaining.rows] + proba[m][remaining.rows]) / (len(order) + 1), labels)
                for m in unasked
            ]
            rates = [
                (len(remaining.rows) - len(after.rows)) / prices[m]
                for m, (_, after) in zip(unasked, found, strict=True)
            ]
            best = int(np.argmax(rates))
            threshold, remaining = found[best]
            order.append(unasked.pop(best))
            sums += proba[order[-1]]
            thresholds.append(threshold)
        return np.array([*order, *unasked]), np.array(thresholds)


@dataclass(frozen=True, eq=False)
class Remaining:
    """Rows that no stage has answered yet, and the accuracy that may still be lost on them.

    Attributes:
        rows: positions, rising.
        right: bool (all rows), where the mean of all members is right.
        allowed: rows that may be lost.
    """

    rows: NDArray[np.intp]
    right: NDArray[np.bool_]
    allowed: float

    @staticmethod
    def of(right: NDArray[np.bool_], max_loss: float) -> Remaining:
        """Every row."""
        return Remaining(np.arange(len(right)), right, max_loss * len(right) + 1e-9)

    def answer(self, proba: Floats, labels: Labels) -> tuple[float, Remaining]:
        """The lowest threshold that may be, and what remains; infinite where it would answer no row.

        Args:
            proba: what a stage says of the remaining rows, (remaining, classes).
            labels: of all rows.
        """
        if not len(self.rows):
            return np.inf, self
        confidence = proba.max(axis=1)
        falling = np.argsort(-confidence, kind="stable")
        sure, rows = confidence[falling], self.rows[falling]
        right = proba.argmax(axis=1)[falling] == labels[rows]
        lost = np.cumsum(self.right[rows].astype(np.int64) - right)
        ends = np.flatnonzero(np.append(sure[1:] < sure[:-1], True))  # of rows equally sure
        too_many = np.flatnonzero(lost[ends] > self.allowed)
        n_ends = too_many[0] if len(too_many) else len(ends)
        if not n_ends:
            return np.inf, self
        last = ends[n_ends - 1]
        return float(sure[last]), Remaining(
            np.sort(rows[last + 1 :]), self.right, self.allowed - float(lost[last])
        )


def find_thresholds(stages: Floats, labels: Labels, max_loss: float) -> Floats:
    """Thresholds (stages - 1,) of the means (stages, samples, classes); see `Cascade`."""
    remaining = Remaining.of(stages[-1].argmax(axis=1) == labels, max_loss)
    thresholds = np.full(len(stages) - 1, np.inf)
    for s in range(len(thresholds)):
        thresholds[s], remaining = remaining.answer(stages[s][remaining.rows], labels)
    return thresholds


def _stage_means(predictions: Predictions, order: NDArray[np.int64]) -> Floats:
    """Running means of the members in order: float64 (stages, samples, classes)."""
    sums = np.cumsum(predictions.proba[order], axis=0, dtype=np.float64)
    return np.asarray(sums / np.arange(1, len(order) + 1)[:, None, None])


def _answering(stages: Floats, thresholds: Floats) -> NDArray[np.intp]:
    """Position of the stage that answers each row: (samples,)."""
    if not len(thresholds):
        return np.zeros(stages.shape[1], np.intp)
    sure = stages[:-1].max(axis=2) >= thresholds[:, None]
    return np.where(sure.any(axis=0), sure.argmax(axis=0), len(thresholds))


def _is_cost(value: object) -> bool:
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value) and value >= 0
    )
