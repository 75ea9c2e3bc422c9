"""Two or more rows against each other: is the difference real, and where does it come from?"""

from __future__ import annotations

import pandas as pd
import streamlit as st

from ..figures import (
    class_figure,
    class_frame,
    confusion_figure,
    confusion_frame,
    difference_figure,
    reliability_figure,
    reliability_frame,
)
from ..predictions import Predictions
from .charts import draw, names_inside
from .reading import View, differences, predictions
from .wording import capital, headline, lines, metric_name, metric_words, number, p_text, span

#: More would not be told apart.
MOST = 6

#: Most classes of which recall is drawn; the table shows all.
DRAWN = 30


def page(run: View) -> None:
    """Draws the page."""
    headline("Compare rows")
    chosen = _choose(run)
    if len(chosen) < 2:
        st.info("Choose at least two rows.", icon=":material/compare_arrows:")
        return
    reference, *others = chosen
    oof = predictions(run, chosen)
    frame = differences(run, tuple(chosen), reference)
    _difference(frame, reference, run.metric)
    _folds(run, chosen)
    _classes(oof, reference, others)
    _confusion(oof)
    st.subheader("Do the confidences mean what they say?", anchor=False)
    draw(
        reliability_figure(reliability_frame(oof)),
        "reliability",
        "Accuracy against confidence, a curve a row",
    )
    st.caption("Below the diagonal a row is more confident than it is right.")


def finding(row: pd.Series, metric: str) -> str:
    """One difference in words; `row` is of `figures.difference_frame`."""
    name, reference = row["name"], row["reference"]
    if row["low"] > 0:
        verb = "is better than"
    elif row["high"] < 0:
        verb = "is worse than"
    else:
        verb = "cannot be told from"
    p = f"p = {p_text(row['p_value'])}".replace("= <", "<")
    gain = f"gain {number(row['delta'], sign=True)} {metric_name(metric)}"
    return (
        f"{name} {verb} {reference}: {gain}, 95 % interval {span(row['low'], row['high'], sign=True)}, {p}."
    )


def fold_table(run: View, names: list[str]) -> pd.DataFrame:
    """Score of each row on each fold, and its spread over them."""
    scores = run.board.frame.set_index("name")["fold_scores"]
    table = pd.DataFrame({name: list(scores[name]) for name in names}, dtype="float64").T
    table.columns = [f"Fold {i + 1}" for i in range(table.shape[1])]
    spread = pd.DataFrame({"Mean": table.mean(axis=1), "Std": table.std(axis=1)})
    return pd.concat([table, spread], axis=1).rename_axis("Name").reset_index()


def class_table(oof: Predictions, reference: str, others: list[str]) -> pd.DataFrame:
    """Recall and precision of each class in per cent; where the first two rows differ most in recall comes first."""
    frame = class_frame(oof, [reference, *others])
    table = frame[frame["member"] == reference][["label", "count"]].reset_index(drop=True)
    for share in ("recall", "precision"):
        for name in (reference, *others):
            table[f"{share}: {name}"] = 100 * frame.loc[frame["member"] == name, share].to_numpy()
    gap = (table[f"recall: {others[0]}"] - table[f"recall: {reference}"]).abs()
    return table.loc[gap.sort_values(ascending=False, kind="stable").index].reset_index(drop=True)


# ---------------------------------------------------------------------- pieces


def _choose(run: View) -> list[str]:
    verdict = run.board.verdict
    default = [
        verdict.best_single,
        verdict.best_ensemble or next((n for n in run.rows[1:]), verdict.best_single),
    ]
    return st.multiselect(
        "Rows; the first is what the others are held against",
        run.rows,
        default=list(dict.fromkeys(default)),
        max_selections=MOST,
        key="row",
        bind="query-params",
    )


def _difference(frame: pd.DataFrame, reference: str, metric: str) -> None:
    st.subheader("Is there a difference?", anchor=False)
    lines(*(finding(row, metric) for _, row in frame.iterrows()))
    low, high = min(0.0, frame["low"].min()), max(0.0, frame["high"].max())
    figure = names_inside(difference_figure(frame), len(frame), low, high)
    draw(figure, "difference", f"Gain of each row on {reference}")
    st.caption(
        f"{capital(metric_words(metric))}. Both rows are resampled together, so what is hard for both cancels out. "
        "p is Holm-corrected for the rows compared here; the leaderboard's is for all."
    )


def _folds(run: View, names: list[str]) -> None:
    st.subheader("Fold by fold", anchor=False)
    table = fold_table(run, names)
    numbers = {c: st.column_config.NumberColumn(format="%.4f") for c in table.columns[1:]}
    st.dataframe(table, hide_index=True, column_config=numbers)


def _classes(oof: Predictions, reference: str, others: list[str]) -> None:
    st.subheader("Class by class", anchor=False)
    table = class_table(oof, reference, others)
    shown = table["label"].head(DRAWN)
    frame = class_frame(oof, [reference, *others])
    frame = frame[frame["label"].isin(set(shown))]
    draw(class_figure(frame), "classes", "Share of each class that each row finds")
    with st.expander("Recall and precision as numbers"):
        shares = {
            c: st.column_config.NumberColumn(f"{capital(c)}, %", format="%.1f") for c in table.columns[2:]
        }
        names = {"label": "Class", "count": "Images"}
        st.dataframe(table, hide_index=True, column_config={**names, **shares})


def _confusion(oof: Predictions) -> None:
    st.subheader("What is taken for what", anchor=False)
    for start in range(0, oof.n_members, 2):
        for column, name in zip(st.columns(2), oof.members[start : start + 2], strict=False):
            with column:
                lines(name)
                figure = confusion_figure(confusion_frame(oof, name)).update_traces(showscale=False)
                draw(figure, f"confusion {name}", f"Confusion matrix of {name}")
    st.caption("Numbers are images; the darker a cell, the larger its share of the true class.")
