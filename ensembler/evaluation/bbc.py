"""How good is the winner really? The best of many rows is partly the luckiest of them.

Tsamardinos, Greasidou & Borboudakis 2018, "Bootstrapping the out-of-sample predictions for efficient and accurate
cross-validation" (BBC-CV): the selection itself is bootstrapped, over predictions that exist already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import PredictionsError
from ..metrics import Metric
from ..predictions import Predictions
from .significance import Floats, bootstrap_scores, bootstrap_weights, interval, weighted_means


@dataclass(frozen=True)
class BiasCorrected:
    """The score that the winner of a selection may be expected to have on new images.

    Attributes:
        winner: the best row on all samples; a tie goes to the first.
        naive: its score, which the choice has flattered.
        estimate: the corrected score.
        low: lower end of the interval of `estimate`.
        high: upper end.
        bias: how much `naive` flatters; positive when it does, whatever the metric's direction.
        chosen: how often each row won, as a share of the resamples; rows that never did are left out.
    """

    winner: str
    naive: float
    estimate: float
    low: float
    high: float
    bias: float
    chosen: Mapping[str, float]


def bias_corrected(
    predictions: Predictions,
    metric: Metric,
    *,
    groups: ArrayLike | None = None,
    n_boot: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> BiasCorrected:
    """Chooses the best row on each resample, and scores it on the samples that were not drawn.

    Args:
        predictions: every row that took part in the selection: single models, and ensembles as cross-fitted,
            since an ensemble's in-sample predictions would win and flatter again.
        metric: of the selection and of the scores.
        groups: (samples,), of any type; samples of one group are drawn together.
        n_boot: resamples.
        seed: of the draws.
        level: of the interval, which is that of the scores of the resamples. They rest on a third of the
            samples each, so it is rather too wide than too narrow.

    Raises:
        PredictionsError: no resample leaves samples on which the metric is defined.
    """
    drawn = bootstrap_weights(predictions.n_samples, n_boot, seed, groups)
    left_out = drawn == 0
    usable = left_out.any(axis=0)
    inside, outside = _both_scores(predictions, metric, drawn[:, usable], left_out[:, usable])
    inside = np.where(np.isnan(inside), -metric.sign * np.inf, inside)
    choice = (metric.sign * inside).argmax(axis=0)
    honest = outside[choice, np.arange(outside.shape[1])]
    defined = ~np.isnan(honest)
    if not defined.any():
        raise PredictionsError(
            f"{metric.name}: undefined on the samples left out of each of {n_boot} resamples of "
            f"{predictions.n_samples}; the correction needs more samples"
        )
    scores = np.array([metric(predictions.labels, slab) for slab in predictions.proba])
    best = int((metric.sign * scores).argmax())
    estimate = float(honest[defined].mean())
    low, high = interval(honest[defined], level)
    counts = np.bincount(choice[defined], minlength=len(scores)) / defined.sum()
    return BiasCorrected(
        winner=predictions.members[best],
        naive=float(scores[best]),
        estimate=estimate,
        low=low,
        high=high,
        bias=float(metric.improvement(float(scores[best]), estimate)),
        chosen={
            name: float(share) for name, share in zip(predictions.members, counts, strict=True) if share > 0
        },
    )


def _both_scores(
    predictions: Predictions, metric: Metric, drawn: NDArray[Any], left_out: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """Scores on what was drawn and on what was not, each (members, resamples)."""
    if metric.per_row is None:
        return bootstrap_scores(predictions, metric, drawn), bootstrap_scores(predictions, metric, left_out)
    rows = np.stack([metric.per_row(predictions.labels, slab) for slab in predictions.proba])
    return weighted_means(rows, drawn), weighted_means(rows, left_out)
