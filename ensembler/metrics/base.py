"""What a metric is, and the weighted sums that all of them are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ConfigError

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
#: (labels (n,), proba (n, classes), weights (n, draws)) -> scores (draws,)
Score = Callable[[Labels, NDArray[Any], NDArray[Any]], Floats]
#: (labels (n,), proba (n, classes)) -> values (n,), whose weighted mean is the score
PerRow = Callable[[Labels, NDArray[Any]], Floats]
#: (labels (n,), proba (n, classes)) -> (weights float64 (n, draws) -> scores (draws,)): sorts and counts once
Prepare = Callable[[Labels, NDArray[Any]], Callable[[Floats], Floats]]
FloatOrArray = TypeVar("FloatOrArray", float, Floats)

#: Probabilities are held within [PROBA_EPS, 1 - PROBA_EPS] before a logarithm, here and in every combiner: a
#: row costs at most 15.9 nats. It is the spacing of float32 at 1, the type predictions are stored in, and
#: what scikit-learn does for float32 input.
PROBA_EPS = float(np.finfo(np.float32).eps)

#: Most float64 numbers of weights worked on at once (32 MiB).
_CHUNK = 2**22


@dataclass(frozen=True)
class Metric:
    """A score of probabilities, with its direction and range.

    Attributes:
        name: what `get_metric` knows it by, and what a config, a manifest and a leaderboard hold.
        greater_is_better: the direction.
        low: smallest possible value.
        high: largest possible value.
        score: (labels int64 (n,), proba (n, classes), weights (n, draws) of any number type) -> float64
            (draws,), one score a column of weights. NaN where the score is undefined, such as the AUC of a
            single class.
        per_row: (labels, proba) -> float64 (n,) where the score is the weighted mean of these, else None: a
            search over many ensembles then averages rows and scores nothing anew.
        labels_only: whether it depends on the class of the largest probability alone (of several equal ones
            the first), so that other decision thresholds would change it and calibration would not.
        title: the name as people write it; by default `name` with spaces.
        n_classes: the only number of classes that it is for, or None.
    """

    name: str
    greater_is_better: bool
    low: float
    high: float
    score: Score
    per_row: PerRow | None = None
    labels_only: bool = False
    title: str = ""
    n_classes: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", self.title or self.name.replace("_", " "))

    def __call__(self, labels: ArrayLike, proba: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """The score of probabilities against labels.

        Args:
            labels: (n,) int, index into the columns of `proba`.
            proba: (n, classes), rows sum to 1.
            sample_weight: (n,) non-negative, or None for equal weights.
        """
        labels = np.asarray(labels, np.int64)
        weights = np.ones(len(labels)) if sample_weight is None else np.asarray(sample_weight, np.float64)
        return float(self.score(labels, np.asarray(proba), weights[:, None])[0])

    @property
    def sign(self) -> int:
        """1 where greater is better, -1 where less is."""
        return 1 if self.greater_is_better else -1

    def improvement(self, new: FloatOrArray, old: FloatOrArray) -> FloatOrArray:
        """How much better `new` is than `old`: positive is better, whatever the direction.

        >>> from ensembler.metrics import get_metric
        >>> get_metric("log_loss").improvement(0.5, 0.75), get_metric("accuracy").improvement(0.5, 0.75)
        (0.25, -0.25)
        """
        return new - old if self.greater_is_better else old - new

    def require_classes(self, classes: Sequence[str]) -> None:
        """Refuses classes that it cannot score.

        Raises:
            ConfigError: naming the classes in their order.
        """
        if self.n_classes is not None and len(classes) != self.n_classes:
            shown = ", ".join(map(str, classes[:12])) + (", ..." if len(classes) > 12 else "")
            raise ConfigError(
                f"{self.title}: made for {self.n_classes} classes, and there are {len(classes)}: {shown}; give one "
                "row and one column a class, in that order"
            )


def clipped_log(proba: NDArray[Any]) -> Floats:
    """Natural logarithm in float64, of probabilities held within [PROBA_EPS, 1 - PROBA_EPS]; any shape."""
    return np.log(np.clip(np.asarray(proba, np.float64), PROBA_EPS, 1 - PROBA_EPS))


def true_class_proba(labels: Labels, proba: NDArray[Any]) -> Floats:
    """The probability of each row's own class: (..., n, classes) -> float64 (..., n)."""
    return proba[..., np.arange(len(labels)), labels].astype(np.float64)


# ---------------------------------------------------------------------- many weightings


def in_chunks(prepare: Prepare) -> Score:
    """A score that looks at the rows once and at a bounded number of weightings at a time."""

    def score(labels: Labels, proba: NDArray[Any], weights: NDArray[Any]) -> Floats:
        of_weights = prepare(labels, proba)
        n_samples, n_draws = weights.shape
        scores = np.empty(n_draws)
        width = max(1, _CHUNK // max(n_samples, 1))
        for start in range(0, n_draws, width):
            part = slice(start, start + width)
            scores[part] = of_weights(np.asarray(weights[:, part], np.float64))
        return scores

    return score


@dataclass(frozen=True, eq=False)
class Groups:
    """Sums of weights by group, under all weightings at once: a sparse matrix product.

    Its time does not depend on the number of groups; a product with a dense matrix of ones and zeros would
    take that many times as long.

    Attributes:
        index: (n,) int, the group of each row, from 0 to `n_groups` - 1.
        n_groups: how many there are; a group without rows has the sum 0.
        value: (n,) what the weight of each row is multiplied with, or None for 1.
    """

    index: NDArray[np.integer[Any]]
    n_groups: int
    value: Floats | None = None

    def sums(self, weights: Floats) -> Floats:
        """(n, draws) -> (n_groups, draws)."""
        if weights.shape[1] == 1:
            column = weights[:, 0] if self.value is None else weights[:, 0] * self.value
            return np.bincount(self.index, column, self.n_groups).astype(np.float64, copy=False)[:, None]
        return np.asarray(self._matrix @ weights)

    @cached_property
    def _matrix(self) -> Any:
        from scipy.sparse import csr_array  # a tenth of a second that reading a leaderboard does not need

        n_rows = len(self.index)
        ones = np.ones(n_rows) if self.value is None else self.value
        return csr_array((ones, (self.index, np.arange(n_rows))), shape=(self.n_groups, n_rows))


# ---------------------------------------------------------------------- sums that may be empty


def ratio(part: Floats, whole: Floats) -> Floats:
    """`part / whole`, NaN where `whole` is 0."""
    result: Floats = np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)
    return result


def zero_where_empty(part: Floats, whole: Floats) -> Floats:
    """`part / whole`, 0 where `whole` is 0."""
    result: Floats = np.divide(part, whole, out=np.zeros(np.shape(part)), where=whole > 0)
    return result


def mean_where_defined(values: Floats) -> Floats:
    """Mean over the first axis of the values that are not NaN; NaN where none is."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0).sum(axis=0), defined.sum(axis=0))
