"""A sweep while it runs: scores as they come, and the load of the machine."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

from ..metrics import get_metric
from .style import PALETTE, SYMBOLS, named, text, title

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: Most trainings that are drawn beside those that run: more would hide each other.
DRAWN = 30

_ENDED = "#8a8a8a"


def live_curves_frame(history: pd.DataFrame, metric: str, most: int = DRAWN) -> pd.DataFrame:
    """The trainings to draw, each epoch a row.

    Columns: trial, epoch, score, role. `role` is "running", "best" (the best score of those that have ended) or
    "ended", of which the last `most` are kept. Those that run come last, so that they are drawn on top.

    Args:
        history: columns trial (unique), epoch, score, running; trials in the order in which they began.
        metric: direction of the scores.
        most: how many that have ended.
    """
    known = history[history["score"].notna()].astype({"score": "float64"})
    order = list(dict.fromkeys(known["trial"]))
    running = set(known.loc[known["running"].astype(bool), "trial"])
    ended = [trial for trial in order if trial not in running]
    roles = dict.fromkeys(ended[-most:] if most else [], "ended")
    past = known[known["trial"].isin(ended)]
    if len(past):
        scores = past["score"].to_numpy()
        best = int(scores.argmax() if get_metric(metric).greater_is_better else scores.argmin())
        roles[str(past["trial"].to_numpy()[best])] = "best"
    roles |= {trial: "running" for trial in order if trial in running}
    rank = {trial: i for i, trial in enumerate(roles)}
    frame = known[known["trial"].isin(roles)].assign(role=lambda f: f["trial"].map(roles))
    frame = frame.assign(rank=frame["trial"].map(rank)).sort_values(["rank", "epoch"], kind="stable")
    return frame[["trial", "epoch", "score", "role"]].reset_index(drop=True)


def live_curves_figure(frame: pd.DataFrame, metric: str) -> go.Figure:
    """Score over epochs: those that run in colour with marks, the best of the others dashed, the rest thin and grey."""
    import plotly.graph_objects as go

    figure = go.Figure()
    coloured = 0
    for role, trial in dict.fromkeys(zip(frame["role"], frame["trial"], strict=True)):
        part = frame[frame["trial"] == trial]
        style = {"mode": "lines", "line": {"color": _ENDED, "width": 1}, "opacity": 0.5, "showlegend": False}
        label = text(trial)
        if role == "best":
            style = {"mode": "lines", "line": {"color": _ENDED, "width": 3, "dash": "dash"}}
            label = f"best so far: {label}"
        elif role == "running":
            colour, symbol = PALETTE[coloured % (len(PALETTE) - 1)], SYMBOLS[coloured % len(SYMBOLS)]
            style = {"mode": "lines+markers", "line": {"color": colour, "width": 2}}
            style |= {"marker": {"color": colour, "symbol": symbol, "size": 8}}
            coloured += 1
        figure.add_scatter(
            name=label,
            x=part["epoch"],
            y=part["score"],
            hovertemplate="epoch %{x}: %{y:.4f}<extra>" + text(trial).replace("%{", "% {") + "</extra>",
            **style,
        )
    epochs = int(frame["epoch"].max()) if len(frame) else 1
    figure.update_xaxes(rangemode="tozero", dtick=max(1, math.ceil(epochs / 12)))  # no half epochs
    return named(figure, "Trainings as they go", "Epoch", f"{title(metric)} on monitor images")


def load_figure(frame: pd.DataFrame) -> go.Figure:
    """CPU and memory of the machine over time, in per cent.

    Args:
        frame: columns time (datetime), cpu, memory.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    for column, label, colour, dash in (
        ("cpu", "CPU", PALETTE[0], "solid"),
        ("memory", "Memory", PALETTE[1], "dash"),
    ):
        figure.add_scatter(
            name=label,
            x=frame["time"],
            y=frame[column],
            mode="lines",
            line={"color": colour, "dash": dash, "width": 2},
            hovertemplate="%{y:.0f} %",
        )
    figure.update_yaxes(range=[0, 105], ticksuffix=" %")
    return named(figure, "Load of the machine", "Time", "In use")
