"""A reader that looks at a run all the while: nothing that is there may be torn."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ensembler.errors import EnsemblerError
from ensembler.store import RunStore


def read_everything(run: Path) -> Iterator[str]:
    """Reads every file of a run as its readers do; yields what is torn.

    What is not there, not yet or not at this moment, is no damage.
    """
    store = RunStore(run)

    def reads() -> Iterator[tuple[str, Callable[[], Any]]]:
        yield "manifest", store.manifest
        yield "config", store.config
        yield "events", store.events
        yield "leaderboard", store.leaderboard
        yield "test", store.test_predictions
        yield "table", store.table
        yield "trials", store.trials
        for file in list(run.glob("cells/*/[0-9]*/result.json")):
            candidate, fold = file.parts[-3], int(file.parts[-2])
            yield f"cell {candidate}/{fold}", lambda c=candidate, f=fold: _whole_cell(store, c, f)
        for name in store.ensembles():
            yield f"ensemble {name}", lambda n=name: store.ensemble(n)

    for what, read in reads():
        try:
            read()
        except Exception as error:
            if not _absent(error):
                yield f"{what}: {type(error).__name__}: {error}"


def _whole_cell(store: RunStore, candidate: str, fold: int) -> None:
    cell = store.cell(candidate, fold)
    cell.weights()
    cell.history()
    assert np.allclose(cell.proba.sum(1), 1, atol=1e-4)


def _absent(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return True
        error = error.__cause__ or (error.__context__ if isinstance(error, EnsemblerError) else None)
    return False


class Watch(threading.Thread):
    """Reads a run again and again while it is written, killed and resumed.

    Attributes:
        torn: what could not be read though it was there.
        rounds: how often everything was read.
    """

    def __init__(self, run: Path, every_s: float = 0.3) -> None:
        super().__init__(daemon=True)
        self.run_path = run
        self.every_s = every_s
        self.torn: list[str] = []
        self.rounds = 0
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(self.every_s):
            self.look()

    def look(self) -> None:
        """Reads everything once."""
        self.torn += read_everything(self.run_path)
        self.rounds += 1

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()
