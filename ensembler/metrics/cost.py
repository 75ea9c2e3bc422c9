"""The expected cost of decisions, from a matrix of what each mistake costs.

The matrix is part of the metric's name, `cost:[[0,1],[5,0]]`, so that manifests, states of combiners and command
lines hold it like any other metric. A row is a true class, a column a predicted one.
"""

from __future__ import annotations

import json
import sys
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .base import Floats, Labels, Metric
from .rows import mean_of

COST = "cost"
_FORM = (
    "give one row a true class and one column a predicted class: {cost: [[0, 1], [5, 0]]} in a config, "
    "cost:[[0,1],[5,0]] elsewhere"
)


@lru_cache(maxsize=64)
def cost_metric(name: str) -> Metric:
    """The metric of a name such as `cost:[[0,1],[5,0]]`, spaces allowed; its own name has none.

    The decision is the class of the largest probability, of equal ones the first. The score is the weighted
    mean of its costs; less is better.

    Raises:
        ConfigError: what follows the colon is no matrix of costs; when it scores, probabilities of another
            number of classes than the matrix.
    """
    text = name.partition(":")[2]
    try:
        matrix = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"cost: {text[:60]!r} is not a matrix in JSON; {_FORM}") from error
    canonical = cost_name(matrix)
    if canonical != name:
        return cost_metric(canonical)
    costs = np.array(matrix, np.float64)
    n_classes = len(costs)

    def per_row(labels: Labels, proba: NDArray[Any]) -> Floats:
        if proba.shape[1] != n_classes:
            raise ConfigError(
                f"cost: a matrix of {n_classes} classes for probabilities of {proba.shape[1]}; {_FORM}"
            )
        return np.asarray(costs[labels, proba.argmax(axis=1)])

    return Metric(
        canonical,
        greater_is_better=False,
        low=float(costs.min()),
        high=float(costs.max()),
        score=mean_of(per_row),
        per_row=per_row,
        labels_only=True,
        title=COST,
        n_classes=n_classes,
    )


def cost_name(matrix: Any) -> str:
    """The name of the metric of a matrix of costs, the same for equal matrices.

    Args:
        matrix: (classes, classes) array or nested lists of finite numbers of 0 or more.

    Raises:
        ConfigError: naming what is no cost, or what is not square.

    >>> cost_name([[0, 1.0], [2.5, 0]])
    'cost:[[0,1],[2.5,0]]'
    """
    rows = matrix.tolist() if isinstance(matrix, np.ndarray) else matrix
    if not isinstance(rows, list | tuple) or not all(isinstance(row, list | tuple) for row in rows):
        raise ConfigError(f"cost: {str(rows)[:60]} is not a matrix; {_FORM}")
    if len(rows) < 2:
        raise ConfigError(f"cost: a matrix with {len(rows)} rows; expected two classes or more; {_FORM}")
    for i, row in enumerate(rows, start=1):
        if len(row) != len(rows):
            raise ConfigError(
                f"cost: row {i} has {len(row)} entries in a matrix of {len(rows)} rows; {_FORM}"
            )
        for j, value in enumerate(row, start=1):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value <= sys.float_info.max:
                raise ConfigError(
                    f"cost: {repr(value)[:40]} in row {i}, column {j}; expected a finite number of 0 or more"
                )
    short = [[_shortest(float(value)) for value in row] for row in rows]
    return f"{COST}:{json.dumps(short, separators=(',', ':'))}"


def _shortest(value: float) -> float:
    """1.0 as 1, which is the same cost in fewer letters."""
    return int(value) if value.is_integer() and value < 2**53 else value
