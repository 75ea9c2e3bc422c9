"""Which rows are worth their price: those that no other row beats at the same cost or less."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pareto_front(scores: ArrayLike, costs: ArrayLike, greater_is_better: bool) -> NDArray[np.intp]:
    """Positions of the rows on the Pareto front, the cheapest first.

    A row is on it when every other row is worse or costs more. Of rows that are equal in both, the first is; a row
    whose score or cost is NaN (not measured) is not.

    Args:
        scores: (rows,).
        costs: (rows,), such as milliseconds or bytes; less is better.
        greater_is_better: direction of the scores.

    Returns:
        intp (front,); costs and scores both rise in quality's direction along it.

    >>> pareto_front([0.70, 0.75, 0.74, 0.80], [1.0, 2.0, 3.0, 9.0], greater_is_better=True)
    array([0, 1, 3])
    """
    value = np.asarray(scores, np.float64) * (1 if greater_is_better else -1)
    cost = np.asarray(costs, np.float64)
    known = np.flatnonzero(~np.isnan(value) & ~np.isnan(cost))
    order = known[np.lexsort((-value[known], cost[known]))]  # stable: of equals, the first
    best = np.maximum.accumulate(value[order])
    leads = np.concatenate([np.ones(min(len(order), 1), bool), value[order][1:] > best[:-1]])
    return np.asarray(order[leads])
