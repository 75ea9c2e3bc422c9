"""Combiners, by key.

A new one is a file beside these and a line in the table; the conformance suite then tests it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from numpy.typing import NDArray

from ..errors import CombinerError, did_you_mean
from .bagged import Bagged
from .bagging import Bagging
from .base import Combiner
from .boosting import Boosting
from .calibrated import Calibrated
from .cascade import Cascade
from .competence import Competence
from .composite import inner_arrays
from .constrained import Constrained
from .convex import Convex
from .greedy import Greedy
from .knora import KnoraE, KnoraU
from .levels import Levels
from .mean import Geometric, Mean
from .median import Median
from .rank import Rank
from .samme import Samme
from .samme_r import SammeR
from .stacking import Stacking
from .stacking_knn import StackingKnn
from .stacking_mlp import StackingMlp
from .stacking_nonneg import StackingNonneg
from .stacking_ridge import StackingRidge
from .stacking_trees import StackingTrees
from .subset import Subset
from .thresholds import Thresholds
from .vote import Vote
from .weighted import Weighted

COMBINERS: dict[str, type[Combiner]] = {
    "mean": Mean,
    "geometric": Geometric,
    "rank": Rank,
    "median": Median,
    "vote": Vote,
    "weighted": Weighted,
    "convex": Convex,
    "greedy": Greedy,
    "bagging": Bagging,
    "boosting": Boosting,
    "samme": Samme,
    "samme_r": SammeR,
    "stacking": Stacking,
    "stacking_nonneg": StackingNonneg,
    "stacking_ridge": StackingRidge,
    "stacking_mlp": StackingMlp,
    "stacking_trees": StackingTrees,
    "stacking_knn": StackingKnn,
    "knora_e": KnoraE,
    "knora_u": KnoraU,
    "competence": Competence,
    "cascade": Cascade,
    "constrained": Constrained,
    "bagged": Bagged,
    "calibrated": Calibrated,
    "thresholds": Thresholds,
    "levels": Levels,
    "subset": Subset,
}

__all__ = ["COMBINERS", "Combiner", "from_state", "make_combiner"]


def make_combiner(key: str, **params: Any) -> Combiner:
    """A combiner that is not fitted yet.

    Args:
        key: of `COMBINERS`.
        params: its hyperparameters; the class documents them.

    Raises:
        CombinerError: an unknown key or hyperparameter, naming the nearest valid one; a value out of range.

    >>> make_combiner("samme", rounds=10)
    Samme(label='samme', rounds=10)
    """
    if key not in COMBINERS:
        raise CombinerError(f"unknown combiner {key!r}; {did_you_mean(str(key), COMBINERS)}")
    valid = [f.name for f in fields(COMBINERS[key]) if f.init]
    for name in params:
        if name not in valid:
            raise CombinerError(f"{key}: unknown parameter {name!r}; {did_you_mean(name, valid)}")
    return COMBINERS[key](**params)


def from_state(state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Combiner:
    """The fitted combiner that `Combiner.get_state` described: the same predictions, bit for bit.

    Raises:
        CombinerError: the state is incomplete, or of a combiner that is unknown here.
    """
    missing = [name for name in ("combiner", "params", "members", "classes") if name not in state]
    if missing:
        raise CombinerError(f"combiner state lacks {missing}; found {sorted(state)}")
    combiner = make_combiner(state["combiner"], **state["params"])
    inner = {key: from_state(one, inner_arrays(arrays, key)) for key, one in state.get("inner", {}).items()}
    return combiner.restore(state["members"], state["classes"], arrays, inner)
