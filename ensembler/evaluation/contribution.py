"""Which member adds what to the ensemble: alone, last, and on average over all orders.

Leave-one-out asks what is lost without a member, and calls two copies of a good one worthless. The Shapley value
(Shapley 1953) is a member's mean gain over all orders in which the ensemble can be built: the copies share theirs, and
the values of all members sum to what the ensemble is better than knowing nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import PredictionsError
from .subsets import SubsetValue

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Contribution:
    """What one member adds, in units of the metric; positive is an improvement whatever its direction.

    Attributes:
        member: its name.
        alone: improvement of the member by itself on the empty set.
        leave_one_out: improvement of the whole set on the set without it.
        shapley: mean improvement when it joins, over orders.
        error: standard error of `shapley`, from the orders drawn; 0 where all orders were taken.
    """

    member: str
    alone: float
    leave_one_out: float
    shapley: float
    error: float


@dataclass(frozen=True)
class Contributions:
    """All members' contributions; `pandas.DataFrame(result.members)` is a table of them.

    Attributes:
        members: in the order of the members.
        empty: score of the set without members.
        full: score of all members together. The Shapley values sum to its improvement on `empty`.
        n_orders: orders behind the Shapley values.
    """

    members: tuple[Contribution, ...]
    empty: float
    full: float
    n_orders: int


def contributions(value: SubsetValue, *, n_orders: int = 200, seed: int = 0) -> Contributions:
    """Leave-one-out and Shapley values, the latter by sampled orders (Castro, Gomez & Tejada 2009).

    Orders are drawn in pairs, each with its reverse: a member that comes early in one comes late in the other,
    which takes much of the variance away (Mitchell et al. 2022). Where all orders are no more than `n_orders`,
    all are taken.

    Args:
        value: of sets, see `subsets`.
        n_orders: 4 or more; an odd number is rounded up.
        seed: of the orders.

    Raises:
        PredictionsError: fewer than four orders, of which no standard error can be told.
    """
    if n_orders < 4:
        raise PredictionsError(
            f"n_orders: {n_orders}; expected 4 or more: they come in pairs, and one pair has no spread"
        )
    n_members = len(value.members)
    orders, complete = draw_orders(n_members, n_orders, seed)
    gains = np.empty((len(orders), n_members))
    for i, order in enumerate(orders):
        scores = np.concatenate([[value.empty], value.growing(order.tolist())])
        gains[i, order] = value.metric.improvement(scores[1:], scores[:-1])
    pairs = gains if len(orders) == 1 else (gains[0::2] + gains[1::2]) / 2
    errors = np.zeros(n_members) if complete else pairs.std(axis=0, ddof=1) / np.sqrt(len(pairs))
    shapley = pairs.mean(axis=0)
    everyone = range(n_members)
    full = value.of(everyone)
    members = []
    for i, name in enumerate(value.members):
        without = value.of([m for m in everyone if m != i])
        members.append(
            Contribution(
                member=name,
                alone=value.metric.improvement(value.of([i]), value.empty),
                leave_one_out=value.metric.improvement(full, without),
                shapley=float(shapley[i]),
                error=float(errors[i]),
            )
        )
    return Contributions(tuple(members), value.empty, full, len(orders))


def draw_orders(n_members: int, n_orders: int, seed: int) -> tuple[list[NDArray[np.intp]], bool]:
    """Orders of members, each followed by its reverse, and whether they are all there are.

    >>> [order.tolist() for order in draw_orders(2, 10, seed=0)[0]]
    [[0, 1], [1, 0]]
    """
    from itertools import permutations
    from math import factorial

    if n_members <= 8 and factorial(n_members) <= n_orders:
        found: list[Sequence[int]] = []
        for order in permutations(range(n_members)):
            if n_members == 1:
                found.append(order)
            elif order[0] < order[-1]:  # of an order and its reverse, one
                found += [order, order[::-1]]
        return [np.array(order) for order in found], True
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(n_members) for _ in range((n_orders + 1) // 2)]
    return [order for one in drawn for order in (one, one[::-1])], False
