"""What a page says when there is no leaderboard to show, and what to do then."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from ..errors import EnsemblerError
from ..store import RunStore
from .reading import stamp, understood
from .wording import count, headline, plain

#: A sweep that wrote nothing for so long has probably been stopped.
QUIET_S = 600


@dataclass(frozen=True)
class Progress:
    """How far a run is, from its events.

    Attributes:
        stage: the last that began; None before the first.
        state: of that stage: "running", "done" or "failed".
        reason: of a failure.
        ended: Cells and trials that ended in all stages so far.
        failed: how many of them failed.
        quiet_s: seconds since the last event.
    """

    stage: str | None = None
    state: str = "running"
    reason: str = ""
    ended: int = 0
    failed: int = 0
    quiet_s: float = 0.0


def progress(store: RunStore) -> Progress:
    """How far a run is.

    Raises:
        StoreError: its log is damaged.
    """
    with understood(store.path):
        return _progress(store.events())


def _progress(events: Sequence[Mapping[str, Any]]) -> Progress:
    stages = [e for e in events if e.get("kind") == "stage"]
    trials = [e for e in events if e.get("kind") == "trial" and e.get("state") != "started"]
    last = stages[-1] if stages else {}
    return Progress(
        stage=last.get("stage"),
        state=str(last.get("state", "running")),
        reason=str(last.get("reason", "")),
        ended=len(trials),
        failed=sum(e.get("state") == "failed" for e in trials),
        quiet_s=max(0.0, time.time() - float(events[-1]["t"])) if events else 0.0,
    )


def no_runs(folder: Path) -> None:
    """The folder holds no run, or is not there."""
    headline("No runs yet")
    where = "is empty of runs" if folder.is_dir() else "does not exist yet"
    st.markdown(
        f"The folder {plain(folder)} {where}. Make a first run, a minute or two on handwritten digits:"
    )
    st.code("ensembler run configs/quickstart.yaml", language="bash")
    st.markdown("Or compare predictions that you already have, out of fold, from any training code:")
    st.code("ensembler combine --predictions predictions.npz", language="bash")
    st.markdown("Runs are looked for in one folder. Name another one like this:")
    st.code("ensembler app path/to/runs", language="bash")
    st.button("Look again", icon=":material/refresh:")


def unfinished(store: RunStore) -> None:
    """The run has no leaderboard yet."""
    now = progress(store)
    if now.state == "failed":
        headline(f"{store.name} stopped in the stage “{now.stage}”")
        st.error(plain(now.reason), icon=":material/error:")
        st.markdown("Mend the cause, then run the same command again. Whatever is finished is kept.")
    elif now.quiet_s > QUIET_S or now.stage is None:
        headline(f"{store.name} has no leaderboard yet")
        st.warning(
            "Nothing has been written lately. If the sweep was stopped, run the same command again: "
            "whatever is finished is kept.",
            icon=":material/pause_circle:",
        )
    else:
        headline(f"{store.name} is still running")
        st.info(
            f"Stage: {plain(now.stage)}. The leaderboard appears here when all stages are done.",
            icon=":material/hourglass_top:",
        )
    if now.ended:
        failures = f", {now.failed} of them failed" if now.failed else ""
        st.markdown(f"{count(now.ended, 'training')} ended so far{failures}.")
    st.button("Look again", icon=":material/refresh:")
    _wait_for(store)


def damaged(error: EnsemblerError) -> None:
    """The run cannot be read."""
    headline("This run cannot be shown")
    st.error(plain(error), icon=":material/broken_image:")
    st.markdown("Other runs are in the sidebar. When the cause is mended, look again:")
    st.button("Look again", icon=":material/refresh:")


def _wait_for(store: RunStore) -> None:
    """Shows the leaderboard as soon as there is one, without being asked."""
    before = stamp(store)

    @st.fragment(run_every=3.0)
    def watch() -> None:
        if stamp(store) != before:
            st.rerun()

    watch()
