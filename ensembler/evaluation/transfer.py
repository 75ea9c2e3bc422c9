"""What fine-tuning brought: every candidate beside the frozen backbone that it started from, on the same rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ..metrics import METRICS, Metric
from ..predictions import Predictions
from .significance import bootstrap_scores, bootstrap_weights, interval

#: What is compared before and after.
TRANSFER_METRICS = ("accuracy", "macro_precision", "macro_recall", "macro_f1", "log_loss")


def transfer_frame(
    predictions: Predictions,
    before: Mapping[str, str | None],
    metrics: Sequence[str] = TRANSFER_METRICS,
    *,
    n_boot: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Scores before and after fine-tuning, out of fold, one row a candidate and metric.

    Args:
        predictions: holds every candidate and every frozen one.
        before: candidate -> the frozen candidate of the same backbone and weights, or None where there is none.
        metrics: names.
        n_boot: resamples of the paired bootstrap; all rows share them.
        seed: of the resamples.

    Returns:
        Columns candidate, frozen, metric, before, after, gain, gain_low, gain_high: a positive gain is an
        improvement whatever the metric's direction, its interval covers 95 %; before and gain are NaN where
        there is no frozen candidate.
    """
    weights = bootstrap_weights(predictions.n_samples, n_boot, seed)
    rows: list[dict[str, Any]] = []
    for name in metrics:
        metric = METRICS[name]
        involved = list(dict.fromkeys([*before, *(f for f in before.values() if f is not None)]))
        part = predictions.select(involved)
        whole = {m: metric(part.labels, part.proba[i]) for i, m in enumerate(part.members)}
        drawn = dict(zip(part.members, bootstrap_scores(part, metric, weights), strict=True))
        rows += [_row(metric, after, frozen, whole, drawn) for after, frozen in before.items()]
    return pd.DataFrame(rows)


def _row(
    metric: Metric, after: str, frozen: str | None, whole: Mapping[str, float], drawn: Mapping[str, Any]
) -> dict[str, Any]:
    row = {"candidate": after, "frozen": frozen, "metric": metric.name, "after": whole[after]}
    if frozen is None:
        return {**row, "before": math.nan, "gain": math.nan, "gain_low": math.nan, "gain_high": math.nan}
    low, high = interval(metric.improvement(drawn[after], drawn[frozen]))
    return {
        **row,
        "before": whole[frozen],
        "gain": metric.improvement(whole[after], whole[frozen]),
        "gain_low": low,
        "gain_high": high,
    }
