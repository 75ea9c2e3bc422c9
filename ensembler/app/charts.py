"""How a figure is shown on a page: in the page's colours, at any width, under the page's own heading."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import streamlit as st

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: Pixels a row of a figure with names on its vertical axis.
ROW_HEIGHT = 44

_CONFIG = {"displaylogo": False, "modeBarButtons": [["toImage"]], "scrollZoom": False}


def draw(figure: go.Figure, key: str, description: str, on_select: Callable[[], None] | None = None) -> None:
    """Draws a figure of `ensembler.figures`.

    Args:
        figure: it is changed: the title goes, the page has one.
        key: unique on the page.
        description: for those who cannot see it.
        on_select: called when a reader has clicked a point, which `st.session_state[key]` then holds.
    """
    legend = sum(trace.showlegend is not False for trace in figure.data)
    figure.update_layout(
        title={"text": ""},
        margin={"l": 8, "r": 8, "t": 40 if legend > 1 else 8, "b": 8},
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "xanchor": "left"},
        dragmode=False,
    )
    if on_select is None:
        st.plotly_chart(figure, key=key, config=_CONFIG, alt=description)
    else:
        st.plotly_chart(
            figure, key=key, config=_CONFIG, alt=description, on_select=on_select, selection_mode="points"
        )


def names_inside(figure: go.Figure, n_rows: int, low: float, high: float) -> go.Figure:
    """Long names move into the plot, above their marks: on a phone an axis of names would leave it no room.

    Args:
        figure: with names on its vertical axis; it is changed.
        n_rows: how many names.
        low, high: least and greatest value that is drawn; left to itself, Plotly makes room for the names.
    """
    figure.update_yaxes(ticklabelposition="inside top", ticklabelshift=-9, ticks="", automargin=False)
    figure.update_yaxes(title={"text": ""}, range=[-0.5, n_rows - 0.2])
    if figure.layout.xaxis.type == "log":
        low, high = math.log10(low), math.log10(high)
    room = 0.04 * (high - low) or 0.01
    figure.update_xaxes(range=[low - room, high + room])
    return figure.update_layout(height=120 + ROW_HEIGHT * n_rows)
