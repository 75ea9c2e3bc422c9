"""Why an ensemble in the lab is worth what it is: how differently its members err, and what each of them adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import streamlit as st

from ..figures import (
    MEASURES,
    contribution_figure,
    contribution_frame,
    diversity_figure,
    diversity_frame,
    weights_figure,
    weights_frame,
)
from ..laboratory import Laboratory, Outcome
from .charts import draw, names_inside
from .reading import View
from .wording import count, lines, metric_name

#: Members that add most, and least, of which is drawn what they add.
MOST, LEAST = 12, 5

#: What the measures tell, in a sentence.
_TELLS = {
    "disagreement": "Share of the images on which two members choose different classes. Two that never differ are one.",
    "both_wrong": "Share of the images on which both are wrong, which no average of the two can mend; a member with "
    "itself: its error rate.",
    "error_correlation": "1: they fail on the same images. 0: one's failures say nothing of the other's. Below 0: one "
    "is right where the other fails.",
}


def diversity(run: View, lab: Laboratory, members: Sequence[str], numbers: Mapping[str, int]) -> None:
    """The map of all pairs."""
    st.subheader("How differently do they err?", anchor=False)
    frame = _diversity(run, lab, tuple(members))
    measure = st.segmented_control(
        "Compared by",
        list(MEASURES),
        default="disagreement",
        format_func=lambda key: MEASURES[key][0],
        key="diversity",
        required=True,
        bind="query-params",
        label_visibility="collapsed",
    )
    lines(extremes(frame))
    figure = diversity_figure(frame, measure or "disagreement", numbers)
    draw(figure, "lab-diversity", "Heat map: how differently every two members err")
    st.caption(f"{_TELLS[measure or 'disagreement']} The numbers are those of the list of members.")


def weights(outcome: Outcome) -> None:
    """How much each member counts, where the answer is a weighted mean and not all count the same."""
    found = {name: weight for name, weight in (outcome.weights or {}).items() if weight > 0}
    if len({round(weight, 9) for weight in found.values()}) < 2:
        return
    st.subheader("How much does each member count?", anchor=False)
    frame = weights_frame(found)
    figure = names_inside(weights_figure(frame), len(frame), 0.0, float(frame["weight"].max()))
    draw(figure, "lab-weights", "The weight of each member")
    unused = len(outcome.fit.combiner.members_) - len(found)
    if unused:
        st.caption(f"{count(unused, 'member')} with weight 0 not drawn: not needed, and not paid for.")


def contribution(lab: Laboratory, members: Sequence[str]) -> None:
    """What each member adds to the plain mean."""
    st.subheader("What does each member add?", anchor=False)
    with st.spinner("Trying orders of members…"):
        found = lab.contributions(members)
    frame, left_out = _ends(contribution_frame(found, lab.metric))
    marks = frame[["low", "high", "leave_one_out"]]
    low, high = min(0.0, float(marks.min().min())), max(0.0, float(marks.max().max()))
    figure = names_inside(contribution_figure(frame), len(frame), low, high)
    draw(figure, "lab-contribution", "What each member adds to the plain average of the members")
    st.caption(
        f"Of the plain average of these members, in {metric_name(lab.metric.name)}, whatever the combiner. Circles: "
        f"what a member gains on average when it joins, over {found.n_orders} orders of joining (Shapley value), "
        "beginning with knowing no image. Diamonds: what is lost when it alone leaves; below 0, the average is "
        "better without it." + (f" The {left_out} members in the middle are not drawn." if left_out else "")
    )


def extremes(frame: pd.DataFrame) -> str:
    """The pair of members that is most alike, and the one that differs most; `frame` is of `diversity_frame`."""
    pairs = frame[frame["first"] < frame["second"]]
    if pairs.empty:
        return ""
    alike, apart = (pairs.loc[pairs["disagreement"].agg(which)] for which in ("idxmin", "idxmax"))
    told = [
        f"{pair['first']} and {pair['second']} ({pair['disagreement']:.1%} differ)" for pair in (alike, apart)
    ]
    return f"Most alike: {told[0]}." if len(pairs) == 1 else f"Most alike: {told[0]}. Least: {told[1]}."


# ---------------------------------------------------------------------- pieces


def _ends(frame: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The rows at both ends of a long frame, and how many are left out between them."""
    left_out = max(0, len(frame) - MOST - LEAST)
    if not left_out:
        return frame, 0
    return pd.concat([frame.head(MOST), frame.tail(LEAST)], ignore_index=True), left_out


@st.cache_data(
    max_entries=32,
    show_spinner=False,
    hash_funcs={View: lambda run: run.key, Laboratory: lambda _: None},
)
def _diversity(run: View, lab: Laboratory, members: tuple[str, ...]) -> pd.DataFrame:  # noqa: ARG001
    return diversity_frame(lab.predictions.select(members))
