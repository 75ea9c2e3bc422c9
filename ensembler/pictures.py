"""Pictures for a report that is read without a browser's scripts: the frames of `figures`, drawn by matplotlib.

Each returns PNG, or SVG for `kind="svg"`; the same bytes for the same frame.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, Literal

import numpy as np
import pandas as pd

from .errors import printable
from .figures import KIND_COLOURS, KIND_SYMBOLS, PALETTE
from .metrics import get_metric

Kind = Literal["png", "svg"]

#: Panels of learning curves side by side, and the size of each in inches.
COLUMNS, WIDTH, HEIGHT = 3, 3.6, 2.5

#: Most rows of the leaderboard and most classes of a confusion matrix whose picture can still be read.
MAX_ROWS, MAX_CLASSES = 60, 60

#: Characters of a name: longer ones would leave no room for what they name.
MAX_NAME = 48

_MARKERS = {"circle": "o", "diamond": "D"}


def learning_curves_picture(history: pd.DataFrame, kind: Kind = "png") -> bytes:
    """One panel a candidate: the monitor loss of every fold, the training loss dashed, a dot at each best epoch.

    Args:
        history: columns candidate, fold, epoch, train_loss, monitor_loss; not empty.
        kind: of picture.
    """
    names = list(dict.fromkeys(history["candidate"]))
    n_rows = -(-len(names) // COLUMNS)
    n_columns = min(COLUMNS, len(names))
    with _drawn(WIDTH * n_columns, HEIGHT * n_rows, kind) as (figure, stream):
        panels = figure.subplots(n_rows, n_columns, squeeze=False).flatten()
        for panel, name in zip(panels, names, strict=False):
            for i, (fold, part) in enumerate(history[history["candidate"] == name].groupby("fold")):
                colour = PALETTE[i % (len(PALETTE) - 1)]
                best = part.loc[part["monitor_loss"].idxmin()]
                panel.plot(part["epoch"], part["train_loss"], "--", color=colour, lw=0.8, alpha=0.6)
                panel.plot(part["epoch"], part["monitor_loss"], color=colour, lw=1.2, label=f"fold {fold}")
                panel.plot(best["epoch"], best["monitor_loss"], "o", color=colour, ms=4)
            panel.set_title(_text(name), fontsize=8)
            panel.set_xlabel("epoch")
            panel.set_ylabel("loss")
            panel.xaxis.get_major_locator().set_params(integer=True)
        for panel in panels[len(names) :]:
            panel.set_visible(False)
        if history["fold"].nunique() <= len(PALETTE) - 1:
            panels[0].legend(frameon=False, fontsize=7)
    return stream.getvalue()


def leaderboard_picture(frame: pd.DataFrame, kind: Kind = "png") -> bytes:
    """Scores with their 95 % intervals, best on top.

    Args:
        frame: of `figures.leaderboard_frame`; the first `MAX_ROWS` are drawn.
        kind: of picture.
    """
    shown = frame.head(MAX_ROWS)
    heights = np.arange(len(shown))[::-1]
    with _drawn(7.5, 0.9 + 0.24 * len(shown), kind) as (figure, stream):
        panel = figure.subplots()
        for row_kind, label in (("single", "single models"), ("ensemble", "ensembles")):
            rows = (shown["kind"] == row_kind).to_numpy()
            if rows.any():
                part = shown[rows]
                error = [part["cv"] - part["cv_low"], part["cv_high"] - part["cv"]]
                panel.errorbar(
                    part["cv"], heights[rows], xerr=error, fmt=_MARKERS[KIND_SYMBOLS[row_kind]], ms=5,
                    color=KIND_COLOURS[row_kind], lw=1.2, label=label,
                )  # fmt: skip
        panel.set_yticks(heights, [_text(name) for name in shown["name"]])
        panel.set_xlabel(f"{_text(get_metric(shown['metric'].iloc[0]).title)}, out of fold, 95 % interval")
        panel.grid(axis="x", lw=0.4, alpha=0.5)
        panel.legend(frameon=False, fontsize=7)
    return stream.getvalue()


def reliability_picture(frame: pd.DataFrame, kind: Kind = "png") -> bytes:
    """Confidence against accuracy, a line a member.

    Args:
        frame: of `figures.reliability_frame`.
        kind: of picture.
    """
    with _drawn(4.2, 3.6, kind) as (figure, stream):
        panel = figure.subplots()
        panel.plot([0, 1], [0, 1], ":", color="#888888", lw=1)
        for i, (member, part) in enumerate(frame.groupby("member", sort=False)):
            colour = PALETTE[i % len(PALETTE)]
            panel.plot(part["confidence"], part["accuracy"], "o-", ms=4, color=colour, label=_text(member))
        panel.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
        panel.legend(frameon=False, fontsize=7)
    return stream.getvalue()


def roc_picture(frame: pd.DataFrame, kind: Kind = "png") -> bytes:
    """ROC curves with their areas, a line a member.

    Args:
        frame: of `figures.roc_frame`.
        kind: of picture.
    """
    axes = ("false positives, share of the other images", "found, share of the class")
    return _areas(frame, ("false_positives", "true_positives"), axes, "AUC", kind)


def precision_recall_picture(frame: pd.DataFrame, kind: Kind = "png") -> bytes:
    """Precision against recall with its area, a line a member.

    Args:
        frame: of `figures.precision_recall_frame`.
        kind: of picture.
    """
    return _areas(frame, ("recall", "precision"), ("recall", "precision"), "average precision", kind)


def _areas(
    frame: pd.DataFrame, columns: tuple[str, str], axes: tuple[str, str], area: str, kind: Kind
) -> bytes:
    x, y = columns
    with _drawn(4.2, 3.6, kind) as (figure, stream):
        panel = figure.subplots()
        for i, (member, part) in enumerate(frame.groupby("member", sort=False)):
            label = f"{_text(member)}: {area} {part['area'].iloc[0]:.4f}"
            panel.plot(
                part[x], part[y], "-" if i % 2 == 0 else "--", color=PALETTE[i % len(PALETTE)], label=label
            )
        panel.set(xlim=(0, 1.01), ylim=(0, 1.02), xlabel=axes[0], ylabel=axes[1])
        if len(frame):
            panel.legend(frameon=False, fontsize=7)
    return stream.getvalue()


def confusion_picture(frame: pd.DataFrame, kind: Kind = "png") -> bytes:
    """The confusion matrix, shaded by the share of each true class, with counts.

    Args:
        frame: of `figures.confusion_frame`, of at most `MAX_CLASSES` classes.
        kind: of picture.
    """
    classes = list(dict.fromkeys(frame["label"]))
    size = len(classes)
    counts = frame["count"].to_numpy().reshape(size, size)
    side = 1.6 + 0.38 * size
    with _drawn(side, side, kind) as (figure, stream):
        panel = figure.subplots()
        shares = frame["share"].to_numpy().reshape(size, size)
        panel.imshow(shares, cmap="Blues", vmin=0, vmax=1.4)
        for row, column in zip(*np.nonzero(counts), strict=True):
            panel.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=6)
        names = [_text(name) for name in classes]
        panel.set_xticks(range(size), names, rotation=90)
        panel.set_yticks(range(size), names)
        panel.set(xlabel="predicted class", ylabel="true class")
    return stream.getvalue()


@contextmanager
def _drawn(width: float, height: float, kind: Kind) -> Iterator[tuple[Any, BytesIO]]:
    """A figure of so many inches, saved into a stream on the way out."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.hashsalt": "ensembler",
        "svg.fonttype": "none",
        "font.size": 8,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    stream = BytesIO()
    with mpl.rc_context(settings):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, stream
        with warnings.catch_warnings():
            # A name in a writing that the font lacks is drawn as boxes; the tables beside the picture have it.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure.savefig(
                stream, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else {"Software": None}
            )


def _text(name: object) -> str:
    """`$` would start a formula, and a line end a line; names are text."""
    text = printable(str(name))
    return (text if len(text) <= MAX_NAME else text[: MAX_NAME - 1] + "…").replace("$", r"\$")
