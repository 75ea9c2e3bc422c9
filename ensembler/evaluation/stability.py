"""Would other rows have chosen other members? A combiner fitted on resamples of the rows.

A member that is chosen in nine of ten resamples is there for a reason; one that comes and goes with the draw is as good
as its rivals, and may be replaced by a cheaper one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..combiners import Combiner
from ..errors import CombinerError
from ..predictions import Predictions


@dataclass(frozen=True)
class MemberStability:
    """How firmly one member is in the ensemble; a list of them is ready for `pandas.DataFrame`.

    Attributes:
        member: its name.
        weight: in the combiner fitted on all rows.
        chosen: share of the resamples that give it a weight above 0.
        mean: mean weight over the resamples.
        low: lower end of the interval of the weight (percentiles: weights pile up at 0, so nothing finer fits).
        high: upper end.
    """

    member: str
    weight: float
    chosen: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Stability:
    """How firmly an ensemble is made up as it is.

    Attributes:
        members: in the order of the members.
        same_set: share of the resamples that choose exactly the members of the combiner fitted on all rows.
        overlap: mean Jaccard overlap with that set, 0 to 1.
        usual: the set chosen most often; of several, the first to come up.
        n_boot: resamples.
    """

    members: tuple[MemberStability, ...]
    same_set: float
    overlap: float
    usual: tuple[str, ...]
    n_boot: int


def selection_stability(
    combiner: Combiner,
    predictions: Predictions,
    *,
    groups: ArrayLike | None = None,
    n_boot: int = 100,
    seed: int = 0,
    level: float = 0.95,
) -> Stability:
    """Fits clones of a combiner on rows drawn with replacement.

    Args:
        combiner: one that weights its members; it is neither fitted nor changed. Its own seed stays, so what
            differs comes from the rows.
        predictions: out-of-fold rows.
        groups: (samples,), of any type; rows of one group are drawn together.
        n_boot: resamples.
        seed: of the draws.
        level: of the intervals.

    Raises:
        CombinerError: the combiner has no weights.
    """
    whole = _weights(combiner, predictions)
    rng = np.random.default_rng(seed)
    weights = np.stack(
        [
            _weights(combiner, predictions.rows(_drawn(predictions.n_samples, groups, rng)))
            for _ in range(n_boot)
        ]
    )
    taken, own = weights > 0, whole > 0
    low, high = np.quantile(weights, [(1 - level) / 2, (1 + level) / 2], axis=0)
    sets = Counter(tuple(np.flatnonzero(row)) for row in taken)
    return Stability(
        members=tuple(
            MemberStability(name, *(float(value) for value in values))
            for name, *values in zip(
                predictions.members, whole, taken.mean(axis=0), weights.mean(axis=0), low, high, strict=True
            )
        ),
        same_set=float((taken == own).all(axis=1).mean()),
        overlap=float(((taken & own).sum(axis=1) / (taken | own).sum(axis=1)).mean()),
        usual=tuple(predictions.members[i] for i in sets.most_common(1)[0][0]),
        n_boot=n_boot,
    )


def _weights(combiner: Combiner, predictions: Predictions) -> NDArray[np.float64]:
    fitted = combiner.clone().fit(predictions)
    if fitted.weights_ is None:
        raise CombinerError(
            f"{combiner.label}: has no weights of its members, so none is chosen; stability is for combiners that "
            "weight, such as greedy or bagging"
        )
    weights = dict(
        zip(fitted.members_, fitted.weights_, strict=True)
    )  # its members may be in an order of its own
    return np.array([weights[name] for name in predictions.members])


def _drawn(n_samples: int, groups: ArrayLike | None, rng: np.random.Generator) -> NDArray[np.intp]:
    """Positions of rows drawn with replacement, whole groups at a time."""
    if groups is None:
        return rng.integers(n_samples, size=n_samples)
    names, cluster = np.unique(np.asarray(groups), return_inverse=True)
    times = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
    return np.repeat(np.arange(n_samples), times[cluster])
