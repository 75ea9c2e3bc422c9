"""Class by class: what is found, and what is taken for what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..predictions import Predictions
from .style import PALETTE, SYMBOLS, categories, named, text

if TYPE_CHECKING:
    import plotly.graph_objects as go


def class_frame(predictions: Predictions, members: Sequence[str] | None = None) -> pd.DataFrame:
    """How well each member does on each class.

    Columns: member, label, count, recall (share of the class that is found), precision (share of what is taken
    for the class that is it; missing where nothing is taken for it).
    """
    classes = np.arange(predictions.n_classes)
    count = np.bincount(predictions.labels, minlength=len(classes))
    parts = []
    for member in members or predictions.members:
        chosen = predictions.proba[predictions.index(member)].argmax(axis=1)
        hits = np.bincount(predictions.labels[chosen == predictions.labels], minlength=len(classes))
        taken = np.bincount(chosen, minlength=len(classes))
        shares = {
            "recall": hits / np.where(count, count, np.nan),
            "precision": hits / np.where(taken, taken, np.nan),
        }
        parts.append(pd.DataFrame({"member": member, "label": predictions.classes, "count": count, **shares}))
    return pd.concat(parts, ignore_index=True)


def class_figure(frame: pd.DataFrame) -> go.Figure:
    """The recall of every class, a mark a member."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for i, (member, part) in enumerate(frame.groupby("member", sort=False)):
        figure.add_scatter(
            name=text(member),
            x=part["recall"],
            y=[text(c) for c in part["label"]],
            mode="markers",
            marker={"color": PALETTE[i % len(PALETTE)], "symbol": SYMBOLS[i % len(SYMBOLS)], "size": 10},
            customdata=part["count"],
            hovertemplate="%{y}: %{x:.1%} of %{customdata} images",
        )
    labels = [text(c) for c in dict.fromkeys(frame["label"])]
    categories(figure, y=labels[::-1])
    figure.update_xaxes(tickformat=".0%")
    return named(figure, "Recall of each class", "Recall", "Class").update_layout(
        height=160 + 24 * len(labels)
    )


def confusion_frame(predictions: Predictions, member: str) -> pd.DataFrame:
    """Which class is taken for which, for all pairs of classes.

    Columns: label, predicted, count, share (of the label's rows).
    """
    chosen = predictions.proba[predictions.index(member)].argmax(axis=1)
    size = predictions.n_classes
    counts = np.bincount(predictions.labels * size + chosen, minlength=size * size).reshape(size, size)
    return pd.DataFrame(
        {
            "label": np.repeat(predictions.classes, size),
            "predicted": np.tile(predictions.classes, size),
            "count": counts.ravel(),
            "share": (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)).ravel(),
        }
    )


def confusion_figure(frame: pd.DataFrame) -> go.Figure:
    """The confusion matrix, coloured by the share of each class and labelled with counts."""
    import plotly.graph_objects as go

    classes = list(dict.fromkeys(frame["label"]))
    size = len(classes)
    counts = frame["count"].to_numpy().reshape(size, size)
    names = [text(c) for c in classes]
    figure = go.Figure(
        go.Heatmap(
            z=frame["share"].to_numpy().reshape(size, size),
            x=names,
            y=names,
            text=np.where(counts, counts.astype(str), ""),
            textfont={"color": "#111111"},
            texttemplate="%{text}" if size <= 25 else None,
            customdata=counts,
            hovertemplate="%{y} taken for %{x}: %{customdata} images, %{z:.1%} of the class<extra></extra>",
            colorscale=["#FFFFFF", PALETTE[5]],  # the text stays readable on either end
            zmin=0,
            zmax=1,
            colorbar={"title": {"text": "Share of class"}, "tickformat": ".0%"},
        )
    )
    categories(figure, x=names, y=names[::-1])
    return named(figure, "Confusion of classes", "Predicted class", "True class")


def confusion_change_frame(predictions: Predictions, reference: str, member: str) -> pd.DataFrame:
    """The difference of two confusion matrices.

    Columns: label, predicted, reference, member (images in either's cell), change (of them, to the member), better
    (the same with a sign: positive where more are right, or fewer are taken for what they are not).
    """
    frame = confusion_frame(predictions, reference)[["label", "predicted", "count"]]
    frame = frame.rename(columns={"count": "reference"})
    frame["member"] = confusion_frame(predictions, member)["count"]
    frame["change"] = frame["member"] - frame["reference"]
    frame["better"] = frame["change"].where(frame["label"] == frame["predicted"], -frame["change"])
    return frame


def confusion_change_figure(frame: pd.DataFrame) -> go.Figure:
    """The change of every cell with its sign; blue where it is for the better, orange where for the worse."""
    import plotly.graph_objects as go

    classes = list(dict.fromkeys(frame["label"]))
    size = len(classes)
    names = [text(c) for c in classes]
    cells = {c: frame[c].to_numpy().reshape(size, size) for c in ("reference", "member", "change", "better")}
    most = int(max(1, np.abs(cells["better"]).max(initial=0)))
    figure = go.Figure(
        go.Heatmap(
            z=cells["better"],
            x=names,
            y=names,
            text=[[f"{n:+d}" if n else "" for n in row] for row in cells["change"].tolist()],
            textfont={"color": "#111111"},
            texttemplate="%{text}" if size <= 25 else None,
            customdata=np.stack([cells["reference"], cells["member"]], axis=-1),
            hovertemplate="%{y} taken for %{x}: %{customdata[0]} before, %{customdata[1]} after<extra></extra>",
            colorscale=[PALETTE[4], "#FFFFFF", PALETTE[5]],  # the text stays readable on either end
            zmin=-most,
            zmax=most,
            colorbar={"title": {"text": "Images better"}},
        )
    )
    categories(figure, x=names, y=names[::-1])
    return named(figure, "Change of the confusion", "Predicted class", "True class")


def confused_classes(frame: pd.DataFrame, most: int) -> list[str]:
    """The classes that are most often taken for another or another for them, in the order of the frame.

    Args:
        frame: of `confusion_frame`.
        most: how many.
    """
    wrong = frame[frame["label"] != frame["predicted"]]
    order = list(dict.fromkeys(frame["label"]))
    errors = (
        wrong.groupby("label")["count"].sum().add(wrong.groupby("predicted")["count"].sum(), fill_value=0)
    )
    worst = set(errors.reindex(order, fill_value=0).sort_values(ascending=False, kind="stable").index[:most])
    return [name for name in order if name in worst]
