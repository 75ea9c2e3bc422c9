"""What a bundle was found to be, batch by batch: the history that `ensembler monitor` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from .style import DASHES, PALETTE, REFERENCE, SYMBOLS, named, text

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: P-values are drawn no smaller than this.
FLOOR = 1e-4


def monitoring_frame(history: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Every test of every batch, oldest first.

    Columns: batch (from 1), time, images, test, p_value (corrected), alarm, threshold.

    Args:
        history: lines of `history.jsonl`, as `bundle.monitor.history.read_history` gives them.
    """
    rows = [
        {
            "batch": number,
            "time": record.get("time", ""),
            "images": record.get("images", 0),
            "test": test["name"],
            "p_value": test["adjusted"],
            "alarm": test["alarm"],
            "threshold": record.get("threshold"),
        }
        for number, record in enumerate(history, 1)
        for test in record["tests"]
    ]
    columns = ["batch", "time", "images", "test", "p_value", "alarm", "threshold"]
    return pd.DataFrame(rows, columns=columns)


def monitoring_figure(frame: pd.DataFrame) -> go.Figure:
    """Corrected p-values over the batches, on a logarithmic axis; below the dotted line there is an alarm."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for i, (test, part) in enumerate(frame.groupby("test", sort=False)):
        figure.add_scatter(
            name=text(test),
            x=part["batch"],
            y=part["p_value"].clip(lower=FLOOR),
            mode="lines+markers",
            line={"color": PALETTE[i % len(PALETTE)], "dash": DASHES[i % len(DASHES)]},
            marker={
                "symbol": SYMBOLS[i % len(SYMBOLS)],
                "size": [13 if alarm else 7 for alarm in part["alarm"]],
            },
            customdata=part[["time", "images", "p_value"]],
            hovertemplate="%{customdata[0]}: %{customdata[1]} images, p %{customdata[2]:.4f}",
        )
    if len(frame):
        figure.add_hline(y=float(frame["threshold"].iloc[-1]), line=REFERENCE)
    figure.update_yaxes(type="log", range=[-4.2, 0.1])
    return named(figure, "Batches that were monitored", "Batch", "Corrected p-value")
