"""Run directories: whatever has become of a run's files, reading it gives an answer or says which file is damaged."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from ensembler.app import reading
from ensembler.app.following import Follower
from ensembler.cli import main
from ensembler.comparison import read_leaderboard
from ensembler.errors import EnsemblerError
from ensembler.store import RunStore, understood

from . import small_run
from .choices import Choices, changed, damaged, one_in, pick, value
from .target import CASES, Target

#: What may stand in the place of a file.
ODD = ("missing", "folder", "link to nothing", "link to itself")

#: How a run is read: by the command line now and then, mostly by what is below it.
READERS = ("verb", *("board",) * 3, *("app",) * 3, "log", "log", "cells", "trials")


@dataclass(frozen=True)
class Case:
    """Files of a run that hold something else, or are no files."""

    files: dict[str, bytes]
    odd: dict[str, str]
    reader: str


def prepare(inside: Path) -> dict[str, bytes]:
    """A whole run, and what is in its files."""
    store = small_run.make(inside / "whole")
    shutil.copytree(store.path, inside / "run")
    return {
        file.relative_to(store.path).as_posix(): file.read_bytes()
        for file in sorted(store.path.rglob("*"))
        if file.is_file() and file.suffix not in (".safetensors", ".lock")
    }


def generate(choices: Choices, whole: dict[str, bytes]) -> Case:
    """One file or two of a run, changed in their structure or damaged."""
    files, odd = {}, {}
    for _ in range(choices.whole(1, 2)):
        name = "manifest.json" if one_in(choices, 3) else pick(choices, list(whole))
        how = choices.whole(0, 9)
        if how == 0:
            odd[name] = pick(choices, ODD)
        elif how <= 6 and name.endswith(".json"):
            tree = json.loads(whole[name])
            for _ in range(choices.whole(1, 3)):
                tree = changed(choices, tree)
            files[name] = json.dumps(tree).encode()
        elif how <= 6 and name.endswith(".jsonl"):
            lines = whole[name].splitlines()
            at = choices.whole(0, len(lines) - 1)
            lines[at] = json.dumps(changed(choices, json.loads(lines[at]))).encode()
            files[name] = b"\n".join(lines) + b"\n"
        elif how == 7:
            files[name] = pick(
                choices, (b"", b"{}", b"[]", b"null", b"[" * 100_000, json.dumps(value(choices)).encode())
            )
        elif how == 8:
            files[name] = pick(choices, list(whole.values()))
        else:
            files[name] = damaged(choices, whole[name])
    return Case(files, odd, pick(choices, READERS))


def run(case: Case, whole: dict[str, bytes], inside: Path) -> object:
    """Reads the run in one of the ways in which it is read; what was changed is put back."""
    path = inside / "run"
    try:
        for name, content in case.files.items():
            (path / name).write_bytes(content)
        for name, what in case.odd.items():
            _make_odd(path / name, what)
        return _READ[case.reader](RunStore(path))
    finally:
        for name in {*case.files, *case.odd}:
            file = path / name
            if file.is_dir() and not file.is_symlink():
                file.rmdir()
            file.unlink(missing_ok=True)
            file.write_bytes(whole[name])


def _make_odd(file: Path, what: str) -> None:
    file.unlink(missing_ok=True)
    match what:
        case "folder":
            file.mkdir()
        case "link to nothing":
            file.symlink_to("nothing")
        case "link to itself":
            file.symlink_to(file.name)


def _verb(store: RunStore) -> None:
    printed, told = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(told):
        code = main(["leaderboard", str(store.path)])
    assert code in (0, 2), told.getvalue()
    if code:
        raise EnsemblerError(told.getvalue().removeprefix("error: ").strip())


def _board(store: RunStore) -> str:
    with understood(store.path):
        board = read_leaderboard(store)
    return board.to_json() + board.to_csv() + board.to_latex() + board.to_table(100)


def _app(store: RunStore) -> object:
    reading._results.clear()
    reading._candidates.clear()
    assert reading.runs(store.path.parent)
    view = reading.view(store)
    return reading.predictions(view, view.rows)


def _log(store: RunStore) -> object:
    with Follower(store).up_to_date() as story:
        return [(trial.share, trial.epoch) for trial in story.trials]


def _cells(store: RunStore) -> object:
    with understood(store.path):
        return store.predictions(), store.histories(), store.test_predictions(), store.test_by_fold()


def _trials(store: RunStore) -> object:
    with understood(store.path):
        return store.trials(), store.config(), store.table(), store.ensembles(), store.collapse()


_READ = {"verb": _verb, "board": _board, "app": _app, "log": _log, "cells": _cells, "trials": _trials}

RUNS = Target("runs", prepare, generate, run)


def test_a_run_is_read_or_said_to_be_damaged(tmp_path: Path) -> None:
    outcomes = RUNS.hold(tmp_path)
    assert outcomes.get("accepted", 0) > CASES / 20
    assert len(outcomes) > min(30, CASES / 20), outcomes
