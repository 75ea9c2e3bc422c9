"""What rows take for what, and the images behind every cell of their confusion matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray

from ..errors import EnsemblerError
from ..figures import (
    confused_classes,
    confusion_change_figure,
    confusion_change_frame,
    confusion_figure,
    confusion_frame,
    votes_frame,
)
from ..predictions import Predictions
from .charts import draw
from .gallery import Card, show
from .reading import View
from .states import damaged
from .wording import count, lines, plain

Rows = NDArray[np.intp]

#: Most classes of which matrices are drawn: those that are confused most.
DRAWN = 40

#: Names of the choices in the URL.
OF, TRUE, TAKEN = "of", "true", "taken"


@st.fragment
def confusion(run: View, oof: Predictions) -> None:
    """Draws the matrices of all rows, the change from the first to another, and the images of a chosen cell."""
    try:
        _confusion(run, oof)
    except EnsemblerError as error:  # a fragment runs by itself: nobody else would catch it
        damaged(error)


def cell_rows(oof: Predictions, name: str, label: str, predicted: str) -> Rows:
    """Positions of the images of one class that a row takes for another or the same, the surest first."""
    proba = oof.proba[oof.index(name)]
    column = oof.classes.index(predicted)
    rows = np.flatnonzero((oof.labels == oof.classes.index(label)) & (proba.argmax(axis=1) == column))
    return rows[np.argsort(-proba[rows, column], kind="stable")]


def clicked(selection: Mapping[str, Any], classes: Sequence[str]) -> tuple[str, str] | None:
    """The (true, predicted) classes of the cell that a click has selected; None where it selected none."""
    points = selection.get("points") or []
    at = points[0].get("point_index") if points else None
    if not isinstance(at, int) or not 0 <= at < len(classes) ** 2:
        return None
    return classes[at // len(classes)], classes[at % len(classes)]


# ---------------------------------------------------------------------- pieces


def _confusion(run: View, oof: Predictions) -> None:
    frames = {name: confusion_frame(oof, name) for name in oof.members}
    classes = list(oof.classes)
    if len(classes) > DRAWN:
        counts = pd.concat([frame[["label", "predicted", "count"]] for frame in frames.values()])
        errors = counts.groupby(["label", "predicted"], sort=False, as_index=False).sum()
        classes = confused_classes(errors, DRAWN)
        st.caption(f"The {DRAWN} of {len(oof.classes):,} classes that are confused most.")
    for start in range(0, oof.n_members, 2):
        for column, name in zip(st.columns(2), oof.members[start : start + 2], strict=False):
            with column:
                lines(name)
                figure = confusion_figure(_only(frames[name], classes)).update_traces(showscale=False)
                _clickable(figure, name, classes, f"Confusion matrix of {name}")
    st.caption("Numbers are images; the darker a cell, the larger its share of the true class.")
    left, right = st.columns(2)
    with right:
        name, label, taken = _chosen_cell(oof)
    with left:
        _change(oof, name, classes)
    if label is not None and taken is not None:
        _images(run, oof, name, label, taken)


def _only(frame: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    wanted = set(classes)
    return frame[frame["label"].isin(wanted) & frame["predicted"].isin(wanted)]


def _clickable(
    figure: Any, name: str, classes: Sequence[str], description: str, prefix: str = "confusion"
) -> None:
    """Draws a matrix whose cells can be chosen: Plotly selects points only, so each cell gets one, which is invisible
    until it is chosen."""
    matrix = figure.data[0]
    size = len(classes)
    told = np.concatenate(
        [np.asarray(matrix.customdata).reshape(size * size, -1), np.reshape(matrix.z, (-1, 1))], 1
    )
    hover = matrix.hovertemplate.replace("%{customdata}", "%{customdata[0]}")
    figure.add_scatter(
        x=np.tile(matrix.x, size),
        y=np.repeat(matrix.y, size),
        mode="markers",
        marker={"symbol": "square-open", "size": 26, "color": "#111111", "opacity": 0, "line": {"width": 2}},
        selected={"marker": {"opacity": 1}},
        unselected={"marker": {"opacity": 0}},
        customdata=told,
        hovertemplate=hover.replace("%{z", f"%{{customdata[{told.shape[1] - 1}]"),
        showlegend=False,
    )
    matrix.update(hoverinfo="skip", hovertemplate=None)
    figure.update_xaxes(range=[-0.5, size - 0.5]).update_yaxes(range=[-0.5, size - 0.5])
    figure.update_layout(hoverdistance=-1, clickmode="event+select", hovermode="closest")
    key = f"{prefix} {name}"

    def open_cell() -> None:
        cell = clicked(st.session_state[key]["selection"], classes)
        if cell is not None:
            st.session_state[OF], (st.session_state[TRUE], st.session_state[TAKEN]) = name, cell

    draw(figure, key, description, on_select=open_cell)


def _chosen_cell(oof: Predictions) -> tuple[str, str | None, str | None]:
    """The row, and the two classes where they are chosen."""
    # The second row at first: what changes from the first one to it is what the page is about.
    rows = [*oof.members[1:], oof.members[0]]
    if st.session_state.get(OF, rows[0]) not in rows:  # it was of rows that are no longer compared
        st.session_state[OF] = rows[0]
    st.markdown("**The images of a cell.** Click it in any matrix, or choose it here.")
    name = st.selectbox("Row", rows, key=OF, bind="query-params")
    classes, hint = list(oof.classes), "Choose a class"
    label = st.selectbox("True class", classes, None, key=TRUE, bind="query-params", placeholder=hint)
    taken = st.selectbox("Taken for", classes, None, key=TAKEN, bind="query-params", placeholder=hint)
    return str(name), label, taken


def _change(oof: Predictions, name: str, classes: Sequence[str]) -> None:
    reference = oof.members[0]
    name = oof.members[1] if name == reference else name
    lines(f"What changes from {reference} to {name}")
    frame = _only(confusion_change_frame(oof, reference, name), classes)
    figure = confusion_change_figure(frame).update_traces(showscale=False)
    _clickable(figure, name, classes, f"Change of the confusion from {reference} to {name}", "change")
    st.caption(
        "A plus is more images in the cell, a minus fewer. Blue is for the better: more on the diagonal, fewer beside "
        "it. Orange is for the worse."
    )


def _images(run: View, oof: Predictions, name: str, label: str, taken: str) -> None:
    rows = cell_rows(oof, name, label, taken)
    what = f"is right on {count(len(rows), 'image')} of {label}"
    if label != taken:
        what = f"takes {count(len(rows), 'image')} of {label} for {taken}"
    st.markdown(f"**{plain(name)} {plain(what)}**")
    if len(rows):
        key = "\n".join([name, label, taken])
        show(run, _cards(oof, name, rows), lambda shown: votes_frame(oof, shown), key)


def _cards(oof: Predictions, name: str, rows: Rows) -> list[Card]:
    proba = oof.proba[oof.index(name)]
    return [
        Card(
            int(row),
            str(oof.sample_ids[row]),
            oof.classes[oof.labels[row]],
            (f"{name}: {oof.classes[proba[row].argmax()]}, {proba[row].max():.0%}",),
        )
        for row in rows
    ]
