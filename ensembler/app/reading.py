"""A run from disk, cached until its files change.

Reading never writes into a run that a sweep is still filling, and whatever is wrong with a run comes out as
an `EnsemblerError` that says what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from ..atomic import listed
from ..errors import ConfigError, StoreError
from ..evaluation.leaderboard import Leaderboard
from ..figures import difference_frame
from ..metrics import get_metric
from ..predictions import Predictions
from ..store import RunStore, find_runs, understood

#: What the files of a run looked like: name, time of change and size of each.
Stamp = tuple[tuple[str, int, int], ...]


class NotReadyError(StoreError):
    """The run has no leaderboard yet."""


@dataclass(frozen=True, eq=False)
class View:
    """A run as the pages show it.

    Attributes:
        store: the run.
        stamp: of its files when it was read; part of the key of everything cached.
        manifest: of the run.
        board: its leaderboard.
    """

    store: RunStore
    stamp: Stamp
    manifest: Mapping[str, Any]
    board: Leaderboard

    @property
    def key(self) -> tuple[str, Stamp]:
        """What results computed from this run are cached under."""
        return str(self.store.path), self.stamp

    @property
    def rows(self) -> list[str]:
        """Names of the leaderboard's rows, best first."""
        return [str(name) for name in self.board.frame["name"]]

    @property
    def metric(self) -> str:
        """Name of the metric that ranks the rows."""
        return str(self.board.frame["metric"].iloc[0])

    @property
    def trained(self) -> bool:
        """Whether the run has models of its own; false where it was made from predictions alone."""
        return bool(self.manifest.get("candidates"))


def runs(folder: Path) -> list[RunStore]:
    """The runs in a folder, newest first.

    Raises:
        StoreError: the folder cannot be read.
    """
    try:
        return find_runs(folder)
    except OSError as error:
        raise StoreError(
            f"{folder}: cannot be read: {error.strerror or error}; choose another folder"
        ) from error


def view(store: RunStore) -> View:
    """A run with its leaderboard.

    Raises:
        NotReadyError: it has no leaderboard yet.
        StoreError: it is damaged.
    """
    with understood(store.path):
        now = stamp(store)
        manifest, board = _results(str(store.path), now)
        return View(store, now, manifest, board)


def stamp(store: RunStore) -> Stamp:
    """What the run's files look like now. Logs are left out: they grow by the line and hold no result."""
    found = []
    for entry in listed(store.path):
        if entry.name[0] != "." and entry.suffix != ".jsonl":
            with suppress(FileNotFoundError):  # whoever writes the run has just taken it away
                stat = entry.stat()
                found.append((entry.name, stat.st_mtime_ns, stat.st_size))
    return tuple(sorted(found))


def predictions(run: View, names: Sequence[str]) -> Predictions:
    """Out-of-fold predictions of some rows of the leaderboard, cross-fitted where they are ensembles.

    Raises:
        StoreError, PredictionsError: they are missing or damaged.
    """
    with understood(run.store.path):
        singles = _candidates(*run.key)
        kinds = dict(zip(run.rows, run.board.frame["kind"], strict=True))
        parts = []
        for kind, group in groupby(names, key=kinds.__getitem__):
            if kind == "single":
                parts.append(singles.select(list(group)))
            else:
                parts += [singles.with_proba(run.store.ensemble(name)[2], [name]) for name in group]
        return parts[0] if len(parts) == 1 else Predictions.concat(parts)


@st.cache_data(max_entries=32, show_spinner="Comparing…", hash_funcs={View: lambda run: run.key})
def differences(run: View, names: tuple[str, ...], reference: str) -> pd.DataFrame:
    """`figures.difference_frame` of these rows against one of them, over the run's out-of-fold rows.

    Raises:
        StoreError, PredictionsError: predictions are missing or damaged.
    """
    from ..comparison import read_groups

    with understood(run.store.path):
        groups = read_groups(run.store)
    return difference_frame(predictions(run, names), get_metric(run.metric), reference, groups)


@st.cache_data(max_entries=32, show_spinner=False)
def _results(path: str, stamp: Stamp) -> tuple[dict[str, Any], Leaderboard]:  # noqa: ARG001
    store = RunStore(path)
    manifest = store.manifest()
    records = store.leaderboard()
    if records is None:
        if "combine" not in manifest.get("stages", {}):
            raise NotReadyError(f"{path}: no leaderboard yet; it comes when cross-validation is over")
        from ..comparison import build  # brings the combiners, which a leaderboard does not need

        board = build(store)
    else:
        lost = [one for key in ("failed", "unmet_limits", "unmet_saved") for one in manifest.get(key, [])]
        board = Leaderboard.from_records(records, failed=lost)
    try:
        for name in board.frame["metric"].unique():
            get_metric(name)
    except ConfigError as error:
        raise ValueError("the leaderboard has rows of an unknown metric") from error
    if not board.verdict.sentence or board.frame["cv"].isna().any():
        raise ValueError("the leaderboard has rows without a score")
    _require_known(store, board)
    return manifest, board


def _require_known(store: RunStore, board: Leaderboard) -> None:
    """Refuses rows that are none of the run's candidates: how candidates are named changes with versions."""
    known = {candidate.name for candidate in store.candidates()}
    singles = board.frame.loc[board.frame["kind"] == "single", "name"]
    strange = [str(name) for name in singles if name not in known]
    if known and strange:
        raise StoreError(
            f"{store.path}: the leaderboard names {strange[0]!r}, which is none of the run's candidates: another "
            f"version wrote it; make it again with `ensembler combine {store.path}`"
        )


@st.cache_resource(max_entries=4, show_spinner="Reading predictions…")
def _candidates(path: str, stamp: Stamp) -> Predictions:  # noqa: ARG001
    """Shared between sessions, not copied: the arrays of Predictions are read-only."""
    return RunStore(path).predictions()
