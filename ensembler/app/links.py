"""Links from one page to another that keep the run in the URL."""

from __future__ import annotations

import streamlit as st

from .picker import KEY
from .wording import plain


def known(module: str) -> bool:
    """Whether there is such a page."""
    return module in _pages()


def link(module: str, label: str, run: str, **query: str | list[str]) -> None:
    """A link to a page of a run; nothing where there is no such page.

    Args:
        module: name of the page's module.
        label: plain text.
        run: name of the run.
        query: further parameters of the page's address: what is chosen on it.
    """
    pages = _pages()
    if module not in pages:
        return
    title, icon, home = pages[module]
    # A page is known by its address: this one stands for that of the navigation.
    target = st.Page(_nowhere, title=title, icon=icon, url_path=module, default=home)
    st.page_link(target, label=plain(label), icon=icon, query_params={KEY: run, **query})


def _pages() -> dict[str, tuple[str, str, bool]]:
    """Title, icon and whether it is the home page, by module."""
    from .main import PAGES  # which imports those who link

    pages = [page for group in PAGES.values() for page in group]
    return {page.module: (page.title, page.icon, page is pages[0]) for page in pages}


def _nowhere() -> None:
    """Draws nothing: only the navigation's own pages are drawn."""
