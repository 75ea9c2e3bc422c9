"""Figures in pairs: `*_frame` gives the numbers as a DataFrame, `*_figure` draws such a frame with Plotly.

Names are data, not markup: Plotly reads a few HTML tags in text, so they are escaped before they are drawn.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from .evaluation.calibration import reliability
from .evaluation.leaderboard import Leaderboard
from .evaluation.paired import resample
from .metrics import ECE_BINS, Metric, get_metric
from .predictions import Predictions

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: Okabe & Ito (2008): told apart with every common colour blindness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
KIND_COLOURS = {"single": PALETTE[0], "ensemble": PALETTE[1]}
#: Told apart without colour.
SYMBOLS = ("circle", "diamond", "square", "cross", "triangle-up", "x", "star")
KIND_SYMBOLS = {"single": "circle", "ensemble": "diamond"}
_REFERENCE = {"color": "#888888", "dash": "dot", "width": 1}


# ---------------------------------------------------------------------- leaderboard


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
            y=[_text(n) for n in part["name"]],
            mode="markers",
            marker={"color": KIND_COLOURS[kind], "symbol": KIND_SYMBOLS[kind], "size": 10},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": part["cv_high"] - part["cv"],
                "arrayminus": part["cv"] - part["cv_low"],
            },
        )
    metric = _title(frame["metric"].iloc[0]) if len(frame) else "Score"
    _categories(figure, y=[_text(n) for n in frame["name"]][::-1])
    return _named(
        figure, "Single models and ensembles", f"{metric}, out-of-fold, with 95 % interval", "Model"
    ).update_layout(height=160 + 28 * len(frame))


# ---------------------------------------------------------------------- differences


def difference_frame(
    predictions: Predictions,
    metric: Metric,
    reference: str,
    groups: ArrayLike | None = None,
    *,
    n_boot: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """What each member gains on one of them over the same rows; resampled as on the leaderboard.

    Columns: name, reference, metric, score, delta, low, high (95 % interval of `delta`, positive is better),
    p_value (Holm-corrected for the rows of this frame).

    Args:
        predictions: of the reference and at least one more member.
        metric: that compares them.
        reference: the member that the others are held against.
        groups: (samples,), rows of one group are resampled together.
        n_boot: resamples.
        seed: of the resamples.
    """
    resampled = resample(predictions, metric, groups=groups, n_boot=n_boot, seed=seed)
    scores = dict(zip(resampled.names, resampled.scores, strict=True))
    columns = ["name", "reference", "metric", "score", "delta", "low", "high", "p_value"]
    return pd.DataFrame(
        [
            (d.first, reference, metric.name, scores[d.first], d.delta, d.low, d.high, d.corrected)
            for d in resampled.against(reference)
        ],
        columns=columns,
    )


def difference_figure(frame: pd.DataFrame) -> go.Figure:
    """Gains with 95 % interval bars; a bar that reaches the line at zero leaves open that there is no gain."""
    import plotly.graph_objects as go

    figure = go.Figure()
    names = [_text(n) for n in frame["name"]]
    figure.add_scatter(
        x=frame["delta"],
        y=names,
        mode="markers",
        marker={"color": PALETTE[0], "size": 10},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": frame["high"] - frame["delta"],
            "arrayminus": frame["delta"] - frame["low"],
        },
        hovertemplate="%{y}: %{x:+.4f}<extra></extra>",
    )
    figure.add_vline(0, line=_REFERENCE)
    _categories(figure, y=names[::-1])
    metric = _title(frame["metric"].iloc[0]) if len(frame) else "Score"
    reference = _text(frame["reference"].iloc[0]) if len(frame) else "the reference"
    return _named(
        figure, f"Gain on {reference}", f"Gain in {metric[:1].lower()}{metric[1:]}, right is better", "Model"
    )


# ---------------------------------------------------------------------- classes


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
            name=_text(member),
            x=part["recall"],
            y=[_text(c) for c in part["label"]],
            mode="markers",
            marker={"color": PALETTE[i % len(PALETTE)], "symbol": SYMBOLS[i % len(SYMBOLS)], "size": 10},
            customdata=part["count"],
            hovertemplate="%{y}: %{x:.1%} of %{customdata} images",
        )
    labels = [_text(c) for c in dict.fromkeys(frame["label"])]
    _categories(figure, y=labels[::-1])
    figure.update_xaxes(tickformat=".0%")
    return _named(figure, "Recall of each class", "Recall", "Class").update_layout(
        height=160 + 24 * len(labels)
    )


# ---------------------------------------------------------------------- confusion


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
    names = [_text(c) for c in classes]
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
    _categories(figure, x=names, y=names[::-1])
    return _named(figure, "Confusion of classes", "Predicted class", "True class")


# ---------------------------------------------------------------------- reliability


def reliability_frame(
    predictions: Predictions, members: Sequence[str] | None = None, n_bins: int = ECE_BINS
) -> pd.DataFrame:
    """Confidence against accuracy in bins; empty bins are left out.

    Columns: member, low, high, count, confidence, accuracy.

    Args:
        predictions: any split.
        members: defaults to all.
        n_bins: equal-width bins of confidence.
    """
    parts = []
    for member in members or predictions.members:
        bins = reliability(predictions.labels, predictions.proba[predictions.index(member)], n_bins)
        parts.append(pd.DataFrame({"member": member, **vars(bins)}))
    frame = pd.concat(parts, ignore_index=True)
    return frame[frame["count"] > 0].reset_index(drop=True)


def reliability_figure(frame: pd.DataFrame) -> go.Figure:
    """Reliability curves: on the diagonal a confidence is an accuracy; below it, it is overconfidence."""
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.add_scatter(
        name="Perfectly calibrated", x=[0, 1], y=[0, 1], mode="lines", line=_REFERENCE, hoverinfo="skip"
    )
    for i, (member, part) in enumerate(frame.groupby("member", sort=False)):
        figure.add_scatter(
            name=_text(member),
            x=part["confidence"],
            y=part["accuracy"],
            mode="lines+markers",
            line={"color": PALETTE[i % len(PALETTE)]},
            customdata=part["count"],
            hovertemplate="confidence %{x:.2f}, accuracy %{y:.2f}, %{customdata} images",
        )
    figure.update_xaxes(range=[0, 1]).update_yaxes(range=[0, 1])
    return _named(figure, "Reliability", "Confidence", "Accuracy")


# ---------------------------------------------------------------------- learning curves


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
                name=f"{_text(candidate)}, {kind}",
                legendgroup=str(candidate),
                x=part["epoch"],
                y=part[column],
                mode="lines",
                line={"color": colour, "dash": dash},
            )
        found = part[part["best"] > 0]
        figure.add_scatter(
            name=f"{_text(candidate)}, best epochs",
            legendgroup=str(candidate),
            showlegend=False,
            x=found["epoch"],
            y=found["monitor_loss"],
            mode="markers",
            marker={"color": colour, "size": 5 + 3 * found["best"], "symbol": SYMBOLS[i % len(SYMBOLS)]},
            customdata=found["best"],
            hovertemplate="best epoch of %{customdata} folds<extra></extra>",
        )
    return _named(figure, "Learning curves, mean over folds; marks: best epochs", "Epoch", "Loss")


# ---------------------------------------------------------------------- words


def _text(value: object) -> str:
    """A name, safe to show: quotes stay, tags become text."""
    return html.escape(str(value), quote=False)


def _title(metric: str) -> str:
    words = get_metric(metric).title
    return words[:1].upper() + words[1:]


def _categories(figure: go.Figure, **axes: Sequence[str]) -> None:
    """Axes of names in this order; without the type, names such as "0" and "1" would be read as numbers."""
    for axis, names in axes.items():
        setting = {"type": "category", "categoryorder": "array", "categoryarray": list(names)}
        figure.update_layout({f"{axis}axis": setting})


def _named(figure: go.Figure, title: str, x: str, y: str) -> Any:
    return figure.update_layout(
        title={"text": title},
        xaxis={"title": {"text": x}},
        yaxis={"title": {"text": y}, "automargin": True},
        template="plotly_white",
    )
