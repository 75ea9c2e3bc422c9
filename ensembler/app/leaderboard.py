"""The leaderboard: the verdict, what stands behind it, and every row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from ..evaluation.leaderboard import Leaderboard
from ..evaluation.verdict import Verdict
from ..figures import leaderboard_figure, leaderboard_frame
from .charts import draw, names_inside
from .reading import View
from .rows import columns, rows_table
from .wording import capital, count, headline, lines, metric_name, metric_words, number, p_text, span

#: Most rows that are drawn; the table shows all.
DRAWN = 25

#: Rows of the table that are seen without scrolling, and their height in pixels.
SHOWN = 15
ROW_HEIGHT = 36

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

_KINDS = {"All": None, "Single models": "single", "Ensembles": "ensemble"}


def page(run: View) -> None:
    """Draws the page."""
    headline(advice(run.board.verdict))
    lines(run.board.verdict.sentence)
    _contenders(run)
    _concerns(run)
    st.subheader("All rows", anchor=False)
    rows = _chosen(run.board.frame)
    if rows.empty:
        st.info("No row is of this kind and these backbones. Widen the filter.")
    else:
        table = rows_table(rows, run.board.verdict)
        st.dataframe(
            table,
            hide_index=True,
            column_config=columns(table, run.metric),
            height=ROW_HEIGHT * (min(len(table), SHOWN) + 1) + 3,
            row_height=ROW_HEIGHT,
            placeholder="",
        )
        st.caption(
            f"{capital(metric_words(run.metric))}. Scores are over all out-of-fold images, of ensembles "
            "cross-fitted, with 95 % intervals. A gain is over the best single model, positive is better, and p is "
            "Holm-corrected for all rows. “Tied” rows cannot be told from the best."
        )
    _downloads(run)
    if not rows.empty:
        _figure(rows)


def advice(verdict: Verdict) -> str:
    """What to do, in a few words.

    >>> from ensembler.evaluation.verdict import Price
    >>> advice(Verdict("mean", "a", "mean", True, 0.1, 0.05, 0.15, 0.01, Price(2.0, 5.0), ""))
    'Use the ensemble mean: it is better than the best single model.'
    """
    if verdict.best_ensemble is None:
        return f"Use {verdict.winner}, the best single model; no ensemble was made."
    if verdict.better:
        return f"Use the ensemble {verdict.winner}: it is better than the best single model."
    return f"Use the single model {verdict.winner}: no ensemble is shown to be better."


def concerns(board: Leaderboard, manifest: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """What a reader has to know before trusting the rows: (what it is, its details)."""
    frame = board.frame
    notes = frame.loc[frame["note"].notna() & (frame["note"] != ""), ["name", "note"]]
    skipped = manifest.get("unreadable", [])
    found = [
        (count(len(board.verdict.failed), "candidate") + " failed or left out", list(board.verdict.failed)),
        (count(len(notes), "row") + " with a note", [f"{n}: {note}" for n, note in notes.to_numpy(str)]),
        (
            count(len(skipped), "image") + " skipped, not readable",
            [": ".join(map(str, image)) for image in skipped],
        ),
    ]
    return [(title, details) for title, details in found if details]


# ---------------------------------------------------------------------- pieces


def _contenders(run: View) -> None:
    """The best single model and the best ensemble, the difference, and what it costs."""
    verdict = run.board.verdict
    records = {r["name"]: r for r in run.board.to_records()}
    columns = st.columns(4 if verdict.best_ensemble else 1)
    for column, title, name in (
        (columns[0], "Best single model", verdict.best_single),
        (columns[min(1, len(columns) - 1)], "Best ensemble", verdict.best_ensemble),
    ):
        if name is None:
            continue
        row = records[name]
        with column.container(border=True, height="stretch"):
            st.metric(title, number(row["cv"]))
            lines(name, f"95 % interval {span(row['cv_low'], row['cv_high'])}", *_cost(row))
    if verdict.best_ensemble is None:
        return
    with columns[2].container(border=True, height="stretch"):
        st.metric(f"Gain in {metric_name(run.metric)}", number(verdict.delta, sign=True))
        lines(
            "Positive is better",
            f"95 % interval {span(verdict.low, verdict.high, sign=True)}",
            f"p = {p_text(verdict.p_value)}, Holm-corrected".replace("= <", "<"),
        )
    with columns[3].container(border=True, height="stretch"):
        price = verdict.price
        if price.added_ms is None:
            st.metric("Price", "unknown")
            lines("Predictions alone say nothing about latency.")
        else:
            ratio = "–" if price.latency_ratio is None else f"{price.latency_ratio:.1f} × latency"
            st.metric("Price", ratio)
            lines(f"{price.added_ms:+.1f} ms an image", "at batch 1, on the machine of the run")


def _cost(row: Mapping[str, Any]) -> list[str]:
    parts = []
    if row["latency_ms"] is not None:
        parts.append(f"{row['latency_ms']:.1f} ms an image")
    if row["params"] is not None:
        parts.append(f"{row['params'] / 1e6:.2f} M parameters")
    return parts


def _concerns(run: View) -> None:
    found = concerns(run.board, run.manifest)
    if found:
        with st.expander("; ".join(title for title, _ in found), icon=":material/warning:"):
            for title, details in found:
                st.markdown(f"**{title}**")
                lines(*details)


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


def _downloads(run: View) -> None:
    st.markdown("Download all rows:")
    with st.container(horizontal=True):
        for label, text, mime in (
            ("CSV", run.board.to_csv(), "text/csv"),
            ("JSON", run.board.to_json(), "application/json"),
            ("LaTeX", run.board.to_latex(), "application/x-tex"),
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
