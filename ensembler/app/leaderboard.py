"""The leaderboard: every row, with what stands behind it."""

from __future__ import annotations

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from ..evaluation.leaderboard import Leaderboard
from ..figures import leaderboard_figure, leaderboard_frame
from ..store import understood
from .advice import advice
from .charts import draw, names_inside
from .reading import View
from .rows import FIRST, columns, differing, offered, rows_table, scale_of
from .wording import capital, headline, lines, metric_words

#: Most rows that are drawn; the table shows all.
DRAWN = 25

#: Rows of the table that are seen without scrolling, and their height in pixels.
SHOWN = 15
ROW_HEIGHT = 36

#: Above so many rows, the browser is sent those that it shows.
SENT = 1500

#: What the table can be sorted by: label -> column of the leaderboard, and whether less is better.
ORDERS = {
    "Score": (None, False),
    "Accuracy": ("accuracy", False),
    "Calibration error": ("ece", True),
    "Latency": ("latency_ms", True),
    "Parameters": ("params", True),
    "Training time": ("train_s", True),
    "Name": ("name", True),
}

#: Columns that stand among "the settings that differ" too.
_SETTINGS = ("Backbone", "Strategy", "Weights")

#: Columns that stand before them.
_BEFORE = ("Name", "Kind", "Standing", "Score", "Interval")

_KINDS = {"All": None, "Single models": "single", "Ensembles": "ensemble"}


def page(run: View) -> None:
    """Draws the page."""
    headline("Leaderboard")
    lines(advice(run.board.verdict))
    rows = _chosen(run.board.frame)
    if rows.empty:
        st.info("No row is of this kind and these backbones. Widen the filter.")
    else:
        _table(run, rows)
    _downloads(run)
    if not rows.empty:
        _figure(rows)


# ---------------------------------------------------------------------- pieces


def _chosen(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that the filters leave, in the order asked for."""
    left, middle, right = st.columns([2, 3, 2], vertical_alignment="bottom")
    kind = left.segmented_control(
        "Kind", list(_KINDS), default="All", key="kind", required=True, bind="query-params"
    )
    backbones = sorted(frame["backbone"].dropna().unique())
    wanted = (
        middle.multiselect("Backbones", backbones, key="backbone", placeholder="All", bind="query-params")
        if backbones
        else []
    )
    orders = [o for o, (column, _) in ORDERS.items() if column is None or frame[column].notna().any()]
    order = right.selectbox("Sort by", orders, key="sort", bind="query-params")
    rows = frame
    if _KINDS.get(kind or "All"):
        rows = rows[rows["kind"] == _KINDS[kind or "All"]]
    if wanted:
        uses = dict(zip(frame["name"], frame["backbone"], strict=True))
        rows = rows[[any(uses.get(m) in wanted for m in members) for members in rows["members"]]]
    column, ascending = ORDERS[order]
    return rows if column is None else rows.sort_values(column, ascending=ascending, kind="stable")


def _table(run: View, rows: pd.DataFrame) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        place = st.container()
        differ = run.trained and st.toggle(
            "Only the settings that differ",
            key="differ",
            bind="query-params",
            help="Adds a column for each setting in which the trained models are not all the same",
        )
    frame = run.board.frame
    shown = _columns(place, frame)
    table = _every_row(run).loc[rows.index]
    if differ:
        settings = _settings(run)
        table = table.join(settings, on="Name")
        kept = [c for c in shown if c not in _SETTINGS]
        at = sum(c in _BEFORE for c in kept)
        shown = [*kept[:at], *map(str, settings), *kept[at:]]
    st.dataframe(
        table[shown],
        hide_index=True,
        column_config=columns(table, run.metric),
        height=ROW_HEIGHT * (min(len(table), SHOWN) + 1) + 3,
        row_height=ROW_HEIGHT,
        placeholder="",
        lazy=len(table) > SENT,
        alt="Leaderboard",
    )
    st.caption(
        f"{capital(metric_words(run.metric))}. Scores are over all out-of-fold images, of ensembles "
        "cross-fitted, with 95 % intervals. A gain is over the best single model, positive is better, and p is "
        "Holm-corrected for all rows. “Tied” rows cannot be told from the best. Drawn: circles are single models, "
        "diamonds are ensembles, the dashed line is the best single model; an arrow points to what lies further out."
    )


def _columns(place: DeltaGenerator, frame: pd.DataFrame) -> list[str]:
    """The columns to show; the name always is."""
    choices = [name for name in offered(frame) if name != "Name"]
    with place.popover("Columns", icon=":material/view_column:"):
        chosen = st.pills(
            "Columns to show",
            choices,
            selection_mode="multi",
            default=[name for name in choices if name in FIRST],
            key="columns",
            bind="query-params",
        )
    return ["Name", *[name for name in choices if name in chosen]]


@st.cache_resource(max_entries=4, show_spinner=False, hash_funcs={View: lambda run: run.key})
def _every_row(run: View) -> pd.DataFrame:
    """Shared between sessions and not copied: it is only ever read."""
    frame, verdict = run.board.frame, run.board.verdict
    return rows_table(frame, verdict, scale_of(frame, run.metric, verdict))


@st.cache_data(max_entries=4, show_spinner="Reading settings…", hash_funcs={View: lambda run: run.key})
def _settings(run: View) -> pd.DataFrame:
    with understood(run.store.path):
        return differing(run.manifest["candidates"])


def _downloads(run: View) -> None:
    st.markdown("Download all rows:")
    with st.container(horizontal=True):
        for label, text, mime in (
            ("CSV", run.board.to_csv, "text/csv"),
            ("JSON", run.board.to_json, "application/json"),
            ("LaTeX", run.board.to_latex, "application/x-tex"),
        ):
            suffix = "tex" if label == "LaTeX" else label.lower()
            name = f"{run.store.name}-leaderboard.{suffix}"
            st.download_button(label, text, name, mime, icon=":material/download:", on_click="ignore")


def _figure(rows: pd.DataFrame) -> None:
    st.subheader("Scores with their intervals", anchor=False)
    frame = leaderboard_frame(Leaderboard(rows.head(DRAWN)))
    figure = leaderboard_figure(frame)
    low, high = frame["cv_low"].min(), frame["cv_high"].max()
    if low > 0 and high / low > 10:  # one bad row would leave the good ones on top of each other
        figure.update_xaxes(type="log", title={"text": f"{figure.layout.xaxis.title.text}, log scale"})
    draw(names_inside(figure, len(frame), low, high), "intervals", "Score of each row with its 95 % interval")
    if len(rows) > DRAWN:
        st.caption(f"The first {DRAWN} of {len(rows):,} rows.")
