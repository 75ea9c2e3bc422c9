"""Whether confidences mean what they say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from ..evaluation.calibration import reliability
from ..metrics import ECE_BINS
from ..predictions import Predictions
from .style import PALETTE, REFERENCE, named, text

if TYPE_CHECKING:
    import plotly.graph_objects as go


def reliability_frame(
    predictions: Predictions, members: Sequence[str] | None = None, n_bins: int = ECE_BINS
) -> pd.DataFrame:
    """Confidence against accuracy in bins; empty bins are left out.

    Columns: member, low, high, count, confidence, accuracy.

    Args:
        predictions: any split.
        members: defaults to all.
        n_bins: equal-width bins of confidence.
    """
    parts = []
    for member in members or predictions.members:
        bins = reliability(predictions.labels, predictions.proba[predictions.index(member)], n_bins)
        parts.append(pd.DataFrame({"member": member, **vars(bins)}))
    frame = pd.concat(parts, ignore_index=True)
    return frame[frame["count"] > 0].reset_index(drop=True)


def reliability_figure(frame: pd.DataFrame) -> go.Figure:
    """Reliability curves: on the diagonal a confidence is an accuracy; below it, it is overconfidence."""
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.add_scatter(
        name="Perfectly calibrated", x=[0, 1], y=[0, 1], mode="lines", line=REFERENCE, hoverinfo="skip"
    )
    for i, (member, part) in enumerate(frame.groupby("member", sort=False)):
        figure.add_scatter(
            name=text(member),
            x=part["confidence"],
            y=part["accuracy"],
            mode="lines+markers",
            line={"color": PALETTE[i % len(PALETTE)]},
            customdata=part["count"],
            hovertemplate="confidence %{x:.2f}, accuracy %{y:.2f}, %{customdata} images",
        )
    figure.update_xaxes(range=[0, 1]).update_yaxes(range=[0, 1])
    return named(figure, "Reliability", "Confidence", "Accuracy")


# ---------------------------------------------------------------------- learning curves
