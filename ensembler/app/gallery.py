"""Images of a run as a grid of cards: the picture, what is said of it, and who votes for what."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from ..errors import printable
from ..figures import votes_figure
from .charts import draw
from .reading import View
from .thumbnails import Thumbnail, has_images, thumbnails
from .wording import count, plain

#: Cards a page.
PER_PAGE = 24

#: The number of the page, in the URL too.
PAGE = "page"

_GRID = "display:grid;gap:.75rem;align-items:start;grid-template-columns:repeat(auto-fill,minmax(min(10rem,100%),1fr))"
_CARD = "margin:0;border:1px solid rgba(128,128,128,.4);border-radius:.5rem;overflow:hidden"
_FRAME = (
    "aspect-ratio:1;display:flex;align-items:center;justify-content:center;background:rgba(128,128,128,.12)"
)
_TEXT = "padding:.5rem;font-size:.8rem;line-height:1.4;overflow-wrap:anywhere"


@dataclass(frozen=True)
class Card:
    """One image.

    Attributes:
        row: its position among the out-of-fold rows.
        sample_id: its name.
        title: what it is.
        lines: what is said of it, plain text.
        agree: what models do that vote for its label.
    """

    row: int
    sample_id: str
    title: str
    lines: tuple[str, ...]
    agree: str = "right"


def show(run: View, cards: Sequence[Card], votes: Callable[[list[int]], pd.DataFrame], key: str) -> None:
    """Draws one page of the cards, and the numbers of all pages.

    Args:
        run: whose images they are.
        cards: all of them, in order; at least one.
        votes: what the models say of some rows, as `figures.votes_frame`; asked for those that are drawn.
        key: of these cards, unique on the page; other cards begin at their first page.
    """
    above = st.container()
    pages = -(-len(cards) // PER_PAGE)
    page = _page(pages, f"{run.store.path}\n{key}")
    start = (page - 1) * PER_PAGE
    shown = cards[start : start + PER_PAGE]
    pictures = thumbnails(run, [card.row for card in shown]) if has_images(run) else None
    asked = votes([card.row for card in shown])
    with above:
        st.html(grid_html(shown, pictures, asked, start + 1))
        if pages > 1:
            st.caption(f"Images {start + 1:,} to {start + len(shown):,} of {len(cards):,}.")
        _say_what_is_missing(run, pictures)
    _at_a_glance(asked, start + 1)


def grid_html(
    cards: Sequence[Card], pictures: Sequence[Thumbnail] | None, votes: pd.DataFrame, first: int = 1
) -> str:
    """The cards as HTML; every name in it is escaped, and shown as one line without control characters.

    Args:
        cards: of a page.
        pictures: one a card; None in a run without images.
        votes: of `figures.votes_frame`, for any rows.
        first: the number of the first card.
    """
    of_row = {int(part["row"].iloc[0]): part for _, part in votes.groupby("row", sort=False)}
    drawn = []
    for i, card in enumerate(cards):
        name = _text(card.sample_id)
        picture = _picture(pictures[i], name) if pictures is not None else ""
        said = "".join(f"<div><bdi>{_text(line)}</bdi></div>" for line in card.lines)
        drawn.append(
            f'<figure style="{_CARD}">{picture}<figcaption style="{_TEXT}">'
            f"<div>{first + i}. <b><bdi>{_text(card.title)}</bdi></b></div>{said}"
            f"{_votes(of_row.get(card.row), card.agree)}"
            f'<div style="opacity:.7;margin-top:.25rem"><bdi>{name}</bdi></div></figcaption></figure>'
        )
    return f'<div style="{_GRID}">{"".join(drawn)}</div>'


# ---------------------------------------------------------------------- pieces


def _page(pages: int, key: str) -> int:
    """The number that the URL or the visitor gives, from 1; that of other cards, or of more cards, is none of these."""
    if st.session_state.get("cards", key) != key or st.session_state.get(PAGE, 1) > pages:
        st.session_state[PAGE] = 1
    st.session_state["cards"] = key
    return st.pagination(pages, key=PAGE, bind="query-params") if pages > 1 else 1


def _at_a_glance(votes: pd.DataFrame, first: int) -> None:
    with st.expander("All votes on this page at a glance"):
        figure = votes_figure(votes, first).update_traces(showscale=False)
        draw(figure, "votes", "What every model gives to the true class of each image")
        st.caption(
            "The darker, the more probable a model finds the true class; × where another is more probable to it. "
            "Images have the numbers that they have above."
        )


def _picture(picture: Thumbnail, name: str) -> str:
    if not picture.uri:
        return f'<div style="{_FRAME}"><div style="{_TEXT};opacity:.8">No picture. {_text(picture.note)}</div></div>'
    style = "width:100%;height:100%;object-fit:contain"
    if picture.uri.startswith("data:image/png"):  # made for tiny pictures only
        style += ";image-rendering:pixelated"
    return f'<div style="{_FRAME}"><img src="{picture.uri}" alt="{name}" style="{style}"></div>'


def _votes(part: pd.DataFrame | None, agree: str) -> str:
    if part is None:
        return ""
    lines = "".join(
        f"<div>{'✓' if right else '✗'} <bdi>{_text(member)}</bdi>: <b><bdi>{_text(said)}</bdi></b> {sure:.0%}</div>"
        for member, said, sure, right in part[["member", "said", "confidence", "right"]].itertuples(
            index=False
        )
    )
    title = f"{int(part['right'].sum())} of {count(len(part), 'model')} {html.escape(agree)}"
    return f'<details style="margin-top:.25rem"><summary style="cursor:pointer">{title}</summary>{lines}</details>'


def _say_what_is_missing(run: View, pictures: Sequence[Thumbnail] | None) -> None:
    if pictures is None:
        st.caption(
            "This run was made from predictions alone, so there are no pictures to show: images go by their names."
        )
        return
    missing = [p.note for p in pictures if not p.uri]
    copies = [p.note for p in pictures if p.uri and p.note]
    for notes, what in (
        (missing, "cannot be shown"),
        (copies, "are copies from the cache of decoded images"),
    ):
        if notes:
            st.caption(
                f"{len(notes)} of {count(len(pictures), 'picture')} {what}. The first: {plain(notes[0])}. "
                f"The run {plain(run.store.name)} expects its images where they were when it was made."
            )


def _text(value: object) -> str:
    return html.escape(printable(str(value)))
