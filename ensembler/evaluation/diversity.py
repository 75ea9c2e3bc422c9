"""How differently the members err: what an ensemble lives on.

The pairwise measures are those of Kuncheva & Whitaker 2003, "Measures of diversity in classifier ensembles". The
ambiguity decomposition (Krogh & Vedelsby 1995) says what diversity is worth: the loss of an ensemble is the mean loss
of its members less their ambiguity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import PredictionsError
from ..metrics import METRICS, clipped_log, true_class_proba
from ..predictions import Predictions

Floats = NDArray[np.float64]


def disagreement(predictions: Predictions) -> Floats:
    """Share of the rows on which two members choose different classes.

    Returns:
        float64 (members, members) in [0, 1], symmetric, 0 on the diagonal.
    """
    chosen = predictions.proba.argmax(axis=2)
    return np.stack([(chosen != own).mean(axis=1) for own in chosen])


def error_correlation(predictions: Predictions) -> Floats:
    """Correlation of the members' errors (the phi coefficient of "is wrong on this row").

    Returns:
        float64 (members, members) in [-1, 1], symmetric, 1 on the diagonal; 0 between others where one of
        them is always right or always wrong, since nothing varies there.
    """
    wrong = _wrong(predictions)
    wrong -= wrong.mean(axis=1, keepdims=True)
    covariance = wrong @ wrong.T
    spread = np.sqrt(np.diag(covariance))
    scale = np.outer(spread, spread)
    correlation: Floats = np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0)
    np.fill_diagonal(correlation, 1.0)
    return np.clip(correlation, -1.0, 1.0)


def q_statistic(predictions: Predictions) -> Floats:
    """Yule's Q of two members being right: (ad - bc) / (ad + bc) of their two-by-two table.

    1 where neither is right alone, 0 where their errors are independent, -1 where they never agree on being
    right or on being wrong.

    Returns:
        float64 (members, members) in [-1, 1], symmetric, 1 on the diagonal; 0 where both products are 0, which
        says nothing.
    """
    both_wrong, first_wrong, second_wrong, both_right = _tables(predictions)
    same, different = both_right * both_wrong, first_wrong * second_wrong
    q: Floats = np.divide(
        same - different, same + different, out=np.zeros_like(same), where=same + different > 0
    )
    np.fill_diagonal(q, 1.0)
    return q


def double_fault(predictions: Predictions) -> Floats:
    """Share of the rows on which two members are both wrong (Giacinto & Roli 2001).

    Returns:
        float64 (members, members) in [0, 1], symmetric; the diagonal holds each member's error rate.
    """
    return _tables(predictions)[0] / predictions.n_samples


@dataclass(frozen=True)
class Diversity:
    """Means of the pairwise measures over all pairs; None where there is one member only.

    Attributes:
        disagreement: more is more diverse.
        error_correlation: less is more diverse.
        q_statistic: less is more diverse.
        double_fault: less is better: rows that no vote of two can save.
    """

    disagreement: float | None
    error_correlation: float | None
    q_statistic: float | None
    double_fault: float | None


def diversity(predictions: Predictions) -> Diversity:
    """The means of the four pairwise measures."""
    if predictions.n_members < 2:
        return Diversity(None, None, None, None)
    pairs = np.triu_indices(predictions.n_members, k=1)
    measures = (disagreement, error_correlation, q_statistic, double_fault)
    return Diversity(*(float(measure(predictions)[pairs].mean()) for measure in measures))


@dataclass(frozen=True)
class Ambiguity:
    """The loss of an ensemble, taken apart: `ensemble` = `members` - `ambiguity`, exactly.

    Attributes:
        loss: "brier" or "log_loss".
        members: weighted mean of the members' losses.
        ambiguity: what combining them gains, 0 or more.
        ensemble: loss of the combination.
    """

    loss: str
    members: float
    ambiguity: float
    ensemble: float


def ambiguity(
    predictions: Predictions,
    loss: Literal["brier", "log_loss"] = "brier",
    combination: Literal["mean", "geometric"] = "mean",
    weights: ArrayLike | None = None,
) -> Ambiguity:
    """The ambiguity decomposition of an averaging ensemble.

    - Brier score of the mean: ambiguity is the mean squared distance of the members from the ensemble. It does
      not look at labels.
    - Log loss of the geometric mean: ambiguity is the mean Kullback-Leibler divergence of the members from the
      ensemble, -log of what the geometric mean sums to before it is normalised. It does not look at labels
      either (Heskes 1998).
    - Log loss of the mean: what Jensen's inequality leaves over, mean log(ensemble / member) at the label. It is
      never negative, but it does look at labels: diversity in the other classes is worth nothing here.

    Args:
        predictions: the members.
        loss: as the metric of that name.
        combination: of the probabilities; the Brier score knows "mean" only.
        weights: (members,) non-negative, not all 0; equal by default.

    Raises:
        PredictionsError: an unknown loss or combination, or weights that are none.
    """
    share = _shares(predictions, weights)
    labels, proba = predictions.labels, predictions.proba
    if loss == "brier" and combination == "mean":
        rows = METRICS["brier"].per_row
        mean = np.tensordot(share, proba.astype(np.float64), axes=1)
        halved = 2 if predictions.n_classes == 2 else 1  # as the metric is
        apart = [((slab - mean) ** 2).sum(axis=1).mean() / halved for slab in proba]
        assert rows is not None
        members = float(share @ [rows(labels, slab).mean() for slab in proba])
        return Ambiguity(loss, members, float(share @ apart), float(rows(labels, mean).mean()))
    if loss != "log_loss" or combination not in ("mean", "geometric"):
        raise PredictionsError(
            f"ambiguity: {loss!r} of the {combination!r} combination; expected 'brier' of the 'mean', or 'log_loss' of "
            "the 'mean' or 'geometric' one"
        )
    members = -float(share @ clipped_log(true_class_proba(labels, proba)).mean(axis=1))
    if combination == "mean":
        ensemble = -float(clipped_log(share @ true_class_proba(labels, proba)).mean())
        return Ambiguity(loss, members, members - ensemble, ensemble)
    logs = np.tensordot(share, clipped_log(proba), axes=1)
    gain = -float(np.log(np.exp(logs).sum(axis=1)).mean())
    return Ambiguity(loss, members, gain, members - gain)


def _shares(predictions: Predictions, weights: ArrayLike | None) -> Floats:
    values = np.ones(predictions.n_members) if weights is None else np.asarray(weights, np.float64)
    if values.shape != (predictions.n_members,) or not (values >= 0).all() or not values.sum() > 0:
        raise PredictionsError(
            f"weights: {values.tolist()}; expected {predictions.n_members} non-negative numbers, not all 0"
        )
    return np.asarray(values / values.sum())


def _wrong(predictions: Predictions) -> Floats:
    return np.asarray(predictions.proba.argmax(axis=2) != predictions.labels, np.float64)


def _tables(predictions: Predictions) -> tuple[Floats, Floats, Floats, Floats]:
    """Counts for every pair: both wrong, only the first wrong, only the second wrong, both right."""
    wrong = _wrong(predictions)
    right = 1 - wrong
    return wrong @ wrong.T, wrong @ right.T, right @ wrong.T, right @ right.T
