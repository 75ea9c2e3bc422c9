"""What an ensemble is made of: how differently its members err, what each adds, how much each counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..evaluation.diversity import disagreement, double_fault, error_correlation
from ..metrics import Metric
from ..predictions import Predictions
from .style import PALETTE, REFERENCE, SYMBOLS, categories, named, text, title

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from ..evaluation.contribution import Contributions

#: What two members are compared by: column of `diversity_frame` -> name, least and greatest value that is coloured.
MEASURES = {
    "disagreement": ("Choose different classes", 0.0, None),
    "both_wrong": ("Both wrong", 0.0, None),
    "error_correlation": ("Correlation of errors", -1.0, 1.0),
}

#: Most members whose numbers are written into the cells.
_WRITTEN = 8


def diversity_frame(predictions: Predictions) -> pd.DataFrame:
    """How differently every two members err; each pair twice, and each member with itself.

    Columns: first, second, disagreement (share of the rows on which they choose different classes), both_wrong (share
    of the rows), error_correlation (of "is wrong on this row").
    """
    names, n = list(predictions.members), predictions.n_members
    return pd.DataFrame(
        {
            "first": np.repeat(names, n),
            "second": names * n,
            "disagreement": disagreement(predictions).ravel(),
            "both_wrong": double_fault(predictions).ravel(),
            "error_correlation": error_correlation(predictions).ravel(),
        }
    )


def diversity_figure(
    frame: pd.DataFrame, measure: str = "disagreement", numbers: Mapping[str, int] | None = None
) -> go.Figure:
    """A heat map of all pairs; on the axes members are numbered, and named under the pointer.

    Args:
        frame: see `diversity_frame`.
        measure: a key of `MEASURES`.
        numbers: of the members; by default those of their order in the frame.
    """
    import plotly.graph_objects as go

    names = list(dict.fromkeys(frame["first"]))
    size = len(names)
    values = frame[measure].to_numpy(np.float64).reshape(size, size).copy()
    if measure != "both_wrong":
        np.fill_diagonal(values, np.nan)  # a member with itself says nothing, and would take the colours
    label, low, high = MEASURES[measure]
    shares = measure != "error_correlation"
    pairs = [[f"{text(a)}<br>{text(b)}" for b in names] for a in names]
    written = np.array(
        [["" if np.isnan(v) else f"{v:.0%}" if shares else f"{v:.2f}" for v in row] for row in values]
    )
    axis = [str(numbers[name]) for name in names] if numbers else [str(i + 1) for i in range(size)]
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=axis,
            y=axis,
            zmin=low,
            zmax=high,
            text=written,
            texttemplate="%{text}" if size <= _WRITTEN else None,
            customdata=pairs,
            hovertemplate="%{customdata}<br>%{text}<extra></extra>",
            # From blue over white to orange where there is a middle: told apart with every colour blindness.
            colorscale=["#FFFFFF", PALETTE[5]] if shares else [PALETTE[5], "#FFFFFF", PALETTE[4]],
            colorbar={"title": {"text": ""}, "tickformat": ".0%" if shares else ".1f", "thickness": 12},
            textfont={"color": "#111111"},
            hoverongaps=False,
        )
    )
    categories(figure, x=axis, y=axis[::-1])
    return named(figure, label, "Member", "Member").update_layout(height=180 + min(24 * size, 420))


def contribution_frame(found: Contributions, metric: Metric) -> pd.DataFrame:
    """What each member adds to the mean of all, best first; positive is an improvement whatever the metric's direction.

    Columns: member, metric, alone (on knowing nothing), leave_one_out (of all on all but it), shapley (mean gain when
    it joins, over orders), low, high (95 % interval of `shapley` from the orders drawn).
    """
    frame = pd.DataFrame([vars(member) for member in found.members]).assign(metric=metric.name)
    frame["low"] = frame["shapley"] - 1.96 * frame["error"]
    frame["high"] = frame["shapley"] + 1.96 * frame["error"]
    frame = frame.sort_values("shapley", ascending=False, kind="stable").reset_index(drop=True)
    return frame[["member", "metric", "alone", "leave_one_out", "shapley", "low", "high"]]


def contribution_figure(frame: pd.DataFrame) -> go.Figure:
    """Two marks a member: its average gain over all orders with an interval, and what is lost without it."""
    import plotly.graph_objects as go

    names = [text(member) for member in frame["member"]]
    figure = go.Figure()
    figure.add_scatter(
        name="Average gain when it joins",
        x=frame["shapley"],
        y=names,
        mode="markers",
        marker={"color": PALETTE[0], "symbol": SYMBOLS[0], "size": 10},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": frame["high"] - frame["shapley"],
            "arrayminus": frame["shapley"] - frame["low"],
        },
        hovertemplate="%{y}: %{x:+.4f}",
    )
    figure.add_scatter(
        name="Lost without it",
        x=frame["leave_one_out"],
        y=names,
        mode="markers",
        marker={"color": PALETTE[1], "symbol": SYMBOLS[1], "size": 9},
        hovertemplate="%{y}: %{x:+.4f}",
    )
    figure.add_vline(0, line=REFERENCE)
    categories(figure, y=names[::-1])
    metric = title(frame["metric"].iloc[0]) if len(frame) else "Score"
    return named(
        figure,
        "What each member adds",
        f"Gain in {metric[:1].lower()}{metric[1:]}, right is better",
        "Member",
    )


def weights_frame(weights: Mapping[str, float]) -> pd.DataFrame:
    """The members of a weighted mean, heaviest first. Columns: member, weight."""
    frame = pd.DataFrame({"member": list(weights), "weight": list(weights.values())})
    return frame.sort_values("weight", ascending=False, kind="stable").reset_index(drop=True)


def weights_figure(frame: pd.DataFrame) -> go.Figure:
    """A bar a member."""
    import plotly.graph_objects as go

    names = [text(member) for member in frame["member"]]
    figure = go.Figure(
        go.Bar(
            x=frame["weight"],
            y=names,
            orientation="h",
            marker={"color": PALETTE[5]},
            width=0.35,
            text=[f"{weight:.0%}" for weight in frame["weight"]],
            textposition="auto",
            hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        )
    )
    categories(figure, y=names[::-1])
    figure.update_xaxes(tickformat=".0%", rangemode="tozero")
    return named(figure, "Weights", "Weight", "Member")
