"""Which run the pages show. The URL is the truth (`?run=name`), so that a view can be shared."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from ..store import RunStore
from .wording import plain

KEY = "run"


def choose(stores: Sequence[RunStore]) -> RunStore | None:
    """The run that the URL or the sidebar names, else the newest; None when the URL names none of them.

    A name is only ever compared with the names of the runs that were found: no path is made from it.
    """
    known = {store.name: store for store in stores}
    asked = st.query_params.get(KEY)  # absent after a change of page, which clears the URL's parameters
    refused = asked is not None and asked not in known
    if asked is not None:
        st.session_state[KEY] = None if refused else asked
    elif st.session_state.get(KEY) not in known:
        st.session_state[KEY] = stores[0].name
    if len(known) == 1 and not refused:
        # Nothing to choose from: a browser has the first page half a second sooner without the widget.
        st.sidebar.markdown(f"Run **{plain(stores[0].name)}**")
        st.query_params[KEY] = stores[0].name
        return stores[0]
    chosen = st.sidebar.selectbox(
        "Run", list(known), None, key=KEY, placeholder="Choose a run", on_change=_into_url
    )
    if refused:
        st.error(
            f"There is no run named {plain(repr(asked))} here. Choose one in the sidebar.",
            icon=":material/block:",
        )
        return None
    if chosen is None:
        return None
    st.query_params[KEY] = chosen
    return known[chosen]


def _into_url() -> None:
    chosen = st.session_state[KEY]
    if chosen is None:
        st.query_params.pop(KEY, None)
    else:
        st.query_params[KEY] = chosen
