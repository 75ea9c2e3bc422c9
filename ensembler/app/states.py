"""What a page says when there is no leaderboard to show, and what to do then."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from ..errors import EnsemblerError
from ..store import RunStore
from .following import State, Story, at_work, followed, state_of
from .links import link
from .reading import stamp
from .wording import count, headline, plain

#: Seconds between two looks at a run that has no leaderboard yet.
POLL_S = 3.0

#: What a stage does, for people.
STAGES = {
    "sweep": "training",
    "combine": "combining",
    "compare": "comparing",
    "collapse": "collapsing folds",
    "test": "testing",
}


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


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        run: how it stands.
        stage: the last that began; None before the first.
        state: of that stage: "running", "done" or "failed".
        reason: of a failure.
        ended: trainings that ended so far.
        failed: how many of them failed.
    """

    run: State = "new"
    stage: str | None = None
    state: str = "running"
    reason: str = ""
    ended: int = 0
    failed: int = 0


def progress(store: RunStore) -> Progress:
    """How far a run is.

    Raises:
        StoreError: its log is damaged.
    """
    working = at_work(store)
    with followed(store).up_to_date() as story:
        return progress_of(story, working)


def progress_of(story: Story, working: bool) -> Progress:
    """The same, of a story; `working` is `following.at_work`."""
    ended = [t for t in story.trials if t.state not in ("running", "lost")]
    failed = sum(t.state == "failed" for t in ended)
    last = story.stage
    if last is None:
        return Progress(state_of(story, working))
    return Progress(state_of(story, working), last.name, last.state, last.reason, len(ended), failed)


def unfinished(store: RunStore) -> None:
    """The run has no leaderboard yet."""
    now = progress(store)
    stands(store, now)
    if now.run == "running":
        st.markdown("The leaderboard appears here when all stages are done.")
    if now.ended:
        failures = f", {now.failed} of them failed" if now.failed else ""
        st.markdown(f"{count(now.ended, 'training')} ended so far{failures}.")
    link("live", "Watch the sweep", store.name)
    st.button("Look again", icon=":material/refresh:")
    _wait_for(store)


def stands(store: RunStore, now: Progress) -> None:
    """A headline that says how a run stands, and what to do where it does not go on by itself."""
    stage = STAGES.get(now.stage or "", now.stage or "preparing the images")
    if now.run == "running":
        headline(f"{store.name} is still running")
        st.info(f"Stage: {plain(stage)}.", icon=":material/hourglass_top:")
    elif now.run == "failed":
        headline(f"{store.name} stopped in the stage “{now.stage}”")
        st.error(plain(now.reason), icon=":material/error:")
        _resume(store, "Mend the cause, then go on. Whatever is finished is kept:")
    elif now.run in ("stopped", "interrupted"):
        headline(f"{store.name} was {'stopped by hand' if now.run == 'stopped' else 'interrupted'}")
        st.warning(
            f"Nobody works on it. It had come to the stage: {plain(stage)}.", icon=":material/pause_circle:"
        )
        _resume(store, "Go on where it ended. Whatever is finished is kept:")
    elif now.run == "paused":
        headline(f"{store.name} is trained, but not compared yet")
        _resume(store, "Make the comparison:", shlex.join(["ensembler", "combine", str(store.path)]))
    elif now.run == "new":
        headline(f"{store.name} has no leaderboard yet")
        st.warning("Nothing was trained, and nobody works on it.", icon=":material/pause_circle:")
        _resume(store, "Start it again:")
    else:
        headline(f"{store.name} is finished")


def resume_command(store: RunStore) -> str:
    """What to type so that a run goes on.

    >>> resume_command(RunStore("/runs/my pets"))
    "ensembler combine '/runs/my pets'"
    """
    config = store.path / "config.yaml"
    if not config.is_file():  # made from predictions
        return shlex.join(["ensembler", "combine", str(store.path)])
    return shlex.join(["ensembler", "run", str(config), "-o", str(store.path)])


def damaged(error: EnsemblerError) -> None:
    """The run cannot be read."""
    headline("This run cannot be shown")
    st.error(plain(error), icon=":material/broken_image:")
    st.markdown("Other runs are in the sidebar. When the cause is mended, look again:")
    st.button("Look again", icon=":material/refresh:")


def _resume(store: RunStore, words: str, command: str = "") -> None:
    st.markdown(words)
    st.code(command or resume_command(store), language="bash", wrap_lines=True)
    link("launch", "Or do it from here", store.name)


def _wait_for(store: RunStore) -> None:
    """Shows the leaderboard as soon as there is one, without being asked."""
    before = stamp(store)

    @st.fragment(run_every=POLL_S)
    def watch() -> None:
        if stamp(store) != before:
            st.rerun()

    watch()
