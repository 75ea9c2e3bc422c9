"""Cheap members first, and no more of them than a row needs (a cascade of classifiers: Viola & Jones 2001)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

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

    Attributes:
        order: names of all members, first to last; empty: by `costs`, or best out-of-fold log loss first.
        costs: milliseconds of each member, for the order and for `expected_cost_ms_`; empty: unknown.
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
        self.order_ = self._find_order(predictions)
        stages = _stage_means(predictions, self.order_)
        self.thresholds_ = find_thresholds(stages, predictions.labels, self.max_loss)

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

    def _find_order(self, predictions: Predictions) -> NDArray[np.int64]:
        members = predictions.members
        for what, given in (("order", self.order), ("costs", self.costs)):
            differing = sorted(set(members) ^ set(given))
            if given and differing:
                raise CombinerError(
                    f"{self.label}: {what} and members differ in {differing[:6]}; name each of the "
                    f"{len(members)} members once"
                )
        if len(set(self.order)) < len(self.order):
            raise CombinerError(f"{self.label}: order names a member twice: {list(self.order)}")
        if self.order:
            return np.array([members.index(name) for name in self.order])
        losses = [METRICS["log_loss"](predictions.labels, slab) for slab in predictions.proba]
        rank: list[Any] = [(self.costs.get(name, 0.0), losses[i], name) for i, name in enumerate(members)]
        return np.array(sorted(range(len(members)), key=lambda i: rank[i]))


def find_thresholds(stages: Floats, labels: Labels, max_loss: float) -> Floats:
    """Thresholds (stages - 1,) of the means (stages, samples, classes); see `Cascade`."""
    right = stages.argmax(axis=2) == labels
    confidence = stages.max(axis=2)
    left, allowed = np.arange(len(labels)), max_loss * len(labels) + 1e-9
    thresholds = np.full(len(stages) - 1, np.inf)
    for s in range(len(thresholds)):
        falling = left[np.argsort(-confidence[s, left], kind="stable")]
        lost = np.cumsum(right[-1, falling].astype(np.int64) - right[s, falling])
        sure = confidence[s, falling]
        ends = np.flatnonzero(np.append(sure[1:] < sure[:-1], True))[: len(falling)]  # of rows equally sure
        too_many = np.flatnonzero(lost[ends] > allowed)
        n_ends = too_many[0] if len(too_many) else len(ends)
        if n_ends:
            last = ends[n_ends - 1]
            thresholds[s] = sure[last]
            allowed -= lost[last]
            left = np.sort(falling[last + 1 :])
        if not len(left):
            break
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
