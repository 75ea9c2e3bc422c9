"""Combiners that look up fitted rows: distances are a matrix product, the nearest a TopK.

Distances are float32, as in `combiners/neighbours.py`, so that what is near here is near there.
"""

from __future__ import annotations

import numpy as np

from ...combiners.competence import Competence
from ...combiners.knora import Knora, KnoraE
from ...combiners.neighbours import NeighbourCombiner
from ...combiners.stacking_knn import StackingKnn
from ...errors import BundleError
from .builder import GraphBuilder
from .ops import Said, axes, first_choices, largest, mean, moved, one_hot, pooled, scaled, total


def stacking_knn(graph: GraphBuilder, combiner: StackingKnn, said: Said) -> str:
    """Labels of the nearest rows on top of the mean."""
    averaged, prior = pooled(graph, said.proba, None, len(said.members)), float(combiner.prior_[0])
    if np.isinf(prior):
        return averaged
    near, k = nearest(graph, combiner, said, int(combiner.k_[0]))
    labels = graph.op("Gather", graph.constant(combiner.labels_, np.int64), near, axis=0)
    counts = total(graph, one_hot(graph, labels, said.n_classes), 1)
    return scaled(graph, graph.op("Add", counts, scaled(graph, averaged, prior)), 1 / (k + prior))


def knora(graph: GraphBuilder, combiner: Knora, said: Said) -> str:
    """Members that are right about the nearest rows."""
    near, _ = nearest(graph, combiner, said, combiner.k)
    correct = graph.op("Gather", graph.constant(combiner.correct_, np.float64), near, axis=0)
    if isinstance(combiner, KnoraE):
        wrong = graph.op(
            "CumSum", moved(graph, scaled(graph, correct, -1.0), 1.0), graph.constant(1, np.int64)
        )
        spotless = graph.cast(graph.op("Equal", wrong, graph.constant(0.0)), np.float64)
        reach = total(graph, spotless, 1)
        weights = graph.cast(graph.op("Equal", reach, largest(graph, reach, 1, keep=True)), np.float64)
    else:
        counts = total(graph, correct, 1)
        none = graph.op("Equal", total(graph, counts, 1, keep=True), graph.constant(0.0))
        weights = graph.op("Add", counts, graph.cast(none, np.float64))
    return weigh(graph, said, weights)


def competence(graph: GraphBuilder, combiner: Competence, said: Said) -> str:
    """Members weighed by how likely they are right, by what is known of each (row, member) pair."""
    near, _ = nearest(graph, combiner, said, combiner.k)
    n_members = len(said.members)
    hits, means = (
        mean(graph, graph.op("Gather", graph.constant(values, np.float64), near, axis=0), 1)
        for values in (combiner.correct_, combiner.true_)
    )
    first = first_choices(graph, said.proba, said.n_classes)
    everybody = total(graph, said.proba, 0)
    own = largest(graph, said.proba, 2)
    chosen = total(graph, graph.op("Mul", first, everybody), 2)
    support = scaled(graph, graph.op("Sub", chosen, own), 1 / max(1, n_members - 1))
    best = graph.ops("TopK", 2, said.proba, axes(graph, 2), axis=2)[0]
    second = total(graph, graph.op("Gather", best, axes(graph, 1), axis=2), 2)
    lead = graph.op("Sub", own, second)
    turned = [graph.op("Transpose", value, perm=[1, 0]) for value in (support, own, lead)]
    overall = moved(graph, scaled(graph, hits, 0.0), combiner.correct_.mean(axis=0))
    columns = [graph.op("Unsqueeze", value, axes(graph, 2)) for value in (hits, means, *turned, overall)]
    shift, spread = combiner.scale_
    standard = scaled(graph, moved(graph, graph.op("Concat", *columns, axis=2), -shift), 1 / spread)
    scores = total(graph, scaled(graph, standard, combiner.coef_[:6]), 2)
    likely = graph.op("Sigmoid", moved(graph, scores, combiner.coef_[6]))
    doubt = graph.op("Max", moved(graph, scaled(graph, likely, -1.0), 1.0), graph.constant(1e-6))
    able = graph.cast(graph.op("Greater", likely, graph.constant(0.5)), np.float64)
    nobody = graph.cast(
        graph.op("Equal", largest(graph, able, 1, keep=True), graph.constant(0.0)), np.float64
    )
    asked = graph.op("Max", able, nobody)
    return weigh(graph, said, graph.op("Mul", graph.op("Div", likely, doubt), asked))


def nearest(graph: GraphBuilder, combiner: NeighbourCombiner, said: Said, k: int) -> tuple[str, int]:
    """Positions int64 (rows, k) of the nearest fitted rows, nearest first, and k, which is at most all of them.

    Raises:
        BundleError: the combiner looks at features of the images.
    """
    if combiner.space != "predictions":
        raise BundleError(
            f"{combiner.label}: needs features of the images, which a bundle has not; use space: predictions"
        )
    points = combiner.points_  # type: ignore[attr-defined]
    k = min(k, len(points))
    share = graph.constant(np.float32(1) / np.float32(2 * len(said.members)), np.float32)
    proba = graph.cast(graph.op("Transpose", said.proba, perm=[1, 0, 2]), np.float32)
    roots = graph.op("Sqrt", graph.op("Mul", graph.op("Max", proba, graph.constant(0, np.float32)), share))
    queries = graph.op("Reshape", roots, axes(graph, -1, points.shape[1]))
    along = graph.op("MatMul", queries, graph.constant(np.float32(-2) * points.T, np.float32))
    sizes = np.einsum("ij,ij->i", points, points)
    distance = graph.op("Add", along, graph.constant(sizes, np.float32))
    return graph.ops("TopK", 2, distance, axes(graph, k), axis=1, largest=0, sorted=1)[1], k


def weigh(graph: GraphBuilder, said: Said, weights: str) -> str:
    """The mean of the members under weights (rows, members) of each row."""
    columns = graph.op("Unsqueeze", graph.op("Transpose", weights, perm=[1, 0]), axes(graph, 2))
    summed = total(graph, graph.op("Mul", said.proba, columns), 0)
    return graph.op("Div", summed, total(graph, weights, 1, keep=True))
