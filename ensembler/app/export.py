"""Export: a row of the leaderboard as a bundle that predicts without the training code."""

from __future__ import annotations

import hashlib
import re
import shlex
import sys
from pathlib import Path

import streamlit as st

from ..bundle.layout import INDEX
from . import jobs, trying, watching
from .download import download_name, megabytes, size_of, zipped
from .reading import View
from .wording import headline, lines, plain

#: Seconds between two looks at a running export.
POLL_S = 1.0

#: A browser is sent at most so much: what it downloads passes through the app's memory.
MOST_DOWNLOADED = 1 << 30

_CARD = "README.md"

#: Wide tables scroll within the card instead of running out of it on a phone.
_NARROW_TABLES = (
    "<style>[data-testid=stMarkdownContainer] table {display: block; overflow-x: auto; width: fit-content; "
    "max-width: 100%}</style>"
)


def page(run: View) -> None:
    """Draws the page."""
    headline("Export a row")
    if not run.trained:
        st.info(
            "This run was made from predictions alone: it holds no models, so there is nothing to export. Only a "
            "run that `ensembler run` has trained can be exported.",
            icon=":material/block:",
        )
        return
    lines(
        "A bundle is a folder with everything that it takes to classify images: weights, combiner, model card."
    )
    winner = run.board.verdict.winner
    name = st.selectbox(
        "Row",
        run.rows,
        index=run.rows.index(winner),
        format_func=lambda row: f"{row} (recommended)" if row == winner else row,
        key="export",
        bind="query-params",
    )
    target = bundle_path(run.store.path, name)
    job = jobs.find(target)
    if job is not None and job.running:
        _watch(target)
        return
    there = (target / INDEX).is_file()
    st.markdown("The bundle is written to this folder, on the machine that runs the app:")
    st.code(str(target), language=None, wrap_lines=True)
    label = "Write it again" if there else "Export"
    if st.button(label, type="secondary" if there else "primary", icon=":material/deployed_code:"):
        jobs.start(target, command(run.store.path, name, target))
        st.rerun()
    if job is not None and not job.ok:
        st.error("The export failed:", icon=":material/error:")
        st.code(job.said() or "no reason was given", language=None, wrap_lines=True)
    elif there:
        _exported(target)
    with st.expander("The same on the command line"):
        st.code(
            shlex.join(["ensembler", *command(run.store.path, name, target)[3:]]),
            language="bash",
            wrap_lines=True,
        )


def bundle_path(run: Path, row: str) -> Path:
    """Where a row's bundle is written: always right below the run's own `bundles`, whatever the row is called."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", row).strip(".-")[:80]
    if safe != row or not safe:  # two rows must not share a folder
        safe = f"{safe or 'row'}-{hashlib.sha256(row.encode()).hexdigest()[:8]}"
    return run / "bundles" / safe


def command(run: Path, row: str, target: Path) -> list[str]:
    """The export in a process of its own, because it imports torch."""
    return [sys.executable, "-m", "ensembler", "export", str(run), f"--ensemble={row}", "-o", str(target)]


# ---------------------------------------------------------------------- pieces


@st.fragment(run_every=POLL_S)
def _watch(target: Path) -> None:
    job = jobs.find(target)
    if job is None or not job.running:
        st.rerun()
    # A container of it: used as a context itself, a status claims to be complete at the end of the block.
    with st.status(f"Exporting for {job.seconds:.0f} s", expanded=True).container():
        lines("The fold models of every member are gathered, checked and written. You may leave this page.")
        if job.said():
            st.code(job.said(), language=None, wrap_lines=True)


def _exported(target: Path) -> None:
    size = size_of(target)
    st.success(f"The bundle is there: {megabytes(size)}.", icon=":material/check_circle:")
    if size <= MOST_DOWNLOADED:
        st.download_button(
            f"Download ({megabytes(size)})",
            lambda: zipped(target).read_bytes(),
            download_name(target),
            "application/zip",
            on_click="ignore",
            icon=":material/download:",
        )
    else:
        lines("It is too large to download here: copy the folder.")
    st.markdown("Classify images with it, here or wherever *ensembler* is installed:")
    st.code(shlex.join(["ensembler", "predict", str(target)]) + " IMAGES", language="bash", wrap_lines=True)
    trying.section(target)
    watching.section(target)
    st.subheader("Model card", anchor=False)
    card = target / _CARD
    if card.is_file():
        with st.container(border=True):
            st.html(_NARROW_TABLES)
            st.markdown(_body(card.read_text(encoding="utf-8", errors="replace")))
    else:
        st.warning(f"{plain(card)} is missing: export it again.")


def _body(card: str) -> str:
    """A model card without its front matter, which is for machines, its headings below the page's."""
    body = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL)
    return re.sub(r"^(#+) ", r"##\1 ", body, flags=re.MULTILINE)
