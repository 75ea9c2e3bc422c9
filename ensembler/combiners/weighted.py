"""The weighted mean whose weights somebody chose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ..errors import CombinerError
from ..predictions import Predictions
from .base import WeightedMean


@dataclass(eq=False, kw_only=True)
class Weighted(WeightedMean):
    """The mean of the members under weights that are given: fitting looks at no label.

    So cross-fitting has nothing to leave out, and its score is the plain one. Where the weights were chosen by looking
    at scores of the same rows, it flatters them, and nothing in a table can tell by how much.

    Attributes:
        weights: member -> weight, 0 or more, not all 0; only their ratios count. A member that is not named has
            weight 0. Empty: all count the same.
    """

    name: ClassVar[str] = "weighted"

    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.weights = _checked(self.weights)

    def _fit_rows(self, predictions: Predictions) -> None:
        absent = [m for m, weight in self.weights.items() if weight > 0 and m not in predictions.members]
        if absent:
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            raise CombinerError(
                f"{self.name}: weights names {absent[0]!r}{more}, and there is no such member; take it out, or "
                "train it again"
            )
        given = [self.weights.get(m, 0.0) for m in predictions.members] if self.weights else None
        weights = np.ones(predictions.n_members) if given is None else np.array(given, np.float64)
        weights /= weights.max()  # the sum of large ones would not be finite
        self.weights_ = weights / weights.sum()


def _checked(weights: object) -> dict[str, float]:
    if not isinstance(weights, Mapping):
        raise CombinerError(
            f"weighted: weights is {weights!r}; expected a weight for each member, such as {{resnet10t: 2}}"
        )
    for member, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < np.inf:
            raise CombinerError(
                f"weighted: weights of {member!r} is {weight!r}; expected a number of 0 or more"
            )
    found = {str(member): float(weight) for member, weight in weights.items()}
    if found and not any(found.values()):
        raise CombinerError("weighted: weights are all 0; give one member more than that")
    return found
