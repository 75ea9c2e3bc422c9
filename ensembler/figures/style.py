"""What all figures share: colours and marks that everybody can tell apart, names that stay text, axes."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..metrics import get_metric

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: Okabe & Ito (2008): told apart with every common colour blindness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
KIND_COLOURS = {"single": PALETTE[0], "ensemble": PALETTE[1]}
#: Told apart without colour.
SYMBOLS = ("circle", "diamond", "square", "cross", "triangle-up", "x", "star")
#: Of lines, told apart without colour.
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
KIND_SYMBOLS = {"single": "circle", "ensemble": "diamond"}
#: A line that others are held against.
REFERENCE = {"color": "#888888", "dash": "dot", "width": 1}


def text(value: object) -> str:
    """A name, safe to show: quotes stay, tags become text."""
    return html.escape(str(value), quote=False)


def title(metric: str) -> str:
    """A metric's name, as a label begins with it."""
    words = get_metric(metric).title
    return words[:1].upper() + words[1:]


def categories(figure: go.Figure, **axes: Sequence[str]) -> None:
    """Axes of names in this order; without the type, names such as "0" and "1" would be read as numbers."""
    for axis, names in axes.items():
        setting = {"type": "category", "categoryorder": "array", "categoryarray": list(names)}
        figure.update_layout({f"{axis}axis": setting})


def named(figure: go.Figure, title: str, x: str, y: str) -> Any:
    """The figure with a title, named axes, and the look that all share."""
    return figure.update_layout(
        title={"text": title},
        xaxis={"title": {"text": x}},
        yaxis={"title": {"text": y}, "automargin": True},
        template="plotly_white",
    )
