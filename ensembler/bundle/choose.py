"""What is exported: a row of the leaderboard, and the networks that run in its name."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .. import comparison
from ..atomic import listed
from ..cells import read_if_there
from ..combiners import Combiner
from ..errors import BundleError
from ..evaluation.leaderboard import Leaderboard
from ..store import RunStore
from ..training.candidate import Candidate
from .options import Collapse, ExportOptions


@dataclass(frozen=True, eq=False)
class Chosen:
    """A row and what runs in its name.

    Attributes:
        row: of the leaderboard.
        members: (name, candidate whose Cells run) of each, in the order of the combiner's.
        combiner: fitted, of these members alone; None for one member.
    """

    row: dict[str, Any]
    members: Sequence[tuple[str, Candidate]]
    combiner: Combiner | None


def choices(
    store: RunStore, board: Leaderboard, ensemble: str | None, options: ExportOptions
) -> Iterator[Chosen]:
    """The row that was asked for; with a limit alone, every row from the best down, the recommended one first.

    Raises:
        BundleError: no such row, or a way to collapse that the run has not trained.
    """
    rows = {row["name"]: row for row in board.to_records()}
    name = ensemble or board.verdict.winner
    if name not in rows:
        raise BundleError(f"{name!r}: no such row on the leaderboard; there are {', '.join(rows)}")
    yield chosen(store, rows[name], options.collapse)
    if ensemble is None and options.max_latency_ms is not None:
        for row in (
            row for row in rows.values() if row["name"] != name and row["kind"] in ("single", "ensemble")
        ):
            try:
                one = chosen(store, row, options.collapse)
            except BundleError as error:  # nobody asked for this row
                print(f"warning: {row['name']}: passed over: {error}", file=sys.stderr)
                continue
            yield one


def chosen(store: RunStore, row: dict[str, Any], collapse: Collapse) -> Chosen:
    """What runs in the name of a row."""
    combiner = None
    names: Sequence[str] = [row["name"]]
    if row["kind"] == "ensemble":
        combiner = comparison.exportable_combiner(store, row["name"])
        names = combiner.members_
    candidates = {c.name: c for c in store.candidates()}
    if collapse == "folds":
        return Chosen(row, [(name, candidates[name]) for name in names], combiner)
    if collapse == "distill":
        return Chosen(row, [_student(store, names)], None)
    return Chosen(row, [(name, _instead(store, candidates[name], collapse)) for name in names], combiner)


def _student(store: RunStore, names: Sequence[str]) -> tuple[str, Candidate]:
    """The student of an ensemble is one network, whichever of its members it looks like: here the first trained."""
    trained = _deployed(store, "distill")
    for name in names:
        if trained.get(name):
            return trained[name], _collapsed(store, trained[name])
    raise _missing(store, names, "distill")


def _instead(store: RunStore, candidate: Candidate, way: Collapse) -> Candidate:
    """One network in place of a candidate's fold models; heads on a frozen body are one network already."""
    if candidate.frozen_body:
        return candidate
    name = _deployed(store, way).get(candidate.name)
    if not name:
        raise _missing(store, [candidate.name], way)
    return _collapsed(store, name)


def _deployed(store: RunStore, way: str) -> dict[str, str]:
    """Candidate -> name of the network that was trained in its place in this way."""
    rows = store.collapse().get("rows", [])
    return {row["candidate"]: row["deployed"] for row in rows if row["way"] == way and row["deployed"]}


def _collapsed(store: RunStore, name: str) -> Candidate:
    for folder in listed(store.path / "cells"):
        record = read_if_there(folder / "all" / "result.json")
        if record:
            candidate = Candidate.from_dict(record["candidate"])
            if candidate.name == name:
                return candidate
    raise BundleError(f"{name}: its Cell is missing; run the experiment again")


def _missing(store: RunStore, names: Sequence[str], way: str) -> BundleError:
    name = names[0]
    for row in store.collapse().get("rows", []):
        if row["candidate"] in names and row["way"] == way and row["note"]:
            return BundleError(
                f"{row['candidate']}: has no network made by {way}: {row['note']}; use --collapse folds"
            )
    return BundleError(
        f"{name}: the run has no network made by {way}; add `collapse: [folds, {way}]` to its config, run it again, "
        "and it is trained for the winner's members"
    )
