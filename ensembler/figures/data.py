"""What a run was trained on: classes, folds, index sets, sizes of the images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..folds import Folds
from .style import PALETTE, REFERENCE, categories, named, text

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: More classes than this leave no room for counts in the cells of a table of folds.
LABELLED = 40


def class_counts_frame(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Images of each class, the largest class first; equal ones in the order of `classes`.

    Columns: label, images (that are trained on and predicted out of fold), test, share (of the images).

    Args:
        table: columns label and split, of `RunStore.table`.
        classes: all of them, also those without an image.
    """
    counts = {split: table.loc[table["split"] == split, "label"].value_counts() for split in ("oof", "test")}
    frame = pd.DataFrame(
        {
            "label": list(classes),
            "images": [int(counts["oof"].get(name, 0)) for name in classes],
            "test": [int(counts["test"].get(name, 0)) for name in classes],
        }
    )
    frame["share"] = frame["images"] / max(int(frame["images"].sum()), 1)
    return frame.sort_values("images", ascending=False, kind="stable").reset_index(drop=True)


def class_counts_figure(frame: pd.DataFrame) -> go.Figure:
    """A bar a class, the largest on top; test images hatched beside it."""
    import plotly.graph_objects as go

    figure = go.Figure()
    names = [text(name) for name in frame["label"]]
    figure.add_bar(
        name="Images for training",
        orientation="h",
        x=frame["images"],
        y=names,
        text=frame["images"],
        textposition="outside",
        cliponaxis=False,
        marker={"color": PALETTE[0]},
        customdata=frame["share"],
        hovertemplate="%{y}: %{x} images, %{customdata:.1%}<extra></extra>",
    )
    if frame["test"].any():
        figure.add_bar(
            name="Test images",
            orientation="h",
            x=frame["test"],
            y=names,
            text=frame["test"],
            textposition="outside",
            cliponaxis=False,
            marker={"color": PALETTE[4], "pattern": {"shape": "/"}},
            hovertemplate="%{y}: %{x} test images<extra></extra>",
        )
    categories(figure, y=names[::-1])
    height = 120 + (40 if frame["test"].any() else 28) * len(frame)
    return named(figure, "Images of each class", "Images", "Class").update_layout(height=height, bargap=0.25)


# ---------------------------------------------------------------------- folds


def folds_frame(labels: ArrayLike, fold: ArrayLike, classes: Sequence[str]) -> pd.DataFrame:
    """Held-out images of each class by fold, against an even split.

    Columns: fold (counted from 1), label, count, even (the class's images over the number of folds), off (count over
    even - 1; 0 where the class has no image).

    Args:
        labels: (n,) int, index into `classes`.
        fold: (n,) int from 0, whose holdout each row is in.
        classes: names.
    """
    y, f = np.asarray(labels, np.int64), np.asarray(fold, np.int64)
    k, size = int(f.max(initial=0)) + 1, len(classes)
    counts = np.bincount(f * size + y, minlength=k * size).reshape(k, size)
    even = np.broadcast_to(counts.sum(axis=0) / k, counts.shape)
    off = np.divide(counts, even, out=np.ones(counts.shape), where=even > 0) - 1
    return pd.DataFrame(
        {
            "fold": np.repeat(np.arange(1, k + 1), size),
            "label": np.tile(np.asarray(classes, object), k),
            "count": counts.ravel(),
            "even": even.ravel(),
            "off": off.ravel(),
        }
    )


def folds_figure(frame: pd.DataFrame) -> go.Figure:
    """Classes by folds: the number of images, coloured by how far that is from an even split."""
    import plotly.graph_objects as go

    classes = list(dict.fromkeys(frame["label"]))
    k = int(frame["fold"].max())
    counts, off = (frame[column].to_numpy().reshape(k, -1).T for column in ("count", "off"))
    folds, names = [f"Fold {i + 1}" for i in range(k)], [text(name) for name in classes]
    widest = max(0.2, float(np.abs(off).max(initial=0.0)))
    figure = go.Figure(
        go.Heatmap(
            z=off,
            x=folds,
            y=names,
            text=counts.astype(str),
            texttemplate="%{text}" if len(classes) <= LABELLED else None,
            textfont={"color": "#111111"},
            customdata=counts,
            hovertemplate="%{x}, %{y}: %{customdata} images, %{z:+.0%} of an even split<extra></extra>",
            colorscale=[PALETTE[4], "#FFFFFF", PALETTE[5]],  # the text stays readable on either end
            zmin=-widest,
            zmax=widest,
            showscale=False,
        )
    )
    categories(figure, x=folds, y=names[::-1])
    return named(figure, "Held-out images of each class", "", "Class").update_layout(
        height=110 + 26 * len(classes)
    )


def sets_frame(labels: ArrayLike, folds: Folds, classes: Sequence[str]) -> pd.DataFrame:
    """The three index sets of each fold, and how far their classes are from those of all images.

    Columns: fold (counted from 1), train, monitor, holdout (rows of each); gap, the largest difference between the
    share of a class in one of the sets and among all rows; gap_class, gap_set, where that is.
    """
    y = np.asarray(labels, np.int64)
    whole = _shares(y, len(classes))
    rows = []
    for number, fold in enumerate(folds, start=1):
        sets = {"train": fold.train, "monitor": fold.monitor, "holdout": fold.holdout}
        gaps = {name: np.abs(_shares(y[rows_of], len(classes)) - whole) for name, rows_of in sets.items()}
        worst = max(gaps, key=lambda name: float(gaps[name].max()))
        rows.append(
            {
                "fold": number,
                **{name: len(rows_of) for name, rows_of in sets.items()},
                "gap": float(gaps[worst].max()),
                "gap_class": str(classes[int(gaps[worst].argmax())]),
                "gap_set": worst,
            }
        )
    return pd.DataFrame(rows)


def _shares(labels: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = np.bincount(labels, minlength=size) / max(len(labels), 1)
    return shares


# ---------------------------------------------------------------------- sizes


def sizes_frame(sizes: NDArray[np.int64]) -> pd.DataFrame:
    """How many images have which size, the most frequent first.

    Columns: width, height, count.

    Args:
        sizes: int (images, 2), width and height in pixels.
    """
    found, counts = np.unique(np.asarray(sizes, np.int64).reshape(-1, 2), axis=0, return_counts=True)
    frame = pd.DataFrame({"width": found[:, 0], "height": found[:, 1], "count": counts})
    return frame.sort_values("count", ascending=False, kind="stable").reset_index(drop=True)


def sizes_figure(frame: pd.DataFrame, image_size: int, most: int = 2000) -> go.Figure:
    """A mark a size, as large as it is frequent; the dotted lines are what every image is brought to.

    Args:
        frame: of `sizes_frame`.
        image_size: side in pixels that the networks see.
        most: sizes that are drawn, the most frequent.
    """
    import plotly.graph_objects as go

    shown = frame.head(most)
    reach = float(max(shown["count"].max() if len(shown) else 1, 1))
    figure = go.Figure()
    figure.add_scatter(
        x=shown["width"],
        y=shown["height"],
        mode="markers",
        marker={
            "color": PALETTE[0],
            "opacity": 0.6,
            "size": 6 + 24 * np.sqrt(shown["count"].to_numpy(np.float64) / reach),
            "line": {"width": 0},
        },
        customdata=shown["count"],
        hovertemplate="%{x} × %{y} pixels: %{customdata} images<extra></extra>",
    )
    line: dict[str, Any] = {"line": REFERENCE}
    figure.add_vline(image_size, **line)
    figure.add_hline(image_size, **line)
    figure.add_annotation(
        x=0, xref="paper", xanchor="left", y=image_size, yanchor="bottom", showarrow=False,
        text=f"what the networks see: {image_size} × {image_size}", font={"size": 11},
    )  # fmt: skip
    figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(rangemode="tozero")
    return named(figure, "Sizes of the images", "Width in pixels", "Height in pixels").update_layout(
        height=380
    )
