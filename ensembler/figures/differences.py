"""What rows gain on one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from numpy.typing import ArrayLike

from ..metrics import Metric
from ..predictions import Predictions
from .style import PALETTE, REFERENCE, categories, named, text, title

if TYPE_CHECKING:
    import plotly.graph_objects as go


def difference_frame(
    predictions: Predictions,
    metric: Metric,
    reference: str,
    groups: ArrayLike | None = None,
    *,
    n_boot: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """What each member gains on one of them over the same rows; resampled as on the leaderboard.

    Columns: name, reference, metric, score, delta, low, high (95 % interval of `delta`, positive is better),
    p_value (Holm-corrected for the rows of this frame).

    Args:
        predictions: of the reference and at least one more member.
        metric: that compares them.
        reference: the member that the others are held against.
        groups: (samples,), rows of one group are resampled together.
        n_boot: resamples.
        seed: of the resamples.
    """
    from ..evaluation.paired import resample  # brings scipy, which drawing does not need

    resampled = resample(predictions, metric, groups=groups, n_boot=n_boot, seed=seed)
    scores = dict(zip(resampled.names, resampled.scores, strict=True))
    columns = ["name", "reference", "metric", "score", "delta", "low", "high", "p_value"]
    return pd.DataFrame(
        [
            (d.first, reference, metric.name, scores[d.first], d.delta, d.low, d.high, d.corrected)
            for d in resampled.against(reference)
        ],
        columns=columns,
    )


def difference_figure(frame: pd.DataFrame) -> go.Figure:
    """Gains with 95 % interval bars; a bar that reaches the line at zero leaves open that there is no gain."""
    import plotly.graph_objects as go

    figure = go.Figure()
    names = [text(n) for n in frame["name"]]
    figure.add_scatter(
        x=frame["delta"],
        y=names,
        mode="markers",
        marker={"color": PALETTE[0], "size": 10},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": frame["high"] - frame["delta"],
            "arrayminus": frame["delta"] - frame["low"],
        },
        hovertemplate="%{y}: %{x:+.4f}<extra></extra>",
    )
    figure.add_vline(0, line=REFERENCE)
    categories(figure, y=names[::-1])
    metric = title(frame["metric"].iloc[0]) if len(frame) else "Score"
    reference = text(frame["reference"].iloc[0]) if len(frame) else "the reference"
    return named(
        figure, f"Gain on {reference}", f"Gain in {metric[:1].lower()}{metric[1:]}, right is better", "Model"
    )
