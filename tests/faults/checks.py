"""What has to hold of a run that was killed and went on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ensembler.comparison import read_leaderboard
from ensembler.store import RunStore

#: Of the leaderboard, what does not depend on the clock.
COLUMNS = ("name", "cv", "cv_low", "cv_high", "p_value", "fold_scores", "optimism", "test", "members")

Cells = dict[Path, tuple[int, int]]


def finished_cells(run: Path) -> Cells:
    """Inode and time of every file of every finished Cell."""
    return {
        file: (file.stat().st_ino, file.stat().st_mtime_ns)
        for file in run.glob("cells/*/[0-9]*/*")
        if (file.parent / "result.json").exists()
    }


def touched(before: Cells, now: Cells) -> list[str]:
    """Files of finished Cells that are gone or were written again."""
    return [f"{file}: {before[file]} -> {now.get(file)}" for file in before if now.get(file) != before[file]]


def trials_of(cells: Cells) -> set[str]:
    """ "candidate/fold" of finished Cells."""
    return {f"{file.parts[-3]}/{file.parts[-2]}" for file in cells}


def retrained(finished: set[str], trace: Iterable[Mapping[str, Any]]) -> list[str]:
    """Cells that were finished when a session began, and were trained in it."""
    return sorted({line["trial"] for line in trace if line["what"] == "begin" and line["trial"] in finished})


def repeated_epochs(traces: Sequence[Sequence[Mapping[str, Any]]]) -> list[tuple[str, int]]:
    """How many epochs each interruption of a trial has cost: ("candidate/fold", epochs begun again).

    Args:
        traces: of a run's sessions, in their order.
    """
    lives: dict[str, dict[tuple[int, int], list[Mapping[str, Any]]]] = defaultdict(dict)
    for number, trace in enumerate(traces):
        for line in trace:
            key = (number, line["pid"])
            if line["what"] == "begin":
                lives[line["trial"]].setdefault(key, [])
            elif line["what"] == "epoch":
                lives[line["trial"]].setdefault(key, []).append(line)
    costs = []
    for trial, sessions in lives.items():
        epochs = [line for lines in sessions.values() for line in lines]
        for lines in sessions.values():
            if lines:
                before = [
                    e["epoch"] for e in epochs if e["t"] < lines[0]["t"] and e["pid"] != lines[0]["pid"]
                ]
                if before:
                    costs.append((trial, max(before) - lines[0]["epoch"] + 1))
    return costs


def differences(run: Path, quiet: Path) -> list[str]:
    """In what a run's results are not those of the uninterrupted one, to the bit."""
    found = []
    cells = {p.parent.relative_to(quiet) for p in quiet.glob("cells/*/[0-9]*/proba.npy")}
    if {p.parent.relative_to(run) for p in run.glob("cells/*/[0-9]*/proba.npy")} != cells:
        return ["other Cells"]
    for cell in sorted(cells):
        for name in ("proba.npy", "model.safetensors"):
            if (run / cell / name).read_bytes() != (quiet / cell / name).read_bytes():
                found.append(f"{cell}/{name}")
    for file in sorted(p.relative_to(quiet) for p in quiet.glob("ensembles/*/*")):
        if not (run / file).exists() or (run / file).read_bytes() != (quiet / file).read_bytes():
            found.append(str(file))
    mine, theirs = RunStore(run), RunStore(quiet)
    board, expected = (
        [{k: row[k] for k in COLUMNS} for row in s.leaderboard() or []] for s in (mine, theirs)
    )
    if board != expected:
        found.append("leaderboard")
    if read_leaderboard(mine).verdict.sentence != read_leaderboard(theirs).verdict.sentence:
        found.append("verdict")
    for key in ("failed", "candidates", "identity"):
        has, should = mine.manifest().get(key), theirs.manifest().get(key)
        if has != should:
            found.append(f"manifest {key}: {has}, expected {should}")
    tested, answers = mine.test_predictions(), theirs.test_predictions()
    assert tested is not None
    assert answers is not None
    if not np.array_equal(tested.proba, answers.proba):
        found.append("test answers")
    return found + [f"left behind: {p.relative_to(run)}" for p in leftovers(run)]


def leftovers(run: Path) -> list[Path]:
    """Scratch, and the state of unfinished Cells, of which a run that is over has none."""
    return [*run.rglob(".tmp-*"), *run.glob("unfinished*")]
