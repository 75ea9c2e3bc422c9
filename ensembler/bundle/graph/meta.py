"""The columns that stackers learn from, as nodes; `combiners/meta.py` and `stacking_trees.py` in numpy."""

from __future__ import annotations

import numpy as np

from ...combiners.meta import Stacker
from ...errors import BundleError
from .builder import GraphBuilder
from .ops import Said, axes, clipped_log, first_choices, largest, mean, moved, pooled, scaled, total


def design(graph: GraphBuilder, stacker: Stacker, said: Said) -> tuple[str, str | None]:
    """Centred log-probabilities (rows, members, classes), and the standardised extra columns (rows, columns) if any.

    Raises:
        BundleError: the stacker needs features of the images.
    """
    if stacker.passthrough:
        raise BundleError(
            f"{stacker.label}: needs features of the images, which a bundle has not; fit it without passthrough"
        )
    logs = clipped_log(graph, graph.op("Transpose", said.proba, perm=[1, 0, 2]))
    centred = graph.op("Sub", logs, mean(graph, logs, 2, keep=True))
    if not stacker.disagreement:
        return centred, None
    extra = moved(graph, disagreement(graph, said), -stacker.centre_)
    return centred, scaled(graph, extra, 1 / stacker.spread_)


def flat_design(graph: GraphBuilder, stacker: Stacker, said: Said) -> str:
    """float64 (rows, columns): the same side by side."""
    centred, extra = design(graph, stacker, said)
    flat = graph.op("Reshape", centred, axes(graph, 0, len(said.members) * said.n_classes))
    return flat if extra is None else graph.op("Concat", flat, extra, axis=1)


def disagreement(graph: GraphBuilder, said: Said) -> str:
    """`combiners.meta.disagreement`: float64 (rows, 4)."""
    n_members = len(said.members)
    averaged = pooled(graph, said.proba, None, n_members)
    own = mean(graph, _entropy(graph, said.proba, said.n_classes), 0)
    votes = total(graph, first_choices(graph, said.proba, said.n_classes), 0)
    agreed = scaled(graph, largest(graph, votes, 1), 1 / n_members)
    off = graph.op("Sub", said.proba, averaged)
    deviation = graph.op("Sqrt", mean(graph, graph.op("Mul", off, off), 0))
    spread = scaled(graph, largest(graph, deviation, 1), 2.0)
    columns = [_entropy(graph, averaged, said.n_classes), own, agreed, spread]
    return graph.op("Concat", *(graph.op("Unsqueeze", column, axes(graph, 1)) for column in columns), axis=1)


def pair_columns(graph: GraphBuilder, stacker: Stacker, said: Said) -> str:
    """What is known of each class of each row, for trees: float32 (rows x classes, columns)."""
    centred, extra = design(graph, stacker, said)
    n_classes = said.n_classes
    of_members = graph.op("Transpose", centred, perm=[0, 2, 1])
    averaged = mean(graph, of_members, 2)
    best = graph.ops("TopK", 2, averaged, axes(graph, 2), axis=1)[0]
    first = graph.op("Gather", best, axes(graph, 0), axis=1)
    second = graph.op("Gather", best, axes(graph, 1), axis=1)
    rival = graph.op("Where", graph.op("Equal", averaged, first), second, first)
    off = graph.op("Sub", of_members, graph.op("Unsqueeze", averaged, axes(graph, 2)))
    zeros = scaled(graph, averaged, 0.0)
    own = [
        averaged,
        graph.op("Sub", averaged, rival),
        graph.op("ReduceMin", of_members, axes(graph, 2), keepdims=0),
        largest(graph, of_members, 2),
        graph.op("Sqrt", mean(graph, graph.op("Mul", off, off), 2)),
        moved(graph, zeros, np.arange(n_classes)),
    ]
    columns = [graph.op("Unsqueeze", column, axes(graph, 2)) for column in own] + [of_members]
    if extra is not None:
        wide = graph.op("Unsqueeze", extra, axes(graph, 1))
        columns.append(graph.op("Add", wide, graph.op("Unsqueeze", zeros, axes(graph, 2))))
    pairs = graph.op("Concat", *columns, axis=2)
    n_columns = len(own) + len(said.members) + (0 if extra is None else len(stacker.centre_))
    return graph.cast(graph.op("Reshape", pairs, axes(graph, -1, n_columns)), np.float32)


def _entropy(graph: GraphBuilder, proba: str, n_classes: int) -> str:
    """Over the last axis, in units of the entropy of not knowing."""
    nats = total(graph, graph.op("Mul", proba, clipped_log(graph, proba)), -1)
    share = scaled(graph, nats, -1 / np.log(n_classes))
    return graph.op("Clip", share, graph.constant(0.0), graph.constant(1.0))
