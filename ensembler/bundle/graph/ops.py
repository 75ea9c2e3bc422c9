"""What the combiners are written in: a few functions of numpy, as nodes.

All of it is float64, in which the combiners compute, so that their answers agree far below 1e-5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...metrics import PROBA_EPS
from .builder import GraphBuilder


def axes(graph: GraphBuilder, *values: int) -> str:
    """Axes, or a shape, as the input that ONNX takes them by."""
    return graph.constant(values, np.int64)


def mean(graph: GraphBuilder, value: str, axis: int, *, keep: bool = False) -> str:
    """The mean over one axis."""
    return graph.op("ReduceMean", value, axes(graph, axis), keepdims=int(keep))


def total(graph: GraphBuilder, value: str, axis: int, *, keep: bool = False) -> str:
    """The sum over one axis."""
    return graph.op("ReduceSum", value, axes(graph, axis), keepdims=int(keep))


def largest(graph: GraphBuilder, value: str, axis: int, *, keep: bool = False) -> str:
    """The maximum over one axis."""
    return graph.op("ReduceMax", value, axes(graph, axis), keepdims=int(keep))


def clipped_log(graph: GraphBuilder, proba: str) -> str:
    """`metrics.clipped_log`."""
    low, high = graph.constant(PROBA_EPS, np.float64), graph.constant(1 - PROBA_EPS, np.float64)
    return graph.op("Log", graph.op("Clip", proba, low, high))


def scaled(graph: GraphBuilder, value: str, factor: Any) -> str:
    """The value times a constant that broadcasts."""
    return graph.op("Mul", value, graph.constant(factor, np.float64))


def moved(graph: GraphBuilder, value: str, shift: Any) -> str:
    """The value and a constant that broadcasts."""
    return graph.op("Add", value, graph.constant(shift, np.float64))


def first_choices(graph: GraphBuilder, proba: str, n_classes: int) -> str:
    """1 at the largest class of the last axis, the first of those that are equal, 0 elsewhere: float64."""
    return one_hot(graph, graph.op("ArgMax", proba, axis=-1, keepdims=0), n_classes)


def one_hot(graph: GraphBuilder, index: str, n: int) -> str:
    """int64 (...,) to float64 (..., n)."""
    last = graph.op("Unsqueeze", index, axes(graph, -1))
    return graph.cast(graph.op("Equal", last, graph.constant(np.arange(n), np.int64)), np.float64)


def pooled(graph: GraphBuilder, value: str, weights: NDArray[Any] | None, n_members: int) -> str:
    """(members, rows, classes) to (rows, classes): the sum under weights, or the mean."""
    if weights is None:
        weights = np.full(n_members, 1 / n_members)
    return total(graph, scaled(graph, value, np.reshape(weights, (-1, 1, 1))), 0)


def softmax(graph: GraphBuilder, logits: str) -> str:
    """Over the last axis; float32 and back, as `probability.softmax` returns it."""
    return rounded(graph, graph.op("Softmax", logits, axis=-1))


def rounded(graph: GraphBuilder, value: str) -> str:
    """As near as float32 comes, which is what Predictions hold."""
    return graph.cast(graph.cast(value, np.float32), np.float64)


def interpolated(graph: GraphBuilder, value: str, curves: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> str:
    """`np.interp` of each column by its own curve: the first value, and one ramp a piece.

    Args:
        graph: to add to.
        value: (..., columns).
        curves: (x ascending, y) of each column.
    """
    pieces = max(len(x) for x, _ in curves) - 1
    left, width, slope = (np.zeros((len(curves), max(1, pieces))) for _ in range(3))
    for i, (x, y) in enumerate(curves):
        xs, ys = np.asarray(x, np.float64), np.asarray(y, np.float64)
        n = len(xs) - 1
        left[i, :n], width[i, :n] = xs[:-1], np.diff(xs)
        slope[i, :n] = np.diff(ys) / np.diff(xs)
    into = graph.op("Sub", graph.op("Unsqueeze", value, axes(graph, -1)), graph.constant(left))
    ramps = graph.op("Min", graph.op("Max", into, graph.constant(0.0)), graph.constant(width))
    return moved(graph, total(graph, scaled(graph, ramps, slope), -1), [float(y[0]) for _, y in curves])


@dataclass(frozen=True)
class Said:
    """What members say, inside a graph.

    Attributes:
        members: names.
        proba: float64 value (members, rows, classes).
        n_classes: two or more.
    """

    members: tuple[str, ...]
    proba: str
    n_classes: int

    def select(self, graph: GraphBuilder, members: Sequence[str]) -> Said:
        """Some members, in another order."""
        if tuple(members) == self.members:
            return self
        rows = graph.constant([self.members.index(name) for name in members], np.int64)
        return Said(tuple(members), graph.op("Gather", self.proba, rows, axis=0), self.n_classes)
