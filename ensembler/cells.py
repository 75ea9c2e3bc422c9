"""A Cell on disk: `cells/<candidate>/<fold>/` in a run directory, whole or absent; all that workers write."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from .atomic import reading, unread, write_array, write_folder
from .errors import StoreError
from .parquet import read_frame
from .training.candidate import EVERY_ROW, Candidate, CellJob, CellResult, features_name

#: What damaged files raise when they are read.
#: (Beside what one expects: JSON nested without end, an .npy header that is half of one or claims a petabyte.)
DAMAGE = (
    ValueError, KeyError, TypeError, IndexError, AttributeError, EOFError, SafetensorError, StoreError,
    RecursionError, SyntaxError, TokenError, MemoryError, zlib.error,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class StoredCell:
    """A finished Cell without its weights.

    Attributes:
        candidate: what was trained.
        fold: on which fold.
        proba: float32 (holdout samples, classes).
        temperature, score, best_epoch, train_s, params, notes: see `CellResult`; `score` is NaN where there were no
            monitor rows.
        key: see `CellJob.key`.
        path: its folder.
    """

    candidate: Candidate
    fold: int
    proba: NDArray[np.float32]
    temperature: float
    score: float
    best_epoch: int
    train_s: float
    params: int
    notes: tuple[str, ...]
    key: str
    path: Path

    @property
    def weights_file(self) -> Path:
        """The stored tensors, as safetensors."""
        return self.path / "model.safetensors"

    def weights(self) -> dict[str, NDArray[Any]]:
        """The stored tensors."""
        with _reading_cell(self.path):
            return read_tensors(self.weights_file)

    def history(self) -> pd.DataFrame:
        """One row an epoch; see `Epoch`."""
        with _reading_cell(self.path), (self.path / "history.parquet").open("rb") as stream:
            return read_frame(stream)


class CellStore:
    """The Cells of a run; holds nothing but the path, so that workers can be sent a copy."""

    def __init__(self, path: str | Path) -> None:
        # Not Path.resolve, which raises for links that go round in circles.
        self.path = Path(os.path.realpath(path))

    @property
    def features(self) -> Path:
        """Folder of the frozen features."""
        return self.path / "features"

    @property
    def unfinished(self) -> Path:
        """Folder of the state of Cells in training."""
        return self.path / "unfinished"

    def features_file(self, candidate: Candidate) -> Path:
        """Where the frozen features of a candidate's backbone lie, if a worker has needed them."""
        return self.features / features_name(candidate)

    def cell_path(self, candidate_id: str, fold: int) -> Path:
        """The Cell's folder, whether it is there or not."""
        return self.path / "cells" / candidate_id / ("all" if fold == EVERY_ROW else str(fold))

    def has_cell(self, job: CellJob, fingerprint: str) -> bool:
        """Whether this very Cell is finished: same candidate, data, fold and seed.

        Raises:
            StoreError: the disk does not say; training it again would not be the answer.
        """
        return _has_key(self.cell_path(job.candidate.id, job.fold), job.key(fingerprint))

    def commit_cell(self, result: CellResult, fingerprint: str) -> bool:
        """Stores a finished Cell by one rename; False when it was there already.

        Raises:
            StoreError: naming path and cause, with nothing half-written.
        """
        job = result.job
        key = job.key(fingerprint)
        record = {
            "key": key,
            "source": job.source,
            "candidate": job.candidate.to_dict(),
            "fold": job.fold,
            "seed": job.seed,
            "numerics": dataclasses.asdict(job.numerics),
            "threads": job.threads,
            "temperature": result.temperature,
            "score": None if math.isnan(result.score) else result.score,
            "best_epoch": result.best_epoch,
            "train_s": round(result.train_s, 3),
            "params": result.params,
            "notes": list(result.notes),
        }
        history = pd.DataFrame([dataclasses.asdict(e) for e in result.history])

        def fill(folder: Path) -> None:
            (folder / "model.safetensors").write_bytes(save(dict(result.weights)))
            with (folder / "proba.npy").open("wb") as stream:
                write_array(stream, result.proba)
            with (folder / "history.parquet").open("wb") as stream:
                history.to_parquet(stream, index=False)
            (folder / "result.json").write_text(json.dumps(record, indent=1, sort_keys=True))

        target = self.cell_path(job.candidate.id, job.fold)
        return write_folder(target, fill, keep_if=lambda folder: _has_key(folder, key))

    def cell(self, candidate_id: str, fold: int) -> StoredCell:
        """A finished Cell.

        Raises:
            StoreError: it is absent or damaged.
        """
        path = self.cell_path(candidate_id, fold)
        with _reading_cell(path):
            record = read_json(path / "result.json")
            proba = np.load(path / "proba.npy", allow_pickle=False)
            return StoredCell(
                candidate=Candidate.from_dict(record["candidate"]),
                fold=record["fold"],
                proba=proba,
                temperature=record["temperature"],
                score=math.nan if record["score"] is None else record["score"],
                best_epoch=record["best_epoch"],
                train_s=record["train_s"],
                params=record["params"],
                notes=tuple(record["notes"]),
                key=record["key"],
                path=path,
            )


@contextmanager
def _reading_cell(path: Path) -> Iterator[None]:
    with reading(path, "delete the folder and run again", DAMAGE, "no readable Cell"):
        yield


def read_if_there(file: Path) -> dict[str, Any]:
    """The same, empty where there is none to read."""
    try:
        return read_json(file)
    except StoreError:
        return {}


def _has_key(folder: Path, key: str) -> bool:
    try:
        return bool(read_json(folder / "result.json").get("key") == key)
    except StoreError as error:
        if unread(error):
            raise
        return False


def read_tensors(file: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a safetensors file.

    They are read, not mapped: a disk that fails under a mapping kills the process instead of saying so.
    """
    return load(file.read_bytes())


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object of the run.

    Raises:
        StoreError: it is absent or damaged; names the file and the way out.
    """
    with reading(file, "delete it and run the same command again", (ValueError, RecursionError)):
        value = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise StoreError(
            f"{file}: holds a {type(value).__name__} instead of an object; delete it and run the same command again"
        )
    return value
