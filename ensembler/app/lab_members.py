"""The members of the lab: a switch each, a weight each where weights are set by hand, and ways to set many at once."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from ..laboratory import Laboratory, Setup
from .wording import capital, metric_name, number, plain

#: Members in sight; a longer list scrolls within itself, at this height in pixels.
IN_SIGHT, HEIGHT = 8, 460

#: A weight at first, and the largest one; only ratios count.
EVEN, HEAVIEST = 50, 100

#: Members that "the best few" are.
FEW = 5


def choose(lab: Laboratory, names: Sequence[str], combiner: str) -> tuple[list[str], list[float]]:
    """The members that are on, and the weights of just these; none unless they are set by hand."""
    by_hand = combiner == "weighted"
    st.subheader("Members", anchor=False)
    timed = lab.cost(names).latency_ms is not None
    unit = f"{capital(metric_name(lab.metric.name))} alone" + (", and milliseconds an image" if timed else "")
    st.caption(f"{unit}, stand behind each name." if timed else f"{unit} stands behind each name.")
    _presets(lab, names, by_hand)
    chosen, weights = [], []
    with st.container(height=HEIGHT if len(names) > IN_SIGHT else "content", border=len(names) > IN_SIGHT):
        for i, name in enumerate(names):
            left, right = st.columns([3, 2]) if by_hand else (st.container(), None)
            on = left.toggle(_label(lab, i, name), True, key=switch(name), bind="query-params", wrap=True)
            if right is not None:
                weight = right.slider(
                    f"Weight of {plain(name)}",
                    0,
                    HEAVIEST,
                    EVEN,
                    key=slider(name),
                    bind="query-params",
                    disabled=not on,
                    label_visibility="collapsed",
                )
            if on:
                chosen.append(name)
                weights += [float(weight)] if right is not None else []
    return chosen, weights


def switch(name: str) -> str:
    """Key of a member's switch, in the page's state and in the URL."""
    return f"on-{name}"


def slider(name: str) -> str:
    """Key of a member's weight, in the page's state and in the URL."""
    return f"weight-{name}"


def in_hundreds(weights: dict[str, float]) -> dict[str, int]:
    """Weights as the sliders have them, the heaviest at the end.

    >>> in_hundreds({"a": 0.5, "b": 0.25, "c": 0.0})
    {'a': 100, 'b': 50, 'c': 0}
    """
    heaviest = max(weights.values())
    return {name: round(HEAVIEST * weight / heaviest) for name, weight in weights.items()}


# ---------------------------------------------------------------------- pieces


def _label(lab: Laboratory, i: int, name: str) -> str:
    latency = lab.cost([name]).latency_ms
    told = number(lab.scores[name]) + ("" if latency is None else f", {latency:.1f} ms")
    return f"{i + 1}\\. {plain(name)} · :small[{told}]"


def _presets(lab: Laboratory, names: Sequence[str], by_hand: bool) -> None:
    with st.container(horizontal=True):
        st.button("All on", on_click=_switch, args=(names, names))
        if len(names) > FEW:
            st.button(f"Best {FEW}", on_click=_switch, args=(names, names[:FEW]))
        st.button("Those of the best weights", on_click=_best, args=(lab, names, by_hand))
        if by_hand:
            st.button("Equal weights", on_click=_weigh, args=(dict.fromkeys(names, EVEN),))


def _switch(names: Sequence[str], on: Sequence[str]) -> None:
    for name in names:
        st.session_state[switch(name)] = name in on


def _weigh(weights: dict[str, int]) -> None:
    for name, weight in weights.items():
        st.session_state[slider(name)] = weight


def _best(lab: Laboratory, names: Sequence[str], by_hand: bool) -> None:
    """What the best weights make of all members."""
    outcome = lab.measure(Setup(tuple(names), "convex"))
    _switch(names, outcome.members)
    if by_hand:
        _weigh(in_hundreds(outcome.weights or {}))
