"""Keeping an ensemble of the lab: a row of the leaderboard from then on, and those that were kept before."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from functools import partial

import streamlit as st

from ..errors import EnsemblerError
from ..laboratory import Laboratory, Setup
from ..saved import note, saved_entries
from ..saving import forget_ensemble, save_ensemble
from ..store import understood
from .reading import View
from .wording import lines, metric_name, number, plain

#: What was done last, told once: a page that has changed the run is drawn anew.
_TOLD = "lab-told"


def save(run: View, lab: Laboratory, setup: Setup | None) -> None:
    """A name and a button; `setup` is None where there is nothing to keep."""
    st.subheader("Keep it", anchor=False)
    told = st.session_state.pop(_TOLD, None)
    if told is not None:
        st.success(plain(told), icon=":material/check_circle:")
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    name = left.text_input("Name", max_chars=100, placeholder="my-ensemble", key="lab-name")
    pressed = right.button(
        "Save", disabled=setup is None, type="primary", icon=":material/save:", width="stretch"
    )
    if pressed and setup is not None:
        with st.spinner("Fitting, and comparing with all rows…"):
            _change(run, lambda: save_ensemble(run.store, name, lab.options(setup)), f"Saved: {name.strip()}")
    st.caption(
        "It becomes a row of the leaderboard, to compare, export and predict with like any other. A note there says "
        "that it was made by hand, and the verdict does not count it."
    )
    _kept(run)


# ---------------------------------------------------------------------- pieces


def _kept(run: View) -> None:
    saved = saved_entries(run.manifest)
    if not saved:
        return
    scores = dict(zip(run.board.frame["name"], run.board.frame["cv"], strict=True))
    unmet = {one["name"]: one["reason"] for one in run.manifest.get("unmet_saved", [])}
    with st.expander(f"Saved here: {len(saved)}", expanded=True, key="lab-saved"):
        for name, options in saved:
            left, right = st.columns([4, 1], vertical_alignment="center")
            with left:
                about = f"{metric_name(run.metric)} {number(scores.get(name))}; {note(options)}"
                lines(name, f"Not on the leaderboard: {unmet[name]}" if name in unmet else about)
            if right.button("Remove", key=f"lab-remove-{name}", icon=":material/delete:", width="stretch"):
                with st.spinner("Comparing without it…"):
                    _change(run, partial(forget_ensemble, run.store, name), f"Removed: {name}")
        if run.trained:
            st.markdown("As a folder that predicts, on the command line:")
            command = ["ensembler", "export", str(run.store.path), "--ensemble", saved[-1][0]]
            st.code(shlex.join(command), language="bash", wrap_lines=True)


def _change(run: View, work: Callable[[], object], told: str) -> None:
    """Changes the run and draws the page anew, or says why not."""
    try:
        with understood(run.store.path):
            work()
    except EnsemblerError as error:
        st.error(plain(error), icon=":material/block:")
    else:
        st.session_state[_TOLD] = told
        st.rerun()
