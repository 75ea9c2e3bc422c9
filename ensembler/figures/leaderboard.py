"""The score of every row with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from ..evaluation.leaderboard import Leaderboard
from .style import KIND_COLOURS, KIND_SYMBOLS, categories, named, text, title

if TYPE_CHECKING:
    import plotly.graph_objects as go


def leaderboard_frame(leaderboard: Leaderboard) -> pd.DataFrame:
    """The score of every row with its interval, best first.

    Columns: name, kind, metric, cv, cv_low, cv_high, tied_with_best.
    """
    columns = ["name", "kind", "metric", "cv", "cv_low", "cv_high", "tied_with_best"]
    return leaderboard.frame[columns].reset_index(drop=True)


def leaderboard_figure(frame: pd.DataFrame) -> go.Figure:
    """Points with 95 % interval bars, best on top; single models and ensembles differ in colour and shape."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for kind in dict.fromkeys(frame["kind"]):
        part = frame[frame["kind"] == kind]
        figure.add_scatter(
            name="Single models" if kind == "single" else "Ensembles",
            x=part["cv"],
            y=[text(n) for n in part["name"]],
            mode="markers",
            marker={"color": KIND_COLOURS[kind], "symbol": KIND_SYMBOLS[kind], "size": 10},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": part["cv_high"] - part["cv"],
                "arrayminus": part["cv"] - part["cv_low"],
            },
        )
    metric = title(frame["metric"].iloc[0]) if len(frame) else "Score"
    categories(figure, y=[text(n) for n in frame["name"]][::-1])
    return named(
        figure, "Single models and ensembles", f"{metric}, out-of-fold, with 95 % interval", "Model"
    ).update_layout(height=160 + 28 * len(frame))
