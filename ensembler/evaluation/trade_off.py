"""What a cascade saves, and what that costs in accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..combiners.cascade import Cascade
from ..predictions import Predictions
from .cross_fit import require_folds

#: Shares of accuracy that may be lost, for a curve.
MAX_LOSSES = (0.0, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05)


@dataclass(frozen=True)
class TradeOff:
    """One point of the curve.

    Attributes:
        max_loss: share of accuracy that the cascade was allowed to lose on the rows it was fitted to.
        accuracy: of rows of other folds, in [0, 1].
        asked: members that such a row asked on average, 1 or more.
        latency_ms: milliseconds of those; None where the members' are not known.
    """

    max_loss: float
    accuracy: float
    asked: float
    latency_ms: float | None


def trade_off(
    cascade: Cascade, predictions: Predictions, max_losses: Sequence[float] = MAX_LOSSES
) -> list[TradeOff]:
    """The curve of a cascade and, last, of all its members together; cross-fitted as `cross_fit` does.

    Args:
        cascade: its hyperparameters count, all but `max_loss`.
        predictions: out-of-fold rows of two folds or more.
        max_losses: a point each.

    Raises:
        PredictionsError: fewer than two folds.
    """
    require_folds(predictions)
    labels = predictions.labels
    points = []
    for max_loss in max_losses:
        blank = Cascade(**(cascade.get_params() | {"max_loss": max_loss}))
        right, asked, spent = np.empty(len(labels)), np.empty(len(labels)), np.zeros(len(labels))
        for fold in predictions.folds:
            rows = predictions.fold == fold
            fitted = blank.clone().fit(predictions.rows(~rows))
            unseen = predictions.rows(rows)
            right[rows] = fitted.predict(unseen).proba[0].argmax(axis=1) == labels[rows]
            asked[rows] = fitted.stages_(unseen)
            if cascade.costs:
                prices = np.cumsum([cascade.costs[fitted.members_[m]] for m in fitted.order_])
                spent[rows] = prices[asked[rows].astype(np.intp) - 1]
        latency = float(spent.mean()) if cascade.costs else None
        points.append(TradeOff(float(max_loss), float(right.mean()), float(asked.mean()), latency))
    everything = predictions.proba.mean(axis=0, dtype=np.float64).argmax(axis=1) == labels
    total = sum(cascade.costs[name] for name in predictions.members) if cascade.costs else None
    return [*points, TradeOff(0.0, float(everything.mean()), float(predictions.n_members), total)]
