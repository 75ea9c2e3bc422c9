"""Addresses of the app: whatever stands behind the question mark, a page is drawn, of a run that was found.

Each case runs what a page asks of its address: the run picker and the widgets that are bound to it, in a session of its
own. Whole pages are drawn by Streamlit's own test runner, a few dozen of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, quote_plus, urlencode

import pytest
import streamlit as st
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st_
from streamlit.runtime.fragment import MemoryFragmentStorage
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.pages_manager import PagesManager
from streamlit.runtime.scriptrunner_utils.script_run_context import ScriptRunContext, add_script_run_ctx
from streamlit.runtime.state import SafeSessionState, SessionState
from streamlit.testing.v1 import AppTest

from ensembler.app import compare, confusion, errors, lab, lab_members, leaderboard, picker, reading
from ensembler.app.main import PAGES
from ensembler.errors import EnsemblerError

from . import small_run
from .choices import Choices, Drawn, number, one_in, pick, words
from .target import CASES, Target

ROOT = Path(__file__).resolve().parents[2]

#: What pages take from their address, and what they take it for.
KEYS = (
    "run", "kind", "backbone", "sort", "columns", "differ", "model", "against", "show", "class", "row", "combiner",
    "budget", "of", "true", "taken", "stage", "network", "embed", "embed_options",
)  # fmt: skip

#: What they know, beside the names of rows and classes.
VALUES = (
    "pets", "All", "Ensembles", "mean", "greedy", "weighted", "true", "false", "Score", "test_resnet", "0", "1e3", "-1",
)  # fmt: skip

#: What is put into the middle of an address.
ODD = ("%", "%ff", "%00", "%zz", "&" * 50, "=", "&run=" * 20, ";", "+", "&amp;", "%F0%9F", "#", "?")


@dataclass(frozen=True)
class Case:
    """What follows the question mark, and the page before it."""

    page: str
    query: str


def prepare(inside: Path) -> reading.View:
    """A run, and what the pages remember of it."""
    small_run.make(inside / "runs" / "pets")
    (inside / "runs" / "no-run").mkdir()
    (store,) = reading.runs(inside / "runs")
    return reading.view(store)


def generate(choices: Choices, view: reading.View) -> Case:
    """Some parameters, known or not, whose values are known, or nearly."""
    query = _query(choices, (*VALUES, *view.rows, *small_run.CLASSES))
    if one_in(choices, 4):
        at = choices.whole(0, len(query))
        query = query[:at] + pick(choices, (*ODD, words(choices))) + query[at:]
    # A browser's address comes as UTF-8, so there are no halves of characters in it.
    return Case(pick(choices, list(CONTROLS)), query.encode(errors="replace").decode())


def _query(choices: Choices, known: Sequence[str]) -> str:
    pairs = []
    for _ in range(choices.whole(0, 5)):
        key = pick(choices, KEYS) if choices.whole(0, 7) else words(choices, 2)
        kind = choices.whole(0, 5)
        value = pick(choices, known) if kind <= 2 else words(choices) if kind <= 4 else str(number(choices))
        pairs.append((key, value))
    return urlencode(pairs, quote_via=pick(choices, (quote, quote_plus)), errors="surrogatepass")


# ---------------------------------------------------------------------- one case


def run(case: Case, view: reading.View, inside: Path) -> object:
    """Draws what a page asks of its address; every answer has to be one of those that were offered."""
    with session(case.query):
        store = picker.choose([view.store])
        if store is None:
            raise EnsemblerError("no such run")
        assert store is view.store
        return CONTROLS[case.page](view)


class session:
    """A session of Streamlit's in this thread, which has just been opened at an address."""

    def __init__(self, query: str) -> None:
        pages = PagesManager(str(ROOT / "app.py"))
        self._context = ScriptRunContext(
            session_id="fuzz",
            _enqueue=lambda message: None,
            query_string=query,
            session_state=SafeSessionState(SessionState(), lambda: None),
            uploaded_file_mgr=MemoryUploadedFileManager("/upload"),
            main_script_path=str(ROOT / "app.py"),
            user_info={},
            fragment_storage=MemoryFragmentStorage(),
            pages_manager=pages,
        )
        self._query = query

    def __enter__(self) -> None:
        add_script_run_ctx(threading.current_thread(), self._context)
        self._context.reset(query_string=self._query)

    def __exit__(self, *_: object) -> None:
        add_script_run_ctx(threading.current_thread(), None)


def _leaderboard(view: reading.View) -> object:
    rows = leaderboard._chosen(view.board.frame)
    shown = leaderboard._columns(st.container(), view.board.frame)
    assert shown[0] == "Name"
    assert set(rows["name"]) <= set(view.rows)
    return leaderboard._every_row(view).loc[rows.index, shown]


def _errors(view: reading.View) -> object:
    pair = errors._chosen(view)
    assert set(pair) <= set(view.rows)
    label = errors._filters(reading.predictions(view, list(dict.fromkeys(pair))), pair[0] == pair[1])[1]
    assert label in (None, *small_run.CLASSES)
    return pair


def _compare(view: reading.View) -> object:
    names = compare._choose(view)
    assert set(names) <= set(view.rows)
    return names


def _confusion(view: reading.View) -> object:
    oof = reading.predictions(view, view.rows[:2])
    name, label, taken = confusion._chosen_cell(oof)
    assert name in oof.members
    assert {label, taken} <= {None, *oof.classes}
    return name


def _lab(view: reading.View) -> object:
    laboratory, names = lab.laboratory(view), lab.offered(view)
    combiner, budget = lab._choose(laboratory)
    assert combiner in laboratory.choices()
    assert budget is None or budget >= 0
    members, weights = lab_members.choose(laboratory, names, combiner)
    assert set(members) <= set(names)
    assert all(0 <= weight <= lab_members.HEAVIEST for weight in weights)
    return members


CONTROLS: dict[str, Callable[[reading.View], object]] = {
    "leaderboard": _leaderboard,
    "errors": _errors,
    "compare": _compare,
    "confusion": _confusion,
    "lab": _lab,
}

URLS = Target("urls", prepare, generate, run)


def test_an_address_chooses_among_what_is_there(tmp_path: Path) -> None:
    outcomes = URLS.hold(tmp_path)
    assert set(outcomes) == {"accepted", "EnsemblerError: no such run"}, outcomes
    assert min(outcomes.values()) > CASES / 20


# ---------------------------------------------------------------------- whole pages


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("urls") / "runs"
    small_run.make(folder / "pets")
    return folder


#: The pages that read their address; Launch starts processes, and Data would look for images.
DRAWN = [page.module for group in PAGES.values() for page in group if page.module not in ("launch", "data")]


def _draw(module: str, path: str) -> None:
    from pathlib import Path

    from ensembler.app.main import PAGES, show
    from ensembler.store import RunStore

    page = next(page for group in PAGES.values() for page in group if page.module == module)
    show(page, Path(path).parent, RunStore(Path(path)), lambda: None)


@settings(
    max_examples=3, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
@given(data=st_.data())
@pytest.mark.parametrize("page", DRAWN)
def test_a_whole_page_is_drawn_at_any_address(page: str, data: Any, runs: Path) -> None:
    query = _query(Drawn(data.draw), (*VALUES, *small_run.CLASSES))
    app = AppTest.from_function(_draw, args=(page, str(runs / "pets")), default_timeout=120)
    app.query_params.update(parse_qs(query, keep_blank_values=True))
    app.run()
    assert not app.exception, (query, app.exception)
