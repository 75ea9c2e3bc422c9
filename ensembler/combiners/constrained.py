"""Greedy selection under a budget: the best mean that may cost so much, or have so many members."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from ..errors import CombinerError
from ..metrics import Metric, get_metric
from .base import Floats, Fold, Labels, Proba, WeightedMean, weighted_mean
from .greedy import Greedy

#: A loss has to fall by this much for a move to be made: rounding must not keep the search going.
_PROGRESS = 1e-9

#: Rounds of greedy selection that judge a set while the search is on; the weights at the end take all rounds.
_QUICK_ROUNDS = 15

Set = frozenset[int]


@dataclass(eq=False, kw_only=True)
class Constrained(WeightedMean):
    """The set of members that ensembles best among those that keep to a limit, weighted by greedy selection.

    The limit takes part in the search: cutting the best ensemble down to it afterwards would keep members that
    were chosen to complement those that were cut. Two sets are grown, a member that fits at a time: by what it
    gains, and by what it gains for its price, since either alone can be far off (Leskovec et al. 2007, "Cost-
    effective outbreak detection in networks"). The better one is then improved by single moves, as long as one
    helps: a member added, dropped, or swapped for another. A set is worth the loss of greedy selection (Caruana
    2004) from it. Where greedy selection from all members keeps to the limit by itself, it is the answer.

    Attributes:
        metric: what is optimised, a key of `METRICS`.
        rounds: of greedy selection, 1 or more.
        costs: member -> cost of running it, such as milliseconds or bytes, 0 or more; an ensemble costs the
            sum of its members, each once whatever its weight. None where the cost does not matter.
        limit: most that the ensemble may cost, in the unit of `costs`; None where the cost does not matter.
        max_members: most members with a weight above 0; None for any number.
    """

    name: ClassVar[str] = "constrained"

    metric: str = "log_loss"
    rounds: int = 50
    costs: dict[str, float] | None = None
    limit: float | None = None
    max_members: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_metric(self.metric)
        self._require("rounds", int, 1)
        if self.max_members is not None:
            self._require("max_members", int, 1)
        if (self.costs is None) != (self.limit is None):
            given, lacking = ("costs", "limit") if self.limit is None else ("limit", "costs")
            raise CombinerError(f"{self.name}: {given} without {lacking}; give both, or neither")
        if self.costs is not None:
            self._require("limit", (int, float), 0)
            self.costs = _checked(self.costs)

    def _fit(self, proba: Proba, labels: Labels, fold: Fold) -> None:
        self.weights_ = _Search(self, proba, labels, fold).weights()

    def member_costs(self) -> Floats:
        """What each of `members_` costs, float64 (members,); all 0 where costs do not matter.

        Raises:
            CombinerError: a member has no cost, or none is within the limit.
        """
        if self.costs is None or self.limit is None:
            return np.zeros(len(self.members_))
        missing = [member for member in self.members_ if member not in self.costs]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise CombinerError(
                f"{self.name}: costs lacks {missing[0]!r}{more}; give the cost of every member, or leave those "
                "out with Predictions.select"
            )
        found = np.array([float(self.costs[member]) for member in self.members_])
        if found.min() > self.limit:
            raise CombinerError(
                f"{self.name}: no member costs {self.limit:g} or less; the cheapest, "
                f"{self.members_[int(found.argmin())]!r}, costs {found.min():g}; raise the limit"
            )
        return found


class _Search:
    """Sets of members, by position, and what each is worth; a set is judged once."""

    def __init__(self, combiner: Constrained, proba: Proba, labels: Labels, fold: Fold) -> None:
        self._proba, self._labels, self._fold = proba, labels, fold
        self._metric: Metric = get_metric(combiner.metric)
        self._rounds = combiner.rounds
        self._costs = combiner.member_costs()
        self._limit = np.inf if combiner.limit is None else combiner.limit
        self._most = len(proba) if combiner.max_members is None else combiner.max_members
        self._known: dict[Set, tuple[float, Set]] = {}

    def weights(self) -> Floats:
        """float64 (members,) of the set that the search ends with, 0 outside it."""
        free = self._selected(frozenset(range(len(self._proba))), self._rounds)
        if self._allowed(_used(free)):
            return free
        grown = [self._grown(by_price) for by_price in (False, True)]
        return self._selected(self._improved(min(grown, key=self._rank)), self._rounds)

    # ------------------------------------------------------------------ what a set is worth

    def _selected(self, members: Set, rounds: int) -> Floats:
        """Weights by greedy selection from a set, over all members."""
        rows = sorted(members)
        selection = Greedy(metric=self._metric.name, rounds=rounds)
        selection._fit(self._proba[rows], self._labels, self._fold)
        weights = np.zeros(len(self._proba))
        weights[rows] = selection.weights_
        return weights

    def _judged(self, members: Set) -> tuple[float, Set]:
        """The loss of a set, and those of it that get a weight."""
        if members not in self._known:
            weights = self._selected(members, min(self._rounds, _QUICK_ROUNDS))
            score = self._metric(self._labels, weighted_mean(self._proba, weights))
            self._known[members] = (-self._metric.sign * score, _used(weights))
        return self._known[members]

    def _loss(self, members: Set) -> float:
        return self._judged(members)[0]

    def _rank(self, members: Set) -> tuple[float, float, list[int]]:
        """Of equally good sets the cheapest, then the first in order: no hash decides."""
        return self._loss(members), self._cost(members), sorted(members)

    def _cost(self, members: Set) -> float:
        return float(self._costs[sorted(members)].sum())

    def _allowed(self, members: Set) -> bool:
        # Sums of the same costs in another order differ by rounding.
        return len(members) <= self._most and self._cost(members) <= self._limit * (1 + 1e-12)

    # ------------------------------------------------------------------ the search

    def _grown(self, by_price: bool) -> Set:
        """Grows a set while a member helps: by the one that gains most, or gains most for its price."""
        rank = partial(self._price_rank, base=frozenset(), loss=self._uniform_loss(), by_price=by_price)
        current = min(self._larger(frozenset()), key=rank)
        while larger := [s for s in self._larger(current) if self._loss(s) < self._loss(current) - _PROGRESS]:
            rank = partial(self._price_rank, base=current, loss=self._loss(current), by_price=by_price)
            current = self._without_unused(min(larger, key=rank))
        return current

    def _price_rank(self, members: Set, base: Set, loss: float, by_price: bool) -> tuple[float, ...]:
        if not by_price:
            return self._loss(members), self._cost(members), *sorted(members)
        price = self._cost(members) - self._cost(base)
        gain = loss - self._loss(members)
        rate = gain / price if price > 0 else np.copysign(np.inf, gain)
        return -rate, self._loss(members), *sorted(members)

    def _uniform_loss(self) -> float:
        """Of the prediction that knows nothing, from which the first member gains."""
        uniform = np.full(self._proba.shape[1:], 1 / self._proba.shape[2])
        return -self._metric.sign * self._metric(self._labels, uniform)

    def _improved(self, current: Set) -> Set:
        """Makes the best single move until none helps."""
        while moves := [s for s in self._moves(current) if self._loss(s) < self._loss(current) - _PROGRESS]:
            current = self._without_unused(min(moves, key=self._rank))
        return current

    def _without_unused(self, members: Set) -> Set:
        """A member that gets no weight need not be paid for."""
        used = self._judged(members)[1]
        return used if self._loss(used) <= self._loss(members) else members

    def _larger(self, current: Set) -> Iterator[Set]:
        for member in range(len(self._proba)):
            if member not in current and self._allowed(current | {member}):
                yield current | {member}

    def _moves(self, current: Set) -> Iterator[Set]:
        """Every allowed set with one member added, dropped, or swapped for another."""
        yield from self._larger(current)
        for out in sorted(current):
            smaller = current - {out}
            if smaller:
                yield smaller
            yield from (other for other in self._larger(smaller) if other != current)


def _used(weights: Floats) -> Set:
    return frozenset(int(i) for i in np.flatnonzero(weights))


def _checked(costs: object) -> dict[str, float]:
    if not isinstance(costs, Mapping):
        raise CombinerError(f"constrained: costs is {costs!r}; expected a mapping of member to number")
    for member, cost in costs.items():
        if isinstance(cost, bool) or not isinstance(cost, (int, float)) or not 0 <= cost < np.inf:
            raise CombinerError(
                f"constrained: costs of {member!r} is {cost!r}; expected a number of 0 or more"
            )
    return dict(costs)
