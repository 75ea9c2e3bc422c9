"""The one honest scorer of a combiner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..combiners import Combiner
from ..errors import PredictionsError
from ..metrics import Metric
from ..predictions import Predictions


@dataclass(frozen=True, eq=False)
class CrossFit:
    """A combiner, scored honestly.

    Attributes:
        name: of the ensemble; the one member of `predictions`.
        predictions: out-of-fold rows, each predicted by a combiner fitted on the other folds only.
        in_sample: score on all rows of the combiner fitted on all rows.
        score: score of `predictions`: the one to report.
        optimism: how much the in-sample score flatters; positive when it does, whatever the metric's
            direction.
        combiner: fitted on all rows: what is exported.
    """

    name: str
    predictions: Predictions
    in_sample: float
    score: float
    optimism: float
    combiner: Combiner


def require_folds(predictions: Predictions) -> None:
    """Refuses predictions that cannot be cross-fitted.

    Raises:
        PredictionsError: fewer than two folds.
    """
    if len(predictions.folds) < 2:
        raise PredictionsError(
            f"fold: cross-fitting needs out-of-fold rows of at least two folds; found folds "
            f"{predictions.folds} on the {predictions.split} split"
        )


def cross_fit(
    combiner: Combiner,
    predictions: Predictions,
    metric: Metric,
    name: str | None = None,
    report: Callable[[int, int], None] | None = None,
) -> CrossFit:
    """Scores a combiner on rows it was not fitted on, fold by fold.

    For each fold, a clone is fitted on the rows of all other folds and predicts this fold's rows. No label of
    a row takes part in its own prediction through the combiner.

    What remains: a base model that predicts fold A was trained on the labels of fold B, so the rows the
    combiner learns from are not quite independent of the labels it is judged on. Only nested training,
    at k times the price, would remove it.

    Args:
        combiner: its hyperparameters count; it is neither fitted nor changed.
        predictions: out-of-fold rows of two folds or more.
        metric: of `in_sample`, `score` and `optimism`.
        name: of the ensemble; defaults to the combiner's label.
        report: is told after each fit how many are done, and of how many.

    Raises:
        PredictionsError: fewer than two folds.
    """
    require_folds(predictions)
    blank = type(combiner)(**(combiner.get_params() | {"label": name or combiner.label}))
    proba = np.empty(predictions.proba.shape[1:], np.float32)
    n_fits = len(predictions.folds) + 1
    for done, fold in enumerate(predictions.folds, 1):
        held_out = predictions.fold == fold
        fitted = blank.clone().fit(predictions.rows(~held_out))
        proba[held_out] = fitted.predict(predictions.rows(held_out)).proba[0]
        if report is not None:
            report(done, n_fits)
    final = blank.clone().fit(predictions)
    honest = predictions.with_proba(proba, [blank.label])
    score = metric(honest.labels, proba)
    in_sample = metric(honest.labels, final.predict(predictions).proba[0])
    if report is not None:
        report(n_fits, n_fits)
    return CrossFit(
        name=blank.label,
        predictions=honest,
        in_sample=in_sample,
        score=score,
        optimism=metric.improvement(in_sample, score),
        combiner=final,
    )
