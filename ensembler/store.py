"""The run directory, and the only place that knows its layout.

    config.yaml            resolved, every default written out
    manifest.json          identity of the run, versions, hardware, stages and their times
    table.parquet          id, path, label, group, split, fold
    oof.npz                bare out-of-fold predictions, in a run made from those alone
    unfinished/            the state of each Cell in training after its last epoch; there only while a sweep is not over
    features/              frozen features, one file a (backbone, weights)
    cells/<candidate>/<fold>/   result.json  proba.npy  history.parquet  model.safetensors   (whole or absent);
                           the fold of what is trained on every row is "all"
    search/<number>.json   one finished trial of the search
    ensembles/<name>/      state.json  arrays.safetensors  proba.npy
    test.npz               the candidates on the test split, through the bundle's own path
    leaderboard.parquet    derived; rebuilt when missing
    events.jsonl           what happened, a line an event

Nothing on disk is a pickle. Reading needs neither torch nor Ray.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import yaml
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from safetensors.numpy import save

from . import __version__
from .atomic import (
    clear_scratch,
    listed,
    make_folder,
    naming,
    reading,
    remove_file,
    remove_folder,
    write_array,
    write_file,
    write_folder,
    write_json,
)
from .cells import DAMAGE, CellStore, read_if_there, read_json, read_tensors
from .errors import RunLockedError, RunMismatchError, StoreError
from .events import EventReader
from .footing import require_locks, require_renames
from .parquet import read_frame, read_parquet
from .predictions import Predictions
from .training.candidate import Candidate

MANIFEST_VERSION = 1

#: What the entries of a manifest are; a file that anything else has written is refused before it is believed.
_KINDS: dict[str, type[str | list[Any] | dict[str, Any]]] = {
    "name": str,
    "metric": str,
    "features_of": str,
    **dict.fromkeys(("classes", "candidates", "ensembles", "failed", "unreadable"), list),
    **dict.fromkeys(("saved_ensembles", "unmet_limits", "unmet_saved"), list),
    **dict.fromkeys(("identity", "stages", "costs", "details", "limits", "collapse", "machine"), dict),
}

#: The same of what its lists hold.
_ITEMS: dict[str, type[str | dict[str, Any]]] = {
    "classes": str,
    **dict.fromkeys(("candidates", "failed", "unmet_limits", "unmet_saved"), dict),
}


#: What garbage in a file turns into, once it is used; a bug of ours may look the same.
GARBAGE = (
    OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, StopIteration, RecursionError, OverflowError,
)  # fmt: skip


class RunStore(CellStore):
    """One run directory; cheap to make, holds nothing but the path, so that workers can be sent a copy."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    def exists(self) -> bool:
        """Whether this folder is a run.

        Raises:
            StoreError: the folder is there, and the disk does not let us look.
        """
        with reading(self.path, "give a run's folder"):
            return (self.path / "manifest.json").is_file()

    def require(self) -> RunStore:
        """Itself, or a StoreError when the folder is no run."""
        if not self.exists():
            raise StoreError(f"{self.path}: no run here (manifest.json is missing); give a run's folder")
        return self

    # ------------------------------------------------------------------ one driver at a time

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the run for one driver; the operating system lets go of it when the driver dies.

        Raises:
            RunLockedError: naming the process that holds it.
            StoreError: the folder cannot be written, or its file system has no locks or no atomic rename; or a later
                version wrote the run.
        """
        self.manifest()  # what cannot be read is not written
        holder = self.path / ".driver.json"
        with naming(self.path):
            fresh = not self.path.exists()
            make_folder(self.path)
            try:
                require_locks(self.path)
            except StoreError:
                if fresh:
                    self.path.rmdir()
                raise
            lock = FileLock(self.path / ".lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                who = read_if_there(holder)
                raise RunLockedError(
                    f"{self.path}: already being worked on by process {who.get('pid', 'unknown')} on "
                    f"{who.get('host', 'unknown')} since {who.get('since', 'unknown')}; wait, or stop it first"
                ) from None
        try:
            require_renames(self.path)
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            write_json(holder, {"pid": os.getpid(), "host": socket.gethostname(), "since": since})
            self._clear_up()
            yield
            self._clear_up()  # of workers that were killed meanwhile
        finally:
            with suppress(OSError):  # a note that is left says nothing while nobody holds the lock
                holder.unlink(missing_ok=True)
                if fresh and [p.name for p in self.path.iterdir()] == [".lock"]:
                    shutil.rmtree(self.path)  # refused before anything was written: leave no empty run behind
            lock.release()

    @property
    def claimed(self) -> bool:
        """Whether a driver holds the run, or died while it did."""
        return (self.path / ".driver.json").exists()

    def _clear_up(self) -> None:
        """Removes what a killed writer left behind, and ends the line that it was writing; only a driver may."""
        for folder in clear_scratch(self.path):
            for inner in clear_scratch(folder):
                clear_scratch(inner)
        log = self.path / "events.jsonl"
        with naming(log):
            if log.exists() and log.stat().st_size:
                with log.open("r+b") as stream:
                    stream.seek(-1, os.SEEK_END)
                    if stream.read(1) != b"\n":
                        stream.write(b"\n")

    # ------------------------------------------------------------------ config, manifest, table, events

    def write_config(self, resolved: Mapping[str, Any]) -> None:
        """Writes `config.yaml`."""
        text = yaml.safe_dump(dict(resolved), sort_keys=False, allow_unicode=True)
        write_file(self.path / "config.yaml", lambda stream: stream.write(text.encode()))

    def config(self) -> dict[str, Any]:
        """The resolved config; empty for a run made from bare predictions."""
        file = self.path / "config.yaml"
        with reading(file, "run the command that made it again", (ValueError, yaml.YAMLError)):
            return yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else {}

    def manifest(self) -> dict[str, Any]:
        """The manifest; empty while there is none.

        Raises:
            StoreError: it is damaged, or of a later version than ours.
        """
        file = self.path / "manifest.json"
        manifest = read_json(file) if file.exists() else {}
        for key, kind in _KINDS.items():
            if not isinstance(manifest.get(key, kind()), kind):
                raise StoreError(
                    f"{file}: {key} is {manifest[key]!r:.60}, no {kind.__name__}; run the command that made it again"
                )
        for key, kind in _ITEMS.items():
            for item in manifest.get(key, []):
                if not isinstance(item, kind):
                    raise StoreError(
                        f"{file}: {key} holds {item!r:.60}, no {kind.__name__}; run the command that made it again"
                    )
        version = manifest.get("version", MANIFEST_VERSION)
        if not isinstance(version, int) or version > MANIFEST_VERSION:
            raise StoreError(
                f"{file}: version {version!r}, and ensembler {__version__} knows up to {MANIFEST_VERSION}: a later "
                f"one wrote this run; install that, or choose another folder"
            )
        return manifest

    def update_manifest(self, **changes: Any) -> dict[str, Any]:
        """Replaces some entries of the manifest and returns all of it."""
        manifest = self.manifest() | changes
        manifest.setdefault("version", MANIFEST_VERSION)
        manifest.setdefault("created", time.strftime("%Y-%m-%dT%H:%M:%S"))
        write_json(self.path / "manifest.json", manifest)
        return manifest

    def claim(self, identity: Mapping[str, Any]) -> None:
        """Binds the run to its data, folds and seed, or checks that it is bound to the same.

        Raises:
            RunMismatchError: naming every entry that differs; Cells of other data must not be mixed.
        """
        known = self.manifest().get("identity")
        if known is None:
            self.update_manifest(identity=dict(identity))
            return
        now = json.loads(json.dumps(identity))
        differs = [k for k in sorted(known.keys() | now.keys()) if known.get(k) != now.get(k)]
        if differs:
            shown = "; ".join(f"{k} was {known.get(k)!r}, is {now.get(k)!r}" for k in differs)
            raise RunMismatchError(
                f"{self.path}: made from something else: {shown}; choose another folder with -o, or undo the change"
            )

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a stage and notes its beginning and end as events."""
        began = time.perf_counter()
        self.event("stage", stage=name, state="running")
        try:
            yield
        except BaseException as error:
            with suppress(StoreError):  # what failed first is what is told
                self.event("stage", stage=name, state="failed", reason=f"{type(error).__name__}: {error}")
            raise
        seconds = round(time.perf_counter() - began, 3)
        stages = self.manifest().get("stages", {}) | {name: seconds}
        self.update_manifest(stages=stages)
        self.event("stage", stage=name, state="done", seconds=seconds)

    def write_table(self, frame: pd.DataFrame) -> None:
        """Writes `table.parquet`."""
        write_file(self.path / "table.parquet", lambda stream: frame.to_parquet(stream, index=False))

    def table(self) -> pd.DataFrame:
        """Columns id, path, label, group, split, fold."""
        file = self.path / "table.parquet"
        with reading(file, "run the command that made it again"), file.open("rb") as stream:
            return read_frame(stream)

    def event(self, kind: str, **values: Any) -> None:
        """Appends a line to `events.jsonl` by one write, so that a reader never sees half of it."""
        line = (json.dumps({"t": round(time.time(), 3), "kind": kind, **values}, default=str) + "\n").encode()
        with naming(self.path / "events.jsonl"):
            handle = os.open(self.path / "events.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                if os.write(handle, line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(handle)

    def events(self) -> list[dict[str, Any]]:
        """Every event so far, oldest first; a line cut short by a crash or a full disk is left out."""
        with reading(self.path / "events.jsonl", "run the same command again"):
            return self.follow().read()

    def follow(self) -> EventReader:
        """Reads the same events as they are written, each once."""
        return EventReader(self.path / "events.jsonl")

    # ------------------------------------------------------------------ candidates

    def candidates(self) -> list[Candidate]:
        """Candidates on the board: those whose Cells are all there."""
        return [Candidate.from_dict(c) for c in self.manifest().get("candidates", [])]

    def histories(self) -> pd.DataFrame:
        """Learning curves of the candidates on the board: candidate, fold, then the columns of `Epoch`."""
        manifest = self.manifest()
        frames = [
            self.cell(candidate.id, fold).history().assign(candidate=candidate.name, fold=fold)
            for candidate in self.candidates()
            for fold in range(manifest["k"])
            if candidate.fine_tuned
        ]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def discard_unfinished(self) -> None:
        """Deletes what Cells in training have left, when all that is to be trained has been."""
        shutil.rmtree(self.unfinished, ignore_errors=True)  # what stays is not read again

    # ------------------------------------------------------------------ search

    def write_trial(self, number: int, record: Mapping[str, Any]) -> None:
        """Stores a finished trial of the search."""
        write_json(self.path / "search" / f"{number:05d}.json", {"number": number, **record})

    def trials(self) -> list[dict[str, Any]]:
        """Finished trials by number: candidate, status, score, epochs, seconds, reason, history."""
        return [read_json(file) for file in self.trial_files()]

    def trial_files(self) -> list[Path]:
        """Of the finished trials, by number."""
        return [f for f in listed(self.path / "search") if f.suffix == ".json" and f.name[0].isdigit()]

    # ------------------------------------------------------------------ ensembles and leaderboard

    def write_ensemble(
        self,
        name: str,
        state: Mapping[str, Any],
        arrays: Mapping[str, NDArray[Any]],
        predictions: Predictions,
    ) -> None:
        """Stores a fitted combiner and its cross-fitted predictions, replacing what stood there."""

        def fill(folder: Path) -> None:
            (folder / "state.json").write_text(json.dumps(state, indent=1, sort_keys=True, allow_nan=False))
            content = save({k: np.ascontiguousarray(v) for k, v in arrays.items()})
            (folder / "arrays.safetensors").write_bytes(content)
            with (folder / "proba.npy").open("wb") as stream:
                write_array(stream, predictions.proba[0])

        write_folder(self.path / "ensembles" / name, fill, keep_if=lambda _: False)

    def ensemble(self, name: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]], NDArray[np.float32]]:
        """State, arrays and cross-fitted probabilities (samples, classes) of an ensemble.

        Raises:
            StoreError: it is absent or damaged.
        """
        folder = self.path / "ensembles" / name
        with reading(folder, "run `ensembler combine` again", DAMAGE, "no readable ensemble"):
            state = read_json(folder / "state.json")
            arrays = read_tensors(folder / "arrays.safetensors")
            return state, arrays, np.load(folder / "proba.npy", allow_pickle=False)

    def ensemble_file(self, name: str) -> Path:
        """Where the cross-fitted probabilities of an ensemble lie: `.npy` float32 (samples, classes)."""
        return self.path / "ensembles" / name / "proba.npy"

    def ensembles(self) -> list[str]:
        """Names of the stored ensembles."""
        return [path.name for path in listed(self.path / "ensembles") if path.name[0] != "."]

    def prune_ensembles(self, keep: set[str]) -> None:
        """Deletes stored ensembles that are not among `keep`."""
        for name in set(self.ensembles()) - keep:
            remove_folder(self.path / "ensembles" / name)

    def write_leaderboard(self, records: list[dict[str, Any]]) -> None:
        """Writes `leaderboard.parquet`."""
        frame = pd.DataFrame(records)
        write_file(self.path / "leaderboard.parquet", lambda stream: frame.to_parquet(stream, index=False))

    def drop_leaderboard(self) -> None:
        """Before what it was made from changes: until it is written anew, whoever reads makes it from what there is."""
        remove_file(self.path / "leaderboard.parquet")

    def leaderboard(self) -> list[dict[str, Any]] | None:
        """Rows of the leaderboard, best first; None while there is none."""
        file = self.path / "leaderboard.parquet"
        if not file.exists():
            return None
        with reading(file, "delete it, it is rebuilt"), file.open("rb") as stream:
            # Not by pandas: its JSON rounds, and its floats stand for whole numbers where one is missing.
            return cast("list[dict[str, Any]]", read_parquet(stream).to_pylist())

    # ------------------------------------------------------------------ fold collapse

    def write_collapse(self, record: Mapping[str, Any]) -> None:
        """Keeps how the fold models of each deployed candidate compare with what could take their place."""
        self.update_manifest(collapse=dict(record))

    def collapse(self) -> dict[str, Any]:
        """The same: `rows` of `collapsed.measure_collapse`; empty where nothing else than fold models was asked for."""
        return dict(self.manifest().get("collapse", {}))

    # ------------------------------------------------------------------ predictions

    def write_predictions(self, oof: Predictions, test: Predictions | None) -> None:
        """Keeps predictions that came from elsewhere."""
        write_file(self.path / "oof.npz", lambda stream: oof.save_to(stream, test))

    def bare_predictions(self) -> tuple[Predictions, Predictions | None] | None:
        """Predictions that came from elsewhere; None in a run that trains its own."""
        file = self.path / "oof.npz"
        return Predictions.load(file) if file.exists() else None

    def predictions(self) -> Predictions:
        """Out-of-fold predictions of every candidate on the board.

        Raises:
            StoreError: the sweep has not come that far.
            PredictionsError: naming each (candidate, fold) that is missing.
        """
        bare = self.bare_predictions()
        if bare is not None:
            return bare[0]
        manifest = self.manifest()
        candidates = self.candidates()
        if not candidates:
            raise StoreError(
                f"{self.path}: no candidate is trained on every fold yet; run `ensembler run` to its end"
            )
        table = self.table()
        table = table[table["split"] == "oof"].reset_index(drop=True)
        classes = list(manifest["classes"])
        code = {name: i for i, name in enumerate(classes)}
        fold = table["fold"].to_numpy()
        holdouts = [np.flatnonzero(fold == f).astype(np.int64) for f in range(int(fold.max()) + 1)]
        parts = {
            (c.name, f): self.cell(c.id, f).proba
            for c in candidates
            for f in range(len(holdouts))
            if (self.cell_path(c.id, f) / "result.json").exists()
        }
        return Predictions.assemble(
            parts,
            members=[c.name for c in candidates],
            holdouts=holdouts,
            labels=np.array([code[label] for label in table["label"]], np.int64),
            sample_ids=list(table["id"]),
            classes=classes,
        )

    def write_test(self, test: Predictions, by_fold: NDArray[np.float32] | None = None) -> None:
        """Keeps the candidates' predictions on the test split.

        Args:
            test: averaged over the fold models.
            by_fold: (members, folds, samples, classes), what each fold model says.
        """
        arrays = test.arrays() | ({} if by_fold is None else {"by_fold": by_fold})
        write_file(self.path / "test.npz", lambda stream: np.savez(stream, allow_pickle=False, **arrays))

    def test_predictions(self) -> Predictions | None:
        """The candidates' predictions on the test split; None while they have not been made."""
        bare = self.bare_predictions()
        if bare is not None:
            return bare[1]
        arrays = self._test_arrays()
        if arrays is None:
            return None
        return Predictions.from_arrays(
            arrays["proba"],
            arrays["labels"],
            members=list(arrays["members"]),
            classes=list(arrays["classes"]),
            sample_ids=list(arrays["sample_ids"]),
            split="test",
        )

    def test_by_fold(self) -> NDArray[np.float32] | None:
        """What each fold model says of the test split, (members, folds, samples, classes); None where nobody knows."""
        if self.bare_predictions() is not None:
            return None
        arrays = self._test_arrays() or {}
        return arrays.get("by_fold")

    def _test_arrays(self) -> dict[str, NDArray[Any]] | None:
        file = self.path / "test.npz"
        if not file.exists():
            return None
        damage = (*DAMAGE, BadZipFile)
        with (
            reading(file, "delete it and run the same command again", damage),
            file.open("rb") as stream,
            np.load(stream, allow_pickle=False) as arrays,
        ):
            return {name: arrays[name] for name in arrays.files}


def machine() -> dict[str, Any]:
    """Hardware and versions, for the manifest."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version()}
    for package in ("ensembler", "torch", "timm", "ray", "scikit-learn", "xgboost", "numpy", "pillow"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    return {
        "versions": versions,
        "cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def find_runs(folder: str | Path) -> list[RunStore]:
    """Every run in a folder, newest first; the folder itself when it is a run."""
    root = Path(folder)
    if RunStore(root).exists():
        return [RunStore(root)]
    found = [RunStore(p) for p in listed(root) if p.name[0] != "." and RunStore(p).exists()]
    return sorted(found, key=lambda run: (run.path / "manifest.json").stat().st_mtime, reverse=True)


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """Turns what garbage in a run's files leads to into a StoreError that names the run and the way out."""
    try:
        yield
    except GARBAGE as error:
        raise StoreError(
            f"{path}: damaged ({type(error).__name__}: {error}); run the command that made it again"
        ) from error
