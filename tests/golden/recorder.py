"""Every error message a user can meet stands in `tests/golden/errors.txt`, under the test that provokes it.

While the suite runs, each error of the tree that `ensembler/` makes is written down with its place. A test that
stands in the golden file has to provoke, word for word, the messages under it; `tests/golden/test_errors.py` holds the
file against the sources, so that no `raise` is without an example. `scripts/golden_errors` writes the file anew.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Generator, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from ensembler.bundle.uploads import Refusal
from ensembler.errors import EnsemblerError

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "errors.txt"

HEAD = """\
# Every error message that a user can meet, as it is printed, below the function that raises it;
# the test under a message provokes it. Written by scripts/golden_errors.
"""

#: What differs from run to run and from machine to machine -> what stands for it.
_VOLATILE = (
    (re.compile(r"[^\s'\":(]*/pytest-of-[^/]+/pytest-\d+(/popen-gw\d+)?/[^/\s'\":,;)]+"), "TMP"),
    (re.compile(re.escape(str(ROOT)) + r"(?=/|\b)"), "REPOSITORY"),
    (re.compile(re.escape(sys.prefix) + r"(?=/|\b)"), "VENV"),
    (re.compile(r"\b[0-9a-f]{16,}\b"), "HASH"),
    (re.compile(r"process \d+ on \S+ since [\d-]+ [\d:]+"), "process PID on HOST since TIME"),
)


@dataclasses.dataclass(frozen=True)
class Message:
    """One error as it was made: what it says, and where, after the functions that called for it."""

    places: tuple[tuple[str, int], ...]
    text: str


def normalised(text: str) -> str:
    """A message without what differs from run to run, on one line as it is printed."""
    for pattern, name in _VOLATILE:
        text = pattern.sub(name, text)
    line = " ".join(text.splitlines())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


class Recorder:
    """Notes the errors that are made while a test is called."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.on = False

    def note(self, frame: FrameType | None, args: tuple[Any, ...]) -> None:
        """Called by every error of the tree when it is made; what no module of ours made is not noted."""
        if not self.on or len(self.messages) > 1000:  # more is a fuzzer
            return
        places = []
        while frame is not None and len(places) < 2:  # who made it, and who asked for it to be made
            file = Path(frame.f_code.co_filename)
            if not file.is_relative_to(ROOT / "ensembler"):
                break
            places.append((file.relative_to(ROOT).as_posix(), frame.f_lineno))
            frame = frame.f_back
        if places:
            self.messages.append(Message(tuple(places), normalised(str(args[0]) if args else "")))


RECORDER = Recorder()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-errors", metavar="FILE", help="append every error that a test provokes, as JSON"
    )


def pytest_configure(config: pytest.Config) -> None:
    def init(self: EnsemblerError, *args: Any, **kwargs: Any) -> None:
        super(EnsemblerError, self).__init__(*args, **kwargs)
        RECORDER.note(sys._getframe(1), args)

    def refuse(self: Refusal, status: int, reason: str) -> None:
        plain(self, status, reason)
        RECORDER.note(sys._getframe(1), (reason,))

    plain = Refusal.__init__
    EnsemblerError.__init__ = init  # type: ignore[method-assign]
    Refusal.__init__ = refuse  # type: ignore[method-assign]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    RECORDER.messages, RECORDER.on = [], True
    try:
        result = yield
    finally:
        RECORDER.on = False
    target = item.config.getoption("--record-errors")
    if target:
        _append(Path(target), item)
    else:
        expected = golden().get(item.nodeid, ())
        lacking = [text for text in expected if text not in {message.text for message in RECORDER.messages}]
        if lacking:
            pytest.fail(_difference(lacking), pytrace=False)
    return result


def _append(target: Path, item: pytest.Item) -> None:
    """One line a message; each process of the suite has a file of its own."""
    plain = not {"slow", "gpu", "browser", "shared"} & {mark.name for mark in item.iter_markers()}
    plain = plain and not hasattr(getattr(item, "obj", None), "hypothesis")
    name = f"{target}.{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
    with Path(name).open("a", encoding="utf-8") as file:
        for message in dict.fromkeys(RECORDER.messages):
            record = {"test": item.nodeid, "plain": plain, **dataclasses.asdict(message)}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _difference(lacking: Iterable[str]) -> str:
    said = "\n".join(f"    {message.text}" for message in RECORDER.messages) or "    nothing"
    return (
        "tests/golden/errors.txt says that this test provokes\n"
        + "\n".join(f"    {text}" for text in lacking)
        + f"\nIt provoked\n{said}\nIf the new message is the better one: scripts/golden_errors"
    )


_CACHED: dict[str, list[str]] = {}


def golden() -> dict[str, list[str]]:
    """Of each test in the golden file: the messages that it has to provoke."""
    if not _CACHED and GOLDEN.exists():
        for entry in entries(GOLDEN.read_text(encoding="utf-8")):
            _CACHED.setdefault(entry.test, []).append(entry.text)
    return _CACHED


@dataclasses.dataclass(frozen=True, order=True)
class Entry:
    """One message of the golden file, and the test that provokes it."""

    module: str
    function: str
    text: str
    test: str


def entries(text: str) -> list[Entry]:
    """The golden file as it was written by `written`.

    A module stands at the margin, its functions below it by 2 spaces, messages by 4, the test of a message by 8.
    """
    found: list[Entry] = []
    module = function = message = ""
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if not line.strip() or line.startswith("#"):
            continue
        if indent == 0:
            module = line
        elif indent == 2:
            function = line.strip()
        elif indent == 4:
            message = line[4:]
        else:
            found.append(Entry(module, function, message, line.strip()))
    return found


def written(found: Iterable[Entry]) -> str:
    """The text of the golden file; `entries` reads it."""
    lines: list[str] = []
    module = function = ""
    for entry in sorted(set(found)):
        if entry.module != module:
            module, function = entry.module, ""
            lines += ["", module]
        if entry.function != function:
            function = entry.function
            lines += ["", f"  {function}"]
        lines += [f"    {entry.text}", f"        {entry.test}"]
    return HEAD + "\n".join(lines) + "\n"
