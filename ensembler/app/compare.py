"""Two or more rows against each other: is the difference real, and where does it come from?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray

from ..comparison import read_groups
from ..evaluation.hypothesis_tests import mcnemar
from ..figures import (
    class_figure,
    class_frame,
    difference_figure,
    precision_recall_figure,
    precision_recall_frame,
    reliability_figure,
    reliability_frame,
    roc_figure,
    roc_frame,
)
from ..predictions import Predictions
from ..store import understood
from .charts import draw, names_inside
from .confusion import confusion
from .reading import View, differences, predictions
from .wording import capital, count, headline, lines, metric_name, metric_words, number, p_text, plain, span

#: More would not be told apart.
MOST = 6

#: The choice of all classes, in the URL too.
ALL = "All classes, on average"

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
    _rights(oof)
    _groups(run, oof)
    _classes(oof, reference, others)
    st.subheader("What is taken for what", anchor=False)
    confusion(run, oof)
    st.subheader("Do the confidences mean what they say?", anchor=False)
    draw(
        reliability_figure(reliability_frame(oof)),
        "reliability",
        "Accuracy against confidence, a curve a row",
    )
    st.caption("Below the diagonal a row is more confident than it is right.")
    st.subheader("Do they put the right images first?", anchor=False)
    _ranking(run, oof)


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


def mcnemar_table(oof: Predictions) -> pd.DataFrame:
    """On how many images each row and the first are right, and McNemar's test of the images on which one alone is."""
    right = oof.proba.argmax(axis=2) == oof.labels
    records = []
    for name, mine in zip(oof.members[1:], right[1:], strict=True):
        test = mcnemar(int((mine & ~right[0]).sum()), int((right[0] & ~mine).sum()))
        records.append(
            {
                "Name": name,
                "Both right": int((mine & right[0]).sum()),
                "Only it is right": test.only_first,
                f"Only {oof.members[0]} is right": test.only_second,
                "Both wrong": int((~mine & ~right[0]).sum()),
                "p": p_text(test.p_value),
                "Test": "exact" if test.exact else "chi-squared",
            }
        )
    return pd.DataFrame(records)


def group_table(oof: Predictions, groups: NDArray[Any]) -> pd.DataFrame:
    """Share of each group that each row has right, in per cent; where the first two differ most comes first.

    Args:
        oof: of the compared rows.
        groups: (samples,) the group of each image.
    """
    names, of = np.unique(groups.astype(str), return_inverse=True)
    images = np.bincount(of, minlength=len(names))
    right = oof.proba.argmax(axis=2) == oof.labels
    table = pd.DataFrame({"group": names, "images": images})
    for name, mine in zip(oof.members, right, strict=True):
        table[f"right: {name}"] = 100 * np.bincount(of, weights=mine, minlength=len(names)) / images
    gap = (table.iloc[:, 3] - table.iloc[:, 2]).abs() * images
    return table.loc[gap.sort_values(ascending=False, kind="stable").index].reset_index(drop=True)


def group_finding(table: pd.DataFrame, first: str, second: str) -> str:
    """In how many groups the second row is better than the first; `table` is of `group_table`."""
    gap = table.iloc[:, 3] - table.iloc[:, 2]
    return (
        f"Of {count(len(table), 'group')}, {second} has more right than {first} in {int((gap > 0).sum()):,}, fewer in "
        f"{int((gap < 0).sum()):,}, and as many in {int((gap == 0).sum()):,}."
    )


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


def _rights(oof: Predictions) -> None:
    st.subheader("Are they right on different images?", anchor=False)
    st.dataframe(mcnemar_table(oof), hide_index=True)
    st.caption(
        "McNemar's test asks whether two rows are right equally often. Only the images on which one alone is right can "
        f"tell them apart. p is for each row against {plain(oof.members[0])} by itself, corrected for nothing."
    )


def _folds(run: View, names: list[str]) -> None:
    st.subheader("Fold by fold", anchor=False)
    table = fold_table(run, names)
    numbers = {c: st.column_config.NumberColumn(format="%.4f") for c in table.columns[1:]}
    st.dataframe(table, hide_index=True, column_config=numbers)


def _groups(run: View, oof: Predictions) -> None:
    with understood(run.store.path):
        groups = read_groups(run.store)
    if groups is None:
        return
    st.subheader("Group by group", anchor=False)
    table = group_table(oof, groups)
    lines(group_finding(table, *oof.members[:2]))
    shares = {c: st.column_config.NumberColumn(f"{capital(c)}, %", format="%.1f") for c in table.columns[2:]}
    st.dataframe(table, hide_index=True, column_config={"group": "Group", "images": "Images", **shares})
    st.caption(
        "Images of one group belong together, as those of a patient do. The groups that differ most come first."
    )


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


@st.fragment
def _ranking(run: View, oof: Predictions) -> None:
    two = oof.n_classes == 2  # either class has the same curve from another side: there is no average
    options = list(oof.classes[::-1]) if two else [ALL, *oof.classes]
    label = st.selectbox("Class", options, key="class", bind="query-params")
    roc, precision_recall = _ranked(run, oof, None if label == ALL and not two else label)
    left, right = st.columns(2)
    with left:
        draw(roc_figure(roc), "roc", "ROC curve of each row")
        st.caption(
            "As more images are taken for the class: the share of it that is found, against the share of all others "
            "that is taken for it. The area (AUC) is 1 for a perfect order and 0.5 for chance."
        )
    with right:
        figure = precision_recall_figure(precision_recall)
        draw(figure, "precision recall", "Precision against recall of each row")
        st.caption(
            "Precision is the share of what is taken for the class that is it, recall the share of the class that is "
            "found. Average precision is the area; for a rare class it says more than ROC."
        )


@st.cache_data(
    max_entries=16,
    show_spinner="Ranking…",
    hash_funcs={View: lambda run: run.key, Predictions: lambda oof: oof.members},
)
def _ranked(run: View, oof: Predictions, label: str | None) -> tuple[pd.DataFrame, pd.DataFrame]:  # noqa: ARG001
    return roc_frame(oof, label=label), precision_recall_frame(oof, label=label)
