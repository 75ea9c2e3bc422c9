"""Scores of class probabilities, each with its direction and range.

Every metric scores many weightings of the same rows at once, because that is what a bootstrap asks for: the
score of 2,000 resamples is a few matrix products instead of 2,000 passes. A plain score is the case of one
weighting. Equal to scikit-learn's to 1e-9 where it has the metric, sample weights included.

A metric is added by its function in one of the files here and its line in `METRICS`.
"""

from __future__ import annotations

import math
from typing import Any

from ..errors import ConfigError, did_you_mean
from . import calibration, counts, ranking, rows
from .base import (
    PROBA_EPS,
    FloatOrArray,
    Floats,
    Labels,
    Metric,
    PerRow,
    Score,
    clipped_log,
    true_class_proba,
)
from .calibration import ECE_BINS, confidence_bins
from .cost import COST, cost_metric, cost_name

__all__ = [
    "ECE_BINS",
    "METRICS",
    "PROBA_EPS",
    "FloatOrArray",
    "Floats",
    "Labels",
    "Metric",
    "PerRow",
    "Score",
    "clipped_log",
    "confidence_bins",
    "cost_name",
    "get_metric",
    "true_class_proba",
]


def _mean(name: str, better: bool, low: float, high: float, per_row: PerRow, **rest: Any) -> Metric:
    return Metric(name, better, low, high, rows.mean_of(per_row), per_row, **rest)


def _label(name: str, low: float, score: Score, title: str = "") -> Metric:
    return Metric(name, True, low, 1.0, score, labels_only=True, title=title)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _mean("log_loss", False, 0.0, -math.log(PROBA_EPS), rows.log_loss_rows),
        _mean("accuracy", True, 0.0, 1.0, rows.accuracy_rows, labels_only=True),
        _label("balanced_accuracy", 0.0, counts.balanced_accuracy),
        _mean("top_2", True, 0.0, 1.0, rows.top_rows(2), title="top-2 accuracy"),
        _mean("top_3", True, 0.0, 1.0, rows.top_rows(3), title="top-3 accuracy"),
        _mean("top_5", True, 0.0, 1.0, rows.top_rows(5), title="top-5 accuracy"),
        _mean("brier", False, 0.0, 2.0, rows.brier_rows, title="Brier score"),
        _label("macro_precision", 0.0, counts.macro_precision),
        _label("macro_recall", 0.0, counts.macro_recall),
        _label("macro_f1", 0.0, counts.macro_f1, "macro F1"),
        _label("weighted_precision", 0.0, counts.weighted_precision),
        # Weighting each class with its labels leaves the share of right rows.
        _mean("weighted_recall", True, 0.0, 1.0, rows.accuracy_rows, labels_only=True),
        _label("weighted_f1", 0.0, counts.weighted_f1, "weighted F1"),
        _label("mcc", -1.0, counts.mcc, "MCC"),
        _label("kappa", -1.0, counts.kappa, "Cohen's kappa"),
        _label("quadratic_kappa", -1.0, counts.quadratic_kappa),
        Metric("roc_auc", True, 0.0, 1.0, ranking.roc_auc, title="ROC AUC"),
        Metric("roc_auc_weighted", True, 0.0, 1.0, ranking.roc_auc_weighted, title="weighted ROC AUC"),
        Metric("roc_auc_ovo", True, 0.0, 1.0, ranking.roc_auc_ovo, title="one-vs-one ROC AUC"),
        Metric("average_precision", True, 0.0, 1.0, ranking.average_precision),
        Metric("ece", False, 0.0, 1.0, calibration.ece, title="ECE"),
        Metric("ece_mass", False, 0.0, 1.0, calibration.ece_mass, title="equal-mass ECE"),
    )
}


def get_metric(name: str) -> Metric:
    """The metric of that name: a key of `METRICS`, or a matrix of costs such as `cost:[[0,1],[5,0]]`.

    Raises:
        ConfigError: naming the nearest valid metric, or what is wrong with the matrix.
    """
    if name in METRICS:
        return METRICS[name]
    if str(name).partition(":")[0] == COST:
        return cost_metric(name)
    raise ConfigError(f"unknown metric {name!r}; {did_you_mean(str(name), [*METRICS, COST])}")
