"""Does an ensemble only remember? Better on the rows it was fitted to, but not on the others."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import PredictionsError
from ..metrics import Metric
from ..predictions import Predictions
from .cross_fit import CrossFit
from .significance import ROUNDING


@dataclass(frozen=True)
class Overfitting:
    """An ensemble beside a row that learns nothing from labels: a single model, or the mean of them.

    Attributes:
        name: of the ensemble.
        reference: of the other row.
        in_sample_gain: improvement on the reference by the rows that the ensemble was fitted to; positive is
            better, whatever the metric's direction.
        cross_fitted_gain: improvement by the rows that it was not fitted to.
        overfits: whether the first is a gain and the second is none.
        sentence: what to tell the reader.
    """

    name: str
    reference: str
    in_sample_gain: float
    cross_fitted_gain: float
    overfits: bool
    sentence: str


def overfitting(fit: CrossFit, reference: Predictions, metric: Metric) -> Overfitting:
    """Compares the in-sample and the cross-fitted score of an ensemble with a reference.

    The reference has one score only: its out-of-fold rows are what it says of images that it has not learned
    from, and it has fitted nothing to them. Where there is a gain in sample and none in cross-fitting, the
    reference is to be used: the verdict, which sees cross-fitted scores alone, falls back to it by itself.

    Args:
        fit: the ensemble.
        reference: one member over the same rows: the best single model, or the mean ensemble.
        metric: as the ensemble was scored with.

    Raises:
        PredictionsError: the reference has several members, or other rows.
    """
    if reference.n_members != 1:
        raise PredictionsError(
            f"reference: has {reference.n_members} members; expected one, as Predictions.select gives"
        )
    if list(reference.sample_ids) != list(fit.predictions.sample_ids):
        raise PredictionsError(
            f"reference: {reference.members[0]!r} is over other rows than {fit.name!r}; give a member of the "
            "predictions that it was fitted on"
        )
    name = reference.members[0]
    score = metric(reference.labels, reference.proba[0])
    in_sample = metric.improvement(fit.in_sample, score)
    honest = metric.improvement(fit.score, score)
    overfits = in_sample > ROUNDING and honest <= ROUNDING
    return Overfitting(
        name=fit.name,
        reference=name,
        in_sample_gain=in_sample,
        cross_fitted_gain=honest,
        overfits=overfits,
        sentence=_sentence(fit.name, name, metric.title, in_sample, honest, overfits),
    )


def _sentence(name: str, reference: str, metric: str, in_sample: float, honest: float, overfits: bool) -> str:
    if overfits:
        return (
            f"{name} overfits: on the rows it was fitted to, its {metric} is better than that of {reference} by "
            f"{in_sample:.4f}; on rows it was not fitted to, it is "
            + ("the same" if abs(honest) < 5e-5 else f"worse by {-honest:.4f}")
            + f". Use {reference}."
        )
    if honest > ROUNDING:
        return (
            f"{name} holds: its {metric} is better than that of {reference} by {honest:.4f} on rows it was not "
            f"fitted to, and by {in_sample:.4f} on those it was."
        )
    return f"{name} gains nothing on {reference}, neither on the rows it was fitted to nor on others."
