"""How well probabilities put the images of a class before all others: ROC and precision-recall curves.

The area under a curve is that of every step; what is drawn of it are at most `POINTS` of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import PredictionsError
from ..predictions import Predictions
from .style import DASHES, PALETTE, REFERENCE, named, text

if TYPE_CHECKING:
    import plotly.graph_objects as go

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

#: Most points of a curve: more are not told apart on a screen.
POINTS = 400


def roc_frame(
    predictions: Predictions,
    members: Sequence[str] | None = None,
    label: str | None = None,
    points: int | None = POINTS,
) -> pd.DataFrame:
    """Share of a class that is found against the share of all others that is taken for it.

    Columns: member, label, false_positives, true_positives (both shares), area.

    Args:
        predictions: any split.
        members: defaults to all.
        label: a class; by default the average over the classes that have images, each against the rest, and of
            two classes the second. The average curve has the mean share found at the same share of false
            positives; its area is the mean of the areas.
        points: most of a curve; None for all.

    Raises:
        PredictionsError: an unknown member or class.
    """
    frame = _frame(predictions, members, label, points, _roc, _average_roc)
    return frame.set_axis(["member", "label", "false_positives", "true_positives", "area"], axis=1)


def roc_figure(frame: pd.DataFrame) -> go.Figure:
    """ROC curves with their areas; the diagonal is what chance does."""
    figure = _drawn(frame, "false_positives", "true_positives", "AUC", "linear")
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line=REFERENCE, hoverinfo="skip", name="Chance", showlegend=False
    )
    return named(figure, "ROC", "False positives, share of the other images", "Found, share of the class")


def precision_recall_frame(
    predictions: Predictions,
    members: Sequence[str] | None = None,
    label: str | None = None,
    points: int | None = POINTS,
) -> pd.DataFrame:
    """Share of what is taken for a class that is it, against the share of the class that is found.

    Columns: member, label, recall, precision, area (average precision: nothing is interpolated).

    Args:
        predictions: any split.
        members: defaults to all.
        label: a class; by default the average over the classes that have images, each against the rest, and of
            two classes the second. The average curve has the mean precision at the same recall; its area is the
            mean of the areas.
        points: most of a curve; None for all.

    Raises:
        PredictionsError: an unknown member or class.
    """
    frame = _frame(predictions, members, label, points, _precision_recall, _average_precision)
    return frame.set_axis(["member", "label", "recall", "precision", "area"], axis=1)


def precision_recall_figure(frame: pd.DataFrame) -> go.Figure:
    """Precision against recall, with the average precision of each member."""
    figure = _drawn(frame, "recall", "precision", "average precision", "vh")
    return named(figure, "Precision and recall", "Recall", "Precision")


# ---------------------------------------------------------------------- numbers

#: (hits, alarms), rows of the class and other rows down to each threshold -> x, y, area
Curve = Callable[[Counts, Counts], tuple[Floats, Floats, float]]
#: (curves, number of points) -> x, y
Average = Callable[[list[tuple[Floats, Floats, float]], int], tuple[Floats, Floats]]


def _frame(
    predictions: Predictions,
    members: Sequence[str] | None,
    label: str | None,
    points: int | None,
    curve: Curve,
    average: Average,
) -> pd.DataFrame:
    if label is None and predictions.n_classes == 2:
        label = predictions.classes[1]
    if label is not None and label not in predictions.classes:
        raise PredictionsError(f"class {label!r}: not among {list(predictions.classes)}")
    wanted = range(predictions.n_classes) if label is None else [predictions.classes.index(label)]
    parts = []
    for member in members or predictions.members:
        proba = predictions.proba[predictions.index(member)]
        found = []
        for k in wanted:
            positive = predictions.labels == k
            if positive.any() and not positive.all():
                found.append(curve(*_counts(positive, proba[:, k])))
        if not found:
            continue
        area = float(np.mean([one[2] for one in found]))
        if label is None:
            x, y = average(found, points or POINTS)
        else:
            x, y, _ = found[0]
            kept = _evenly(x, y, points)
            x, y = x[kept], y[kept]
        parts.append(pd.DataFrame({"member": member, "label": label, "x": x, "y": y, "area": area}))
    empty = pd.DataFrame(columns=["member", "label", "x", "y", "area"])
    return pd.concat(parts, ignore_index=True) if parts else empty


def _counts(positive: NDArray[np.bool_], score: NDArray[Any]) -> tuple[Counts, Counts]:
    """Rows of the class, and others, at each distinct score and above, from none to all."""
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)  # equal scores: one step
    hits = np.cumsum(positive[order])[ends]
    return np.append(0, hits), np.append(0, ends + 1 - hits)


def _roc(hits: Counts, alarms: Counts) -> tuple[Floats, Floats, float]:
    x, y = alarms / alarms[-1], hits / hits[-1]
    return x, y, float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2)


def _average_roc(curves: list[tuple[Floats, Floats, float]], n: int) -> tuple[Floats, Floats]:
    grid = np.linspace(0, 1, n)
    mean = np.mean([np.interp(grid, x, y) for x, y, _ in curves], axis=0)
    return np.append(0, grid), np.append(0, mean)  # all curves begin at (0, 0) and may rise there


def _precision_recall(hits: Counts, alarms: Counts) -> tuple[Floats, Floats, float]:
    until = int(np.argmax(hits == hits[-1])) + 1  # with all found, a lower threshold only brings more alarms
    hits, alarms = hits[1:until], alarms[1:until]
    recall, precision = hits / hits[-1], hits / (hits + alarms)
    area = float(np.sum(np.diff(recall, prepend=0) * precision))
    return np.append(0, recall), np.append(precision[0], precision), area


def _average_precision(curves: list[tuple[Floats, Floats, float]], n: int) -> tuple[Floats, Floats]:
    grid = np.linspace(0, 1, n)
    steps = [y[np.maximum(1, np.searchsorted(x, grid - 1e-12))] for x, y, _ in curves]
    return grid, np.mean(steps, axis=0)


def _evenly(x: Floats, y: Floats, points: int | None) -> NDArray[np.intp]:
    """Positions of so many points of a curve, evenly along its length."""
    if points is None or len(x) <= points:
        return np.arange(len(x))
    length = np.append(0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y))))
    wanted = np.linspace(0, length[-1], points)
    return np.unique(np.append(np.searchsorted(length, wanted - 1e-12), len(x) - 1))


# ---------------------------------------------------------------------- drawing


def _drawn(frame: pd.DataFrame, x: str, y: str, area: str, shape: str) -> go.Figure:
    import plotly.graph_objects as go

    figure = go.Figure()
    for i, (member, part) in enumerate(frame.groupby("member", sort=False)):
        line = {"color": PALETTE[i % len(PALETTE)], "dash": DASHES[i % len(DASHES)], "shape": shape}
        figure.add_scatter(
            name=f"{text(member)}: {area} {part['area'].iloc[0]:.4f}",
            x=part[x],
            y=part[y],
            mode="lines",
            line=line,
            hovertemplate="%{y:.3f} at %{x:.3f}",
        )
    figure.update_xaxes(range=[0, 1.01]).update_yaxes(range=[0, 1.02])
    return figure
