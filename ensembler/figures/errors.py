"""Image by image: what one model has right and another wrong, and who says what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ..predictions import Predictions
from .style import PALETTE, categories, named, text

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: Longest name beside the votes; hovering tells the whole.
LONGEST = 24

#: What became of an image, from the second model to the first.
OUTCOMES = ("both right", "fixed", "broken", "both wrong")


def outcome_frame(predictions: Predictions, first: str, second: str) -> pd.DataFrame:
    """What two members say of every image.

    Columns: row (position), sample_id, label, first, first_confidence, second, second_confidence (the class that
    each finds most probable, and how probable), gain (what the first gives to the true class, less what the second
    does), outcome: "fixed" where the first alone is right, "broken" where the second alone is, else "both right" or
    "both wrong".
    """
    at = np.arange(predictions.n_samples)
    names = np.array(predictions.classes, object)
    columns: dict[str, ArrayLike] = {
        "row": at,
        "sample_id": predictions.sample_ids.astype(object),
        "label": names[predictions.labels],
    }
    right, own = [], []
    for title, member in (("first", first), ("second", second)):
        proba = predictions.proba[predictions.index(member)]
        said = proba.argmax(axis=1)
        columns |= {title: names[said], f"{title}_confidence": proba[at, said].astype(float)}
        right.append(said == predictions.labels)
        own.append(proba[at, predictions.labels].astype(float))
    columns["gain"] = own[0] - own[1]
    columns["outcome"] = np.array(OUTCOMES, object)[2 * ~right[0] + ~right[1]]
    return pd.DataFrame(columns)


def changes_frame(outcomes: pd.DataFrame) -> pd.DataFrame:
    """How many images of each class are fixed and broken, most changes first.

    Columns: label, count, fixed, broken. Classes in which nothing changes are there too.

    Args:
        outcomes: of `outcome_frame`.
    """
    counts = pd.crosstab(outcomes["label"], outcomes["outcome"])
    counts = counts.reindex(columns=list(OUTCOMES), fill_value=0)
    frame = pd.DataFrame(
        {"count": counts.sum(axis=1), "fixed": counts["fixed"], "broken": counts["broken"]}
    ).reset_index()
    changes = frame["fixed"] + frame["broken"]
    return frame.loc[changes.sort_values(ascending=False, kind="stable").index].reset_index(drop=True)


def changes_figure(frame: pd.DataFrame) -> go.Figure:
    """Fixed images of each class to the right, broken ones to the left."""
    import plotly.graph_objects as go

    figure = go.Figure()
    names = [text(label) for label in frame["label"]]
    for title, column, sign, colour in (
        ("Fixed", "fixed", 1, PALETTE[0]),
        ("Broken", "broken", -1, PALETTE[1]),
    ):
        figure.add_bar(
            name=title,
            x=sign * frame[column],
            y=names,
            orientation="h",
            marker={"color": colour},
            text=[str(n) if n else "" for n in frame[column]],
            textposition="auto",
            textangle=0,
            customdata=np.stack([frame[column], frame["count"]], axis=1),
            hovertemplate=f"%{{y}}: %{{customdata[0]}} of %{{customdata[1]}} images {column}<extra></extra>",
        )
    categories(figure, y=names[::-1])
    most = int(max(1, frame[["fixed", "broken"]].to_numpy().max(initial=0)))
    figure.update_xaxes(range=[-1.1 * most, 1.1 * most], showticklabels=False)
    return named(figure, "What is fixed and broken", "Images", "Class").update_layout(
        barmode="overlay", height=140 + 28 * len(frame)
    )


def mistakes_frame(predictions: Predictions, member: str) -> pd.DataFrame:
    """What a member has wrong, the most confident first.

    Columns: row (position), sample_id, label, said, confidence (probability of what it says), own (of the label).
    """
    proba = predictions.proba[predictions.index(member)]
    said = proba.argmax(axis=1)
    wrong = np.flatnonzero(said != predictions.labels)
    sure = proba[wrong, said[wrong]].astype(float)
    order = np.argsort(-sure, kind="stable")
    wrong = wrong[order]
    names = np.array(predictions.classes, object)
    return pd.DataFrame(
        {
            "row": wrong,
            "sample_id": predictions.sample_ids[wrong].astype(object),
            "label": names[predictions.labels[wrong]],
            "said": names[said[wrong]],
            "confidence": sure[order],
            "own": proba[wrong, predictions.labels[wrong]].astype(float),
        }
    )


def votes_frame(predictions: Predictions, rows: Sequence[int]) -> pd.DataFrame:
    """What every member says of some images, an image after the other.

    Columns: row (position), sample_id, label, member, said, confidence (probability of what it says), own (of the
    label), right.
    """
    part = predictions.rows(np.asarray(rows, np.intp))
    names = np.array(predictions.classes, object)
    at = np.arange(part.n_samples)
    said = part.proba.argmax(axis=2)  # (members, rows)
    frames = [
        pd.DataFrame(
            {
                "row": np.asarray(rows, np.intp),
                "sample_id": part.sample_ids.astype(object),
                "label": names[part.labels],
                "member": member,
                "said": names[said[m]],
                "confidence": part.proba[m, at, said[m]].astype(float),
                "own": part.proba[m, at, part.labels].astype(float),
                "right": said[m] == part.labels,
                "order": at,
            }
        )
        for m, member in enumerate(part.members)
    ]
    frame = pd.concat(frames, ignore_index=True).sort_values("order", kind="stable")
    return frame.drop(columns="order").reset_index(drop=True)


def votes_figure(frame: pd.DataFrame, first: int = 1) -> go.Figure:
    """Members by images: the darker, the more probable each finds the true class; a cross where it is wrong.

    Args:
        frame: of `votes_frame`.
        first: number of the first image; the others follow.
    """
    import plotly.graph_objects as go

    members = list(dict.fromkeys(frame["member"]))
    n = len(frame) // max(1, len(members))
    cells = {
        column: frame[column].to_numpy().reshape(n, len(members)).T
        for column in ("own", "right", "said", "confidence", "sample_id")
    }
    images = [str(first + i) for i in range(n)]
    names = [text(m) for m in members]
    told = np.array(
        [
            [f"{text(s)} {c:.0%}, image {text(i)}" for s, c, i in zip(*row, strict=True)]
            for row in zip(cells["said"], cells["confidence"], cells["sample_id"], strict=True)
        ],
        object,
    )
    figure = go.Figure(
        go.Heatmap(
            z=cells["own"].astype(float),
            x=images,
            y=names,
            text=np.where(cells["right"].astype(bool), "", "×"),
            texttemplate="%{text}",
            textfont={"color": "#111111"},
            customdata=told,
            hovertemplate="%{y} says %{customdata}<extra></extra>",
            colorscale=["#FFFFFF", PALETTE[5]],  # the cross stays readable on either end
            zmin=0,
            zmax=1,
            xgap=1,
            ygap=1,
            colorbar={"title": {"text": "True class"}, "tickformat": ".0%"},
        )
    )
    categories(figure, x=images, y=names[::-1])
    figure.update_yaxes(tickvals=names, ticktext=[text(_short(str(m))) for m in members])
    return named(figure, "Probability of the true class", "Image", "Model").update_layout(
        height=140 + 26 * len(members)
    )


def _short(name: str) -> str:
    """A long name with its middle left out: the plot needs its room, and the end tells recipes apart."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}…{name[-8:]}"
