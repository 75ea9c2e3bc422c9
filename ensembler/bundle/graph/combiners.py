"""Every combiner as nodes: one small function each, from the members' probabilities to those of the ensemble.

Rows never look at each other, so the models of all folds go through as if each were an image of its own; see `merge`.
All of it is float64, as in `combiners/`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...combiners import COMBINERS, Combiner
from ...combiners.bagged import Bagged
from ...combiners.base import WeightedMean
from ...combiners.boosting import Boosting
from ...combiners.calibrated import Calibrated
from ...combiners.cascade import Cascade
from ...combiners.levels import Levels
from ...combiners.rank import Rank
from ...combiners.samme import Samme
from ...combiners.samme_r import SammeR
from ...combiners.stacking import Stacking
from ...combiners.stacking_mlp import StackingMlp
from ...combiners.stacking_nonneg import StackingNonneg
from ...combiners.stacking_ridge import StackingRidge
from ...combiners.stacking_trees import StackingTrees
from ...combiners.subset import Subset
from ...combiners.thresholds import Thresholds
from ...errors import BundleError
from ...metrics import PROBA_EPS
from .builder import GraphBuilder
from .meta import flat_design, pair_columns
from .neighbours import competence, knora, stacking_knn
from .ops import (
    Said,
    axes,
    clipped_log,
    first_choices,
    interpolated,
    largest,
    mean,
    moved,
    pooled,
    rounded,
    scaled,
    softmax,
    total,
)
from .trees import tree_scores


def combined(graph: GraphBuilder, combiner: Combiner, said: Said) -> str:
    """What a fitted combiner makes of its members: float64 (rows, classes), rows sum to 1.

    Args:
        graph: to add to.
        combiner: fitted.
        said: by those members, and others perhaps.

    Raises:
        BundleError: this combiner cannot be in a graph.
    """
    translate = TRANSLATIONS.get(combiner.name)
    if translate is None:
        raise BundleError(f"combiner {combiner.name!r}: has no form in a graph; export with --format torch")
    proba = translate(graph, combiner, said.select(graph, combiner.members_))
    return rounded(graph, graph.op("Div", proba, total(graph, proba, 1, keep=True)))


# ---------------------------------------------------------------------- averages and votes


def _weighted(graph: GraphBuilder, combiner: WeightedMean, said: Said) -> str:
    return pooled(graph, said.proba, combiner.weights_, len(said.members))


def _geometric(graph: GraphBuilder, _: Combiner, said: Said) -> str:
    return graph.op("Exp", mean(graph, clipped_log(graph, said.proba), 0))


def _median(graph: GraphBuilder, _: Combiner, said: Said) -> str:
    n = len(said.members)
    ordered = graph.ops("TopK", 2, said.proba, axes(graph, n), axis=0)[0]
    middle = graph.op("Gather", ordered, axes(graph, (n - 1) // 2, n // 2), axis=0)
    tied = scaled(graph, pooled(graph, said.proba, None, n), PROBA_EPS)
    return graph.op("Add", mean(graph, middle, 0), tied)


def _vote(graph: GraphBuilder, _: Combiner, said: Said) -> str:
    votes = total(graph, first_choices(graph, said.proba, said.n_classes), 0)
    return graph.op("Add", votes, pooled(graph, said.proba, None, len(said.members)))


def _rank(graph: GraphBuilder, combiner: Rank, said: Said) -> str:
    curves = [list(combiner.distributions(k)) for k in range(said.n_classes)]
    n = len(said.members)
    slabs = [graph.op("Gather", said.proba, graph.constant(i, np.int64), axis=0) for i in range(n)]
    ranked = [interpolated(graph, slab, [of[i] for of in curves]) for i, slab in enumerate(slabs)]
    ranks = scaled(graph, graph.op("Sum", *ranked), 1 / n)
    back = [
        interpolated(graph, ranks, [(of[i][1], of[i][0]) for of in curves])  # the same curves turned round
        for i in range(n)
    ]
    return graph.op("Sum", *back)


def _samme(graph: GraphBuilder, combiner: Samme, said: Said) -> str:
    first = first_choices(graph, said.proba, said.n_classes)
    votes = pooled(graph, first, combiner.weights_, len(said.members))
    return softmax(graph, scaled(graph, votes, 1 / combiner.temperature_))


def _samme_r(graph: GraphBuilder, combiner: SammeR, said: Said) -> str:
    logs = pooled(graph, clipped_log(graph, said.proba), combiner.weights_, len(said.members))
    return softmax(graph, scaled(graph, logs, 1 / combiner.temperature_))


# ---------------------------------------------------------------------- stackers


def _stacking(graph: GraphBuilder, combiner: Stacking, said: Said) -> str:
    return softmax(graph, graph.op("Add", _log_mean(graph, said), _linear(graph, combiner, said)))


def _stacking_ridge(graph: GraphBuilder, combiner: StackingRidge, said: Said) -> str:
    return softmax(graph, scaled(graph, _linear(graph, combiner, said), 1 / combiner.temperature_))


def _stacking_nonneg(graph: GraphBuilder, combiner: StackingNonneg, said: Said) -> str:
    logs = pooled(graph, clipped_log(graph, said.proba), combiner.weights_, len(said.members))
    return softmax(graph, scaled(graph, logs, combiner.scale_))


def _stacking_mlp(graph: GraphBuilder, combiner: StackingMlp, said: Said) -> str:
    inputs = scaled(graph, flat_design(graph, combiner, said), 1 / 4)
    hidden = graph.op("Relu", _affine(graph, inputs, combiner.layers_in_))
    outputs = _affine(graph, hidden, combiner.layers_out_)
    return softmax(graph, graph.op("Add", _log_mean(graph, said), outputs))


def _linear(graph: GraphBuilder, combiner: Stacking | StackingRidge, said: Said) -> str:
    return _affine(graph, flat_design(graph, combiner, said), combiner.coef_)


def _affine(graph: GraphBuilder, value: str, matrix: Any) -> str:
    """Times all rows of a matrix but the last, which is added."""
    product = graph.op("MatMul", value, graph.constant(matrix[:-1], np.float64))
    return moved(graph, product, matrix[-1])


def _log_mean(graph: GraphBuilder, said: Said) -> str:
    return clipped_log(graph, pooled(graph, said.proba, None, len(said.members)))


# ---------------------------------------------------------------------- trees


def _boosting(graph: GraphBuilder, combiner: Boosting, said: Said) -> str:
    if not combiner.booster_.size:
        return pooled(graph, said.proba, None, len(said.members))
    logs = clipped_log(graph, graph.op("Transpose", said.proba, perm=[1, 0, 2]))
    flat = axes(graph, 0, len(said.members) * said.n_classes)
    if combiner.axes_.shape[1]:
        averaged = mean(graph, logs, 1, keep=True)
        rest = graph.op("Reshape", graph.op("Sub", logs, averaged), flat)
        seen = graph.op("MatMul", rest, graph.constant(combiner.axes_, np.float64))
        columns = graph.op("Concat", graph.op("Squeeze", averaged, axes(graph, 1)), seen, axis=1)
    else:
        columns = graph.op("Reshape", logs, flat)
    scores = tree_scores(graph, graph.cast(columns, np.float32), combiner.booster_, said.n_classes)
    return softmax(
        graph, graph.op("Add", rounded(graph, _log_mean(graph, said)), graph.cast(scores, np.float64))
    )


def _stacking_trees(graph: GraphBuilder, combiner: StackingTrees, said: Said) -> str:
    if not combiner.booster_.size:
        return pooled(graph, said.proba, None, len(said.members))
    scores = tree_scores(graph, pair_columns(graph, combiner, said), combiner.booster_, 1)
    rows = graph.op("Reshape", scores, axes(graph, -1, said.n_classes))
    return softmax(graph, graph.cast(rows, np.float64))


# ---------------------------------------------------------------------- combiners that hold others


def _bagged(graph: GraphBuilder, combiner: Bagged, said: Said) -> str:
    answers = [combined(graph, inner, said) for inner in combiner.inner_.values()]
    return scaled(graph, graph.op("Sum", *answers), 1 / len(answers))


def _subset(graph: GraphBuilder, combiner: Subset, said: Said) -> str:
    return combined(graph, combiner.inner_["base"], said)


def _thresholds(graph: GraphBuilder, combiner: Thresholds, said: Said) -> str:
    return scaled(graph, combined(graph, combiner.inner_["base"], said), combiner.factors_)


def _calibrated(graph: GraphBuilder, combiner: Calibrated, said: Said) -> str:
    proba = combined(graph, combiner.inner_["base"], said)
    if not combiner.knot_counts_.any():
        logits = scaled(graph, clipped_log(graph, proba), combiner.factor_)
        return softmax(graph, moved(graph, logits, combiner.shift_))
    curves = np.split(combiner.knots_, np.cumsum(combiner.knot_counts_)[:-1])
    return interpolated(graph, proba, [(curve[:, 0], curve[:, 1]) for curve in curves])


def _levels(graph: GraphBuilder, combiner: Levels, said: Said) -> str:
    seen = said
    for level in combiner.level_names:
        names = [name for name in level if name in combiner.inner_]
        answers = [combined(graph, combiner.inner_[name], seen) for name in names]
        rows = [graph.op("Unsqueeze", answer, axes(graph, 0)) for answer in answers]
        before = (said.proba,) if combiner.members else ()
        known = said.members if combiner.members else ()
        seen = Said((*known, *names), graph.op("Concat", *before, *rows, axis=0), said.n_classes)
    return scaled(graph, graph.op("Sum", *answers), 1 / len(answers))


def _cascade(graph: GraphBuilder, combiner: Cascade, said: Said) -> str:
    n = len(said.members)
    ordered = graph.op("Gather", said.proba, graph.constant(combiner.order_, np.int64), axis=0)
    sums = graph.op("CumSum", ordered, graph.constant(0, np.int64))
    stages = scaled(graph, sums, 1 / np.arange(1, n + 1)[:, None, None])
    limits = graph.constant(
        np.append(combiner.thresholds_, -np.inf)[:, None], np.float64
    )  # the last one answers
    sure = graph.cast(graph.op("GreaterOrEqual", largest(graph, stages, 2), limits), np.float64)
    first = graph.op("ArgMax", sure, axis=0, keepdims=1)
    chosen = graph.op("Equal", first, graph.constant(np.arange(n)[:, None], np.int64))
    answers = graph.op("Unsqueeze", graph.cast(chosen, np.float64), axes(graph, 2))
    return total(graph, graph.op("Mul", stages, answers), 0)


#: The key of each combiner -> its translation.
TRANSLATIONS: dict[str, Callable[[GraphBuilder, Any, Said], str]] = {
    "geometric": _geometric,
    "rank": _rank,
    "median": _median,
    "vote": _vote,
    "boosting": _boosting,
    "samme": _samme,
    "samme_r": _samme_r,
    "stacking": _stacking,
    "stacking_nonneg": _stacking_nonneg,
    "stacking_ridge": _stacking_ridge,
    "stacking_mlp": _stacking_mlp,
    "stacking_trees": _stacking_trees,
    "stacking_knn": stacking_knn,
    "knora_e": knora,
    "knora_u": knora,
    "competence": competence,
    "cascade": _cascade,
    "bagged": _bagged,
    "calibrated": _calibrated,
    "thresholds": _thresholds,
    "levels": _levels,
    "subset": _subset,
    **{key: _weighted for key, combiner in COMBINERS.items() if issubclass(combiner, WeightedMean)},
}
