"""The script that Streamlit runs: the run picker, and the pages of the chosen run."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import streamlit as st

from ensembler.app import picker, reading, states
from ensembler.errors import EnsemblerError
from ensembler.store import RunStore

#: Where runs are looked for when the command line does not say.
RUNS_VARIABLE = "ENSEMBLER_RUNS"

#: Drawn here, because Streamlit would fetch an icon by name from the internet.
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="#0072B2">'
    '<path d="M2 10h6v11H2z"/><path d="M9 3h6v18H9z" fill="#D55E00"/><path d="M16 13h6v8h-6z"/></svg>'
)


@dataclass(frozen=True)
class Page:
    """One entry of the navigation.

    Attributes:
        module: of this package; its `page` draws the page, and its name is the page's address. It is imported when
            the page is opened: who opens one page does not wait for the imports of all.
        title, icon: as the navigation shows them.
        needs: what `page` is given: "results", a `reading.View`, which a run without a leaderboard has not yet;
            "run", its `RunStore`, whatever state it is in; "folder", the folder of runs.
    """

    module: str
    title: str
    icon: str
    needs: Literal["results", "run", "folder"] = "results"

    def draw(self, given: Any) -> None:
        """Draws the page."""
        importlib.import_module(f"ensembler.app.{self.module}").page(given)


#: The navigation, by heading; the first page is the home page.
PAGES: dict[str, tuple[Page, ...]] = {
    "Decide": (
        Page("overview", "Overview", ":material/home:"),
        Page("leaderboard", "Leaderboard", ":material/leaderboard:"),
        Page("compare", "Compare", ":material/compare_arrows:"),
        Page("lab", "Ensemble lab", ":material/experiment:"),
        Page("errors", "Errors", ":material/image_search:"),
    ),
    "Sweep": (
        Page("live", "Live", ":material/monitoring:", needs="run"),
        Page("search", "Search", ":material/tune:", needs="run"),
        Page("data", "Data", ":material/photo_library:", needs="run"),
        Page("launch", "Launch", ":material/rocket_launch:", needs="folder"),
    ),
    "Deliver": (Page("export", "Export", ":material/deployed_code:"),),
}


def main() -> None:
    """Draws the app."""
    st.set_page_config(page_title="ensembler", page_icon=ICON, layout="wide")
    folder = runs_folder()
    store, without = chosen_run(folder)
    home = next(iter(PAGES.values()))[0]
    pages = {
        heading: [
            st.Page(
                partial(show, page, folder, store, without),
                title=page.title,
                icon=page.icon,
                url_path=page.module,
                default=page is home,
            )
            for page in group
        ]
        for heading, group in PAGES.items()
    }
    st.navigation(pages).run()


def chosen_run(folder: Path) -> tuple[RunStore | None, Callable[[], None]]:
    """The run to show, or None and what says why there is none."""
    try:
        stores = reading.runs(folder)
    except EnsemblerError as error:
        return None, partial(states.damaged, error)
    if not stores:
        return None, partial(states.no_runs, folder)
    return picker.choose(stores), lambda: None  # which has said so, where the URL names no run


def runs_folder() -> Path:
    """From the command line (`streamlit run app.py -- RUNS`), the environment, or `runs` here."""
    named = sys.argv[1] if len(sys.argv) > 1 else os.environ.get(RUNS_VARIABLE, "runs")
    return Path(named).expanduser().resolve()


def show(page: Page, folder: Path, store: RunStore | None, without: Callable[[], None]) -> None:
    """One page, or why it cannot be shown; `without` says that of a page that needs a run, where there is none."""
    try:
        if page.needs == "folder":
            page.draw(folder)
        elif store is None:
            without()
        elif page.needs == "run":
            page.draw(store)
        else:
            _results(page, store)
    except EnsemblerError as error:
        states.damaged(error)


def _results(page: Page, store: RunStore) -> None:
    try:
        run = reading.view(store)
    except reading.NotReadyError:
        states.unfinished(store)
    else:
        page.draw(run)


if __name__ == "__main__":
    main()
