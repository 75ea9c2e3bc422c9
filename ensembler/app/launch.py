"""Launch: sweeps that run, and a new one from a config that is checked and planned before it starts."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from .. import planning
from ..config import Config
from ..config_text import MAX_CONFIG_BYTES, read_yaml
from ..errors import ConfigError, EnsemblerError
from ..store import RunStore
from . import drafts, sweeps
from .links import link
from .plans import plan_table, plan_words
from .server import may_launch
from .sweeps import Sweep
from .wording import count, headline, lines, plain

#: Seconds between two looks at sweeps that run.
POLL_S = 2.0

#: Sweeps at rest that are listed; there may be hundreds.
MOST_RESTING = 20

_STATE = {
    "starting": (":material/hourglass_top:", "is starting"),
    "running": (":material/play_circle:", "is running"),
    "stopping": (":material/pending:", "is stopping"),
    "elsewhere": (":material/computer:", "is running on another machine"),
    "stopped": (":material/pause_circle:", "is stopped"),
    "failed": (":material/error:", "has failed"),
    "finished": (":material/check_circle:", "is finished"),
}


def page(folder: Path) -> None:
    """Draws the page."""
    headline("Launch a sweep")
    lines(
        "A sweep trains and compares the models that its config names. It is a process of its own on the machine that "
        "runs the app: it goes on when you leave this page or close the app."
    )
    allowed = may_launch(st.get_option("server.address"), os.environ)
    if not allowed:
        st.info(
            "Launching is off, because other machines can reach this app. Whoever started it can allow it with "
            "`ensembler app --allow-launch`, or start sweeps with `ensembler run`.",
            icon=":material/lock:",
        )
    if RunStore(folder).exists():
        st.info(
            f"The app was opened on one run alone. Open it on the folder of runs to start a sweep: "
            f"`ensembler app` {plain(folder.parent)}",
            icon=":material/folder:",
        )
        return
    found = sweeps.find(folder)
    if any(sweep.live for sweep in found):
        _watch(folder, allowed, _states(found))
    else:
        _sweeps(found, allowed)
    if allowed:
        _new(folder)


@dataclass(frozen=True)
class Problem:
    """What is wrong with a config, and where.

    Attributes:
        message: what, and the way out.
        line: of the text, from 1; None where it is the whole.
        field: such as "search.trials"; "" where it is no field.
    """

    message: str
    line: int | None = None
    field: str = ""


def check(text: str, path: Path) -> tuple[Config | None, Problem | None]:
    """The config of a text, or what is wrong with it.

    Args:
        text: YAML.
        path: of the file that the text is of, or could be: relative paths are relative to its folder.
    """
    try:
        if len(text.encode()) > MAX_CONFIG_BYTES:
            raise ConfigError(
                f"{path}: larger than {MAX_CONFIG_BYTES} bytes; this is no config, choose another"
            )
        config = Config.parse(text, path)
        planning.require_source(config, read_yaml(text, path)[1], path)
    except EnsemblerError as error:
        return None, problem(error, path)
    return config, None


def problem(error: EnsemblerError, path: Path) -> Problem:
    """An error of a config, taken apart: `file:line field: what; the way out`."""
    said = str(error)
    if not said.startswith(str(path)):
        return Problem(said)
    found = re.match(r":(\d+)(?: ([^\s:]+))?: (.*)", said[len(str(path)) :], re.DOTALL)
    if found is None:
        return Problem(said[len(str(path)) :].removeprefix(":").strip())
    return Problem(found[3], int(found[1]), found[2] or "")


def excerpt(text: str, line: int, around: int = 2) -> str:
    """The lines around one, numbered, with a mark at it.

    >>> print(excerpt("a: 1\\nb: 2\\nc: 3", 2, around=1))
      1  a: 1
    > 2  b: 2
      3  c: 3
    """
    rows = text.splitlines() or [""]
    line = min(max(line, 1), len(rows))
    first, last = max(1, line - around), min(len(rows), line + around)
    width = len(str(last))
    return "\n".join(
        f"{'>' if n == line else ' '} {n:{width}}  {rows[n - 1]}" for n in range(first, last + 1)
    )


# ---------------------------------------------------------------------- the sweeps there are


def _states(found: list[Sweep]) -> list[tuple[str, str]]:
    return [(sweep.store.name, sweep.state) for sweep in found]


@st.fragment(run_every=POLL_S)
def _watch(folder: Path, allowed: bool, before: list[tuple[str, str]]) -> None:
    found = sweeps.find(folder)
    if _states(found) != before:
        st.rerun()  # the list of runs in the sidebar may have grown too
    _sweeps(found, allowed)


def _sweeps(found: list[Sweep], allowed: bool) -> None:
    live = [sweep for sweep in found if sweep.live]
    resting = [sweep for sweep in found if not sweep.live]
    just_ended = [s for s in resting if s.store.path in st.session_state.get("launched", ())]
    for sweep in [*live, *just_ended]:
        _card(sweep, allowed)
    rest = [s for s in resting if s not in just_ended and s.state != "finished"]
    if rest:
        with st.expander(f"{count(len(rest), 'sweep')} that did not come to an end"):
            for sweep in rest[:MOST_RESTING]:
                _card(sweep, allowed)
            if len(rest) > MOST_RESTING:
                lines(f"and {len(rest) - MOST_RESTING} more in the folder")


def _card(sweep: Sweep, allowed: bool) -> None:
    icon, state = _STATE[sweep.state]
    name = sweep.store.name
    with st.container(border=True):
        since = f", since {sweep.since}" if sweep.since and sweep.live else ""
        st.markdown(f"{icon} **{plain(name)}** {state}{plain(since)}.")
        if sweep.reason:
            st.error(plain(sweep.reason))
        if sweep.state == "elsewhere":
            lines(f"It runs on {sweep.host}; stop it there.")
        if sweep.state == "finished":
            link("leaderboard", "See its leaderboard", name)
        elif sweep.store.exists():
            link("live", "See how far it is", name)
        if allowed and sweep.state in ("starting", "running", "stopping"):
            _stop_button(sweep)
        if allowed and sweep.resumable:
            lines("Whatever is finished is kept; only the rest is trained.")
            if st.button("Resume", key=f"resume-{name}", icon=":material/play_arrow:"):
                _remember(sweep.store)
                sweeps.resume(sweep.store)
                st.rerun()
        elif sweep.state in ("stopped", "failed") and not sweep.resumable:
            lines("It had not begun to train, so there is nothing to resume: start it anew below.")
        said = sweeps.last_words(sweep.store)
        if said and allowed:
            with st.expander("What it said last"):
                st.code(said, language=None, wrap_lines=True)


def _stop_button(sweep: Sweep) -> None:
    if sweep.state == "stopping":
        lines(
            f"It has {sweeps.GRACE_S:.0f} s to end in good order. Whatever is finished is kept, and it can be resumed."
        )
    elif st.button("Stop", key=f"stop-{sweep.store.name}", icon=":material/stop:"):
        _remember(sweep.store)
        sweeps.stop(sweep.store)
        st.rerun()


def _remember(store: RunStore) -> None:
    """Keeps a sweep in view when it has ended: whoever pressed its button waits for it."""
    st.session_state.setdefault("launched", set()).add(store.path)


# ---------------------------------------------------------------------- a new one


def _new(folder: Path) -> None:
    st.subheader("A new sweep", anchor=False)
    draft = drafts.choose(folder)
    config, wrong = check(draft.text, draft.path)
    if config is None:
        _wrong(draft.text, wrong or Problem("no config"))
        return
    st.success("The config is valid.", icon=":material/check_circle:")
    try:
        _plan(config, folder)
        _start(folder, config, draft)
    except EnsemblerError as error:
        st.error(plain(error), icon=":material/error:")


def _wrong(text: str, wrong: Problem) -> None:
    at = "" if wrong.line is None else f"Line {wrong.line}"
    at += f", **{plain(wrong.field)}**" if wrong.field else ""
    st.error(f"{at}: {plain(wrong.message)}" if at else plain(wrong.message), icon=":material/error:")
    if wrong.line is not None:
        st.code(excerpt(text, wrong.line), language=None)


def _plan(config: Config, folder: Path) -> None:
    with st.spinner("Counting…"):
        plan = planning.look(config, folder)
    st.subheader("What it would do", anchor=False)
    headline_words, *rest = plan_words(plan)
    st.markdown(f"**{plain(headline_words)}**")
    lines(*rest)
    st.dataframe(plan_table(plan), hide_index=True)


def _start(folder: Path, config: Config, draft: drafts.Draft) -> None:
    name = st.text_input(
        "Name of the run",
        sweeps.free_name(folder, config.name),
        max_chars=100,
        help="It becomes a folder among the runs, so it has to be new.",
    )
    store = sweeps.new_run(folder, name)
    if st.button("Start", type="primary", icon=":material/rocket_launch:"):
        file = draft.file or sweeps.write_config(store, config)
        _remember(store)
        sweeps.start(store, file)
        st.rerun()
    with st.expander("The same on the command line"):
        file = draft.file or Path("config.yaml")
        st.code(
            shlex.join(["ensembler", *sweeps.command(file, store.path)[3:]]), language="bash", wrap_lines=True
        )
        if draft.file is None:
            lines("with the text above in that file")
