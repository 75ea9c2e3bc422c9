"""What fine-tuning brought: every candidate beside the frozen backbone that it started from, on the same rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ..metrics import METRICS
from ..predictions import Predictions
from .paired import Resampled, resample

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
    rows: list[dict[str, Any]] = []
    for name in metrics:
        metric = METRICS[name]
        involved = list(dict.fromkeys([*before, *(f for f in before.values() if f is not None)]))
        part = predictions.select(involved)
        drawn = resample(part, metric, n_boot=n_boot, seed=seed)
        rows += [_row(drawn, after, frozen) for after, frozen in before.items()]
    return pd.DataFrame(rows)


def _row(drawn: Resampled, after: str, frozen: str | None) -> dict[str, Any]:
    scores = dict(zip(drawn.names, drawn.scores, strict=True))
    row = {"candidate": after, "frozen": frozen, "metric": drawn.metric.name, "after": scores[after]}
    if frozen is None:
        return {**row, "before": math.nan, "gain": math.nan, "gain_low": math.nan, "gain_high": math.nan}
    gain = drawn.difference(after, frozen)
    return {
        **row,
        "before": scores[frozen],
        "gain": gain.delta,
        "gain_low": gain.low,
        "gain_high": gain.high,
    }
