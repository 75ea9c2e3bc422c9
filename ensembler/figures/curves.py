"""Loss over epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from .style import PALETTE, SYMBOLS, named, text

if TYPE_CHECKING:
    import plotly.graph_objects as go


def learning_curves_frame(history: pd.DataFrame) -> pd.DataFrame:
    """The epochs of every candidate, averaged over folds.

    Columns: candidate, epoch, folds, best, train_loss, monitor_loss. `folds` counts those that reached the
    epoch: where it falls, folds stopped early and the mean is over the others. `best` counts those whose weights
    are of this epoch, the one of their lowest monitor loss.

    Args:
        history: columns candidate, fold, epoch, train_loss, monitor_loss.
    """
    lowest = history.loc[history.groupby(["candidate", "fold"])["monitor_loss"].idxmin()]
    best = lowest.groupby(["candidate", "epoch"]).size().rename("best")
    frame = history.groupby(["candidate", "epoch"], sort=False, as_index=False).agg(
        folds=("fold", "nunique"), train_loss=("train_loss", "mean"), monitor_loss=("monitor_loss", "mean")
    )
    frame = frame.join(best, on=["candidate", "epoch"]).fillna({"best": 0}).astype({"best": int})
    return frame[["candidate", "epoch", "folds", "best", "train_loss", "monitor_loss"]]


def learning_curves_figure(frame: pd.DataFrame) -> go.Figure:
    """Training loss dashed, monitor loss solid, one colour a candidate; a dot where folds found their best epoch."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for i, (candidate, part) in enumerate(frame.groupby("candidate", sort=False)):
        colour = PALETTE[i % len(PALETTE)]
        for column, dash, kind in (("train_loss", "dash", "training"), ("monitor_loss", "solid", "monitor")):
            figure.add_scatter(
                name=f"{text(candidate)}, {kind}",
                legendgroup=str(candidate),
                x=part["epoch"],
                y=part[column],
                mode="lines",
                line={"color": colour, "dash": dash},
            )
        found = part[part["best"] > 0]
        figure.add_scatter(
            name=f"{text(candidate)}, best epochs",
            legendgroup=str(candidate),
            showlegend=False,
            x=found["epoch"],
            y=found["monitor_loss"],
            mode="markers",
            marker={"color": colour, "size": 5 + 3 * found["best"], "symbol": SYMBOLS[i % len(SYMBOLS)]},
            customdata=found["best"],
            hovertemplate="best epoch of %{customdata} folds<extra></extra>",
        )
    return named(figure, "Learning curves, mean over folds; marks: best epochs", "Epoch", "Loss")
