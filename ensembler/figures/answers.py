"""What a model says of one image: its most probable classes, and what each of its members gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .style import PALETTE, SYMBOLS, categories, named, text

if TYPE_CHECKING:
    import plotly.graph_objects as go


def answer_frame(
    classes: Sequence[str],
    proba: Sequence[float],
    members: Sequence[tuple[str, Sequence[float]]] = (),
    top: int = 5,
) -> pd.DataFrame:
    """The most probable classes of one image, best first; equal ones in the order of `classes`.

    Columns: member (missing where it is the answer itself), label, probability. The rows of the answer come first.

    Args:
        classes: in the order of the probabilities.
        proba: of the answer, one a class.
        members: name and probabilities of each.
        top: how many classes.
    """
    best = np.argsort(-np.asarray(proba), kind="stable")[:top]
    labels = [classes[i] for i in best]
    parts = [
        pd.DataFrame({"member": name, "label": labels, "probability": np.asarray(vote)[best]})
        for name, vote in ((None, proba), *members)
    ]
    return pd.concat(parts, ignore_index=True).astype({"member": object})


def member_answers_frame(
    classes: Sequence[str], proba: Sequence[float], members: Sequence[tuple[str, Sequence[float]]]
) -> pd.DataFrame:
    """What each member would answer by itself.

    Columns: member, label (its most probable class), probability (that it gives this class), agrees (whether that is
    the answer of all together).
    """
    answer = int(np.argmax(proba))
    own = [int(np.argmax(vote)) for _, vote in members]
    return pd.DataFrame(
        {
            "member": [name for name, _ in members],
            "label": [classes[i] for i in own],
            "probability": [float(np.max(vote)) for _, vote in members],
            "agrees": [i == answer for i in own],
        }
    )


def answer_figure(frame: pd.DataFrame) -> go.Figure:
    """A bar a class, and on it a mark a member."""
    import plotly.graph_objects as go

    alone = frame["member"].isna()
    answer = frame[alone]
    labels = [text(label) for label in answer["label"]]
    figure = go.Figure(
        go.Bar(
            name="Answer",
            x=answer["probability"],
            y=labels,
            orientation="h",
            marker={"color": PALETTE[5]},
            hovertemplate="%{y}: %{x:.1%}",
        )
    )
    others = PALETTE[:5]
    for i, (member, part) in enumerate(frame[~alone].groupby("member", sort=False)):
        figure.add_scatter(
            name=text(member),
            x=part["probability"],
            y=[text(label) for label in part["label"]],
            mode="markers",
            marker={
                "color": others[i % len(others)],
                "symbol": SYMBOLS[i % len(SYMBOLS)],
                "size": 10,
                "line": {"width": 1, "color": "#FFFFFF"},
            },
            hovertemplate="%{y}: %{x:.1%}",
        )
    categories(figure, y=labels[::-1])
    figure.update_xaxes(tickformat=".0%", range=[0, 1.03])
    return named(figure, "Answer", "Probability", "Class").update_layout(height=150 + 44 * len(labels))
