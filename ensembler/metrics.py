"""Scores of class probabilities, each with its direction and range.

Every metric scores many weightings of the same rows at once, because that is what a bootstrap asks for: the
score of 2,000 resamples is a few matrix products instead of 2,000 passes. A plain score is the case of one
weighting. Equal to scikit-learn's to 1e-9 where it has the metric, sample weights included.

A metric is added by its function and its line in `METRICS`, at the end of this file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import ConfigError, did_you_mean

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
#: (labels (n,), proba (n, classes), weights (n, draws)) -> scores (draws,)
Score = Callable[[Labels, NDArray[Any], NDArray[Any]], Floats]
#: (labels (n,), proba (n, classes)) -> values (n,), whose weighted mean is the score
PerRow = Callable[[Labels, NDArray[Any]], Floats]
FloatOrArray = TypeVar("FloatOrArray", float, Floats)

#: Probabilities are held within [PROBA_EPS, 1 - PROBA_EPS] before a logarithm, here and in every combiner: a
#: row costs at most 15.9 nats. It is the spacing of float32 at 1, the type predictions are stored in, and
#: what scikit-learn does for float32 input.
PROBA_EPS = float(np.finfo(np.float32).eps)

ECE_BINS = 15


@dataclass(frozen=True)
class Metric:
    """A score of probabilities, with its direction and range.

    Attributes:
        name: key in `METRICS`.
        greater_is_better: the direction.
        low: smallest possible value.
        high: largest possible value.
        score: (labels int64 (n,), proba (n, classes), weights (n, draws)) -> float64 (draws,), one score a
            column of weights. NaN where the score is undefined, such as the AUC of a single class.
        per_row: (labels, proba) -> float64 (n,) where the score is the weighted mean of these, else None.
    """

    name: str
    greater_is_better: bool
    low: float
    high: float
    score: Score
    per_row: PerRow | None = None

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

        >>> get_metric("log_loss").improvement(0.5, 0.75), get_metric("accuracy").improvement(0.5, 0.75)
        (0.25, -0.25)
        """
        return new - old if self.greater_is_better else old - new


def get_metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
        ConfigError: naming the nearest valid metric.
    """
    if name not in METRICS:
        raise ConfigError(f"unknown metric {name!r}; {did_you_mean(str(name), METRICS)}")
    return METRICS[name]


def clipped_log(proba: NDArray[Any]) -> Floats:
    """Natural logarithm in float64, of probabilities held within [PROBA_EPS, 1 - PROBA_EPS]; any shape."""
    return np.log(np.clip(np.asarray(proba, np.float64), PROBA_EPS, 1 - PROBA_EPS))


def true_class_proba(labels: Labels, proba: NDArray[Any]) -> Floats:
    """The probability of each row's own class: (..., n, classes) -> float64 (..., n)."""
    return proba[..., np.arange(len(labels)), labels].astype(np.float64)


def confidence_bins(proba: NDArray[Any], n_bins: int = ECE_BINS) -> tuple[Floats, NDArray[np.intp]]:
    """Confidence of each row (its largest probability) and its equal-width bin, closed on the right.

    Returns:
        confidence float64 (n,), bin index (n,) from 0 to `n_bins` - 1.
    """
    confidence = proba.max(axis=1).astype(np.float64)
    return confidence, np.clip(np.ceil(confidence * n_bins).astype(np.intp) - 1, 0, n_bins - 1)


# ---------------------------------------------------------------------- means over rows


def _log_loss_rows(labels: Labels, proba: NDArray[Any]) -> Floats:
    return -clipped_log(true_class_proba(labels, proba))


def _brier_rows(labels: Labels, proba: NDArray[Any]) -> Floats:
    """Squared distance to the one-hot label (Brier 1950); halved for two classes, as scikit-learn does."""
    errors = proba.astype(np.float64)
    errors[np.arange(len(labels)), labels] -= 1
    squares = (errors**2).sum(axis=1)
    return np.asarray(squares / 2 if proba.shape[1] == 2 else squares)


def _accuracy_rows(labels: Labels, proba: NDArray[Any]) -> Floats:
    return np.asarray(proba.argmax(axis=1) == labels, np.float64)


def _mean_of(per_row: PerRow) -> Score:
    def score(labels: Labels, proba: NDArray[Any], weights: NDArray[Any]) -> Floats:
        return _ratio(per_row(labels, proba) @ weights, weights.sum(axis=0, dtype=np.float64))

    return score


# ---------------------------------------------------------------------- counts of classes and bins


def _balanced_accuracy(labels: Labels, proba: NDArray[Any], weights: NDArray[Any]) -> Floats:
    """Recall averaged over the classes that occur among the labels."""
    hits, support, _ = _class_weights(labels, proba, weights)
    return _mean_where_defined(_ratio(hits, support))


def _macro_precision(labels: Labels, proba: NDArray[Any], weights: NDArray[Any]) -> Floats:
    """Precision averaged over the classes that occur at all; 0 for one that is never predicted."""
    hits, support, predicted = _class_weights(labels, proba, weights)
    return _mean_where_defined(_zero_where_empty(hits, predicted, support + predicted))


def _macro_recall(labels: Labels, proba: NDArray[Any], weights: NDArray[Any]) -> Floats:
    """Recall averaged over the classes that occur at all; 0 for one that is predicted and never the label."""
    hits, support, predicted = _class_weights(labels, proba, weights)
    return _mean_where_defined(_zero_where_empty(hits, support, support + predicted))


def _macro_f1(labels: Labels, proba: NDArray[Any], weights: NDArray[Any]) -> Floats:
    """F1 averaged over the classes that occur among the labels or the predictions."""
    hits, support, predicted = _class_weights(labels, proba, weights)
    return _mean_where_defined(_ratio(2 * hits, support + predicted))


def _ece(labels: Labels, proba: NDArray[Any], weights: NDArray[Any]) -> Floats:
    """Expected calibration error (Naeini et al. 2015) of the predicted class, `ECE_BINS` equal-width bins."""
    confidence, index = confidence_bins(proba)
    gap = np.zeros((ECE_BINS, len(labels)))
    gap[index, np.arange(len(labels))] = _accuracy_rows(labels, proba) - confidence
    return _ratio(np.abs(gap @ weights).sum(axis=0), weights.sum(axis=0, dtype=np.float64))


def _class_weights(
    labels: Labels, proba: NDArray[Any], weights: NDArray[Any]
) -> tuple[Floats, Floats, Floats]:
    """Weight of the hits, the labels and the predictions of each class, each (classes, draws)."""
    classes = np.arange(proba.shape[1])[:, None]
    is_label, is_predicted = labels == classes, proba.argmax(axis=1) == classes
    hits, support, predicted = (
        rows.astype(np.float64) @ weights for rows in (is_label & is_predicted, is_label, is_predicted)
    )
    return hits, support, predicted


# ---------------------------------------------------------------------- ranking


def _roc_auc(labels: Labels, proba: NDArray[Any], weights: NDArray[Any]) -> Floats:
    """Area under the ROC curve: of class 1 for two classes, else one against the rest, averaged."""
    columns = range(proba.shape[1]) if proba.shape[1] > 2 else [1]
    return _mean_where_defined(np.stack([_auc(labels == k, proba[:, k], weights) for k in columns]))


def _auc(positive: NDArray[np.bool_], value: NDArray[Any], weights: NDArray[Any]) -> Floats:
    order = np.argsort(-value, kind="stable")
    value, weights = value[order], weights[order].astype(np.float64)
    thresholds = np.append(
        np.flatnonzero(np.diff(value)), len(value) - 1
    )  # equal values enter the curve together
    rows = positive[order, None]
    start = np.zeros((1, weights.shape[1]))
    hits = np.concatenate([start, np.cumsum(weights * rows, axis=0)[thresholds]])
    alarms = np.concatenate([start, np.cumsum(weights * ~rows, axis=0)[thresholds]])
    return _ratio(np.asarray(np.trapezoid(hits, alarms, axis=0)), hits[-1] * alarms[-1])


# ---------------------------------------------------------------------- sums that may be empty


def _ratio(part: Floats, whole: Floats) -> Floats:
    """`part / whole`, NaN where `whole` is 0."""
    ratio: Floats = np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)
    return ratio


def _zero_where_empty(part: Floats, whole: Floats, occurs: Floats) -> Floats:
    """`part / whole`, 0 where `whole` is 0 and the class occurs, NaN where it does not."""
    return np.where((whole == 0) & (occurs > 0), 0.0, _ratio(part, whole))


def _mean_where_defined(values: Floats) -> Floats:
    """Mean over the first axis of the values that are not NaN; NaN where none is."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0).sum(axis=0), defined.sum(axis=0))


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("log_loss", False, 0.0, -float(np.log(PROBA_EPS)), _mean_of(_log_loss_rows), _log_loss_rows),
        Metric("accuracy", True, 0.0, 1.0, _mean_of(_accuracy_rows), _accuracy_rows),
        Metric("balanced_accuracy", True, 0.0, 1.0, _balanced_accuracy),
        Metric("brier", False, 0.0, 2.0, _mean_of(_brier_rows), _brier_rows),
        Metric("macro_precision", True, 0.0, 1.0, _macro_precision),
        Metric("macro_recall", True, 0.0, 1.0, _macro_recall),
        Metric("macro_f1", True, 0.0, 1.0, _macro_f1),
        Metric("roc_auc", True, 0.0, 1.0, _roc_auc),
        Metric("ece", False, 0.0, 1.0, _ece),
    )
}
