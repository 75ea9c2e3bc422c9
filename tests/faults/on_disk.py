"""What lies on disk of a run, without what is read off a clock; what a quiet pass put there; what cannot be read."""

from __future__ import annotations

import collections
import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

#: Names that belong to whoever works on the run now.
SCRATCH, LOCKS = ".tmp-", (".lock", ".driver.json")

Tree = dict[str, bytes]


def tree(run: Path) -> Tree:
    """Every file of a run but locks and logs."""
    return {
        name: content(file)
        for file in sorted(run.rglob("*"))
        if file.is_file() and not _passing(name := file.relative_to(run).as_posix())
    }


def _passing(name: str) -> bool:
    return name in LOCKS or name == "events.jsonl" or any(p.startswith(SCRATCH) for p in name.split("/"))


def content(file: Path) -> bytes:
    """A file's bytes; of the manifest and of trials without times, and with their keys in order."""
    data = file.read_bytes()
    if file.suffix != ".json" or file.parent.name == "bundle":
        return data
    value = json.loads(data)
    for key in ("created", "seconds"):
        value.pop(key, None)
    if "stages" in value:
        value["stages"] = sorted(value["stages"])
    return json.dumps(value, sort_keys=True).encode()


class Seen:
    """Contents that a quiet pass puts into place, by path."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.versions: dict[str, set[bytes]] = collections.defaultdict(set)

    def note(self, target: Path) -> None:
        files = [target] if target.is_file() else [f for f in target.rglob("*") if f.is_file()]
        for file in files:
            if file.is_relative_to(self.run) and not _passing(n := file.relative_to(self.run).as_posix()):
                self.versions[n].add(content(file))

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Notes whatever a rename puts into place."""
        originals = Path.replace, Path.rename

        def wrap(real: Any) -> Any:
            def call(path: Path, target: Any) -> Any:
                done = real(path, target)
                self.note(Path(target))
                return done

            return call

        Path.replace, Path.rename = map(wrap, originals)  # type: ignore[method-assign,assignment]
        try:
            yield
        finally:
            Path.replace, Path.rename = originals  # type: ignore[method-assign]


def unreadable(run: Path) -> list[str]:
    """What of a run cannot be read through its store."""
    from ensembler.store import RunStore

    store, found = RunStore(run), []

    def attempt(what: str, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except Exception as error:
            found.append(f"{what}: {type(error).__name__}: {error}")
            return None

    if not store.exists():
        return []
    attempt("manifest", store.manifest)
    attempt("config", store.config)
    attempt("trials", store.trials)
    attempt("leaderboard", store.leaderboard)
    attempt("test", store.test_predictions)
    attempt("bare", store.bare_predictions)
    if (run / "table.parquet").exists():
        attempt("table", store.table)
    for folder in (run / "cells").glob("*/[!.]*"):
        cell = attempt(folder.name, lambda f=folder: store.cell(f.parent.name, int(f.name)))  # type: ignore[misc]
        if cell is not None:
            attempt("weights", cell.weights)
            attempt("history", cell.history)
    for name in store.ensembles():
        attempt(name, lambda n=name: store.ensemble(n))  # type: ignore[misc]
    for file in (run / "features").glob("[!.]*.npy"):
        attempt(file.name, lambda f=file: np.load(f))  # type: ignore[misc]
    lines = (run / "events.jsonl").read_bytes().split(b"\n") if (run / "events.jsonl").exists() else []
    for line in filter(None, lines[:-1]):
        attempt("event", lambda t=line: json.loads(t))  # type: ignore[misc]
    return found
