"""The script that Streamlit runs: the run picker, and the pages of the chosen run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import streamlit as st

from ensembler.app import compare, export, leaderboard, picker, reading, states
from ensembler.errors import EnsemblerError
from ensembler.store import RunStore

#: Where runs are looked for when the command line does not say.
RUNS_VARIABLE = "ENSEMBLER_RUNS"

#: Drawn here, because Streamlit would fetch an icon by name from the internet.
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="#0072B2">'
    '<path d="M2 10h6v11H2z"/><path d="M9 3h6v18H9z" fill="#D55E00"/><path d="M16 13h6v8h-6z"/></svg>'
)

#: Title, icon, and what draws the page; the first is the home page.
PAGES: tuple[tuple[str, str, Callable[[reading.View], None]], ...] = (
    ("Leaderboard", ":material/leaderboard:", leaderboard.page),
    ("Compare", ":material/compare_arrows:", compare.page),
    ("Export", ":material/deployed_code:", export.page),
)


def main() -> None:
    """Draws the app."""
    st.set_page_config(page_title="ensembler", page_icon=ICON, layout="wide")
    store = chosen_run(runs_folder())
    pages = [
        st.Page(partial(show, store, draw), title=title, icon=icon, url_path=title.lower(), default=not i)
        for i, (title, icon, draw) in enumerate(PAGES)
    ]
    st.navigation(pages).run()


def chosen_run(folder: Path) -> RunStore | None:
    """The run to show; None where there is none, which has been said then."""
    try:
        stores = reading.runs(folder)
    except EnsemblerError as error:
        states.damaged(error)
        return None
    if not stores:
        states.no_runs(folder)
        return None
    return picker.choose(stores)


def runs_folder() -> Path:
    """From the command line (`streamlit run app.py -- RUNS`), the environment, or `runs` here."""
    named = sys.argv[1] if len(sys.argv) > 1 else os.environ.get(RUNS_VARIABLE, "runs")
    return Path(named).expanduser().resolve()


def show(store: RunStore | None, draw: Callable[[reading.View], None]) -> None:
    """One page of the chosen run, or why it cannot be shown."""
    if store is None:
        return
    try:
        try:
            run = reading.view(store)
        except reading.NotReadyError:
            states.unfinished(store)
        else:
            draw(run)
    except EnsemblerError as error:
        states.damaged(error)


if __name__ == "__main__":
    main()
