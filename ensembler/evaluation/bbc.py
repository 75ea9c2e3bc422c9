"""How good is the winner really? The best of many rows is partly the luckiest of them.

The whole selection is bootstrapped, and two estimates are made of it.

- Left out: the best row of a bootstrap sample is scored on the samples that were not drawn (BBC-CV: Tsamardinos,
  Greasidou & Borboudakis 2018, "Bootstrapping the out-of-sample predictions for efficient and accurate cross-
  validation"). It is right where all rows are equally good. Where they differ it is too bad: a choice among bootstrap
  samples is as uncertain as one from half of the samples, and makes mistakes that the choice from all does not.
- Optimism: the naive score less what the best row of a bootstrap sample scores there beyond its score on all samples
  (Efron 1983). It is right where rows differ. Where they are equally good it is too good by a third: their scores
  differ by luck, and the bootstrap takes that for a difference.

The mean of the two is nearer to the truth than either, in bias and in error; `reports/statistics.md` has the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
        estimate: the corrected score: the mean of `left_out` and `less_optimism`.
        low: lower end of the interval of `estimate`.
        high: upper end.
        bias: how much `naive` flatters; positive when it does, whatever the metric's direction.
        left_out: the estimate of BBC-CV.
        less_optimism: the naive score less its optimism.
        chosen: how often each row won, as a share of the resamples; rows that never did are left out.
    """

    winner: str
    naive: float
    estimate: float
    low: float
    high: float
    bias: float
    left_out: float
    less_optimism: float
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
    """Repeats the choice of the best row on resamples, and scores what is chosen.

    Args:
        predictions: every row that took part in the selection: single models, and ensembles as cross-fitted,
            since an ensemble's in-sample predictions would win and flatter again.
        metric: of the selection and of the scores.
        groups: (samples,), of any type; samples of one group are drawn together.
        n_boot: resamples.
        seed: of the draws.
        level: of the interval: that of the scores on what was left out, a third of the samples each, moved to
            `estimate`. It is rather too wide than too narrow.

    Raises:
        PredictionsError: no resample leaves samples on which the metric is defined.
    """
    drawn = bootstrap_weights(predictions.n_samples, n_boot, seed, groups)
    drawn = drawn[:, (drawn == 0).any(axis=0)]
    inside, outside = _both_scores(predictions, metric, drawn)
    each = np.arange(drawn.shape[1])
    choice = np.where(np.isnan(inside), -np.inf, metric.sign * inside).argmax(axis=0)
    inside, outside = inside[choice, each], outside[choice, each]
    defined = ~np.isnan(inside) & ~np.isnan(outside)
    if not defined.any():
        raise PredictionsError(
            f"{metric.name}: undefined on the samples left out of each of {n_boot} resamples of "
            f"{predictions.n_samples}; the correction needs more samples"
        )
    inside, outside, choice = inside[defined], outside[defined], choice[defined]
    scores = np.array([metric(predictions.labels, slab) for slab in predictions.proba])
    best = int((metric.sign * scores).argmax())
    naive, left_out = float(scores[best]), float(outside.mean())
    less_optimism = naive - float((inside - scores[choice]).mean())
    estimate = (left_out + less_optimism) / 2
    low, high = (end + estimate - left_out for end in interval(outside, level))
    counts = np.bincount(choice, minlength=len(scores)) / len(choice)
    return BiasCorrected(
        winner=predictions.members[best],
        naive=naive,
        estimate=estimate,
        low=max(low, metric.low),
        high=min(high, metric.high),
        bias=metric.improvement(naive, estimate),
        left_out=left_out,
        less_optimism=less_optimism,
        chosen={
            name: float(share) for name, share in zip(predictions.members, counts, strict=True) if share > 0
        },
    )


def _both_scores(predictions: Predictions, metric: Metric, drawn: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Scores on what was drawn and on what was not, each (members, resamples)."""
    left_out = drawn == 0
    if metric.per_row is None:
        return bootstrap_scores(predictions, metric, drawn), bootstrap_scores(predictions, metric, left_out)
    rows = np.stack([metric.per_row(predictions.labels, slab) for slab in predictions.proba])
    return weighted_means(rows, drawn), weighted_means(rows, left_out)
