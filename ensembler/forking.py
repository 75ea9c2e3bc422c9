"""A new run that takes over what is still valid of an old one, and leaves that as it is."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .atomic import listed, reading, write_file, write_folder
from .cells import read_if_there
from .errors import StoreError
from .store import RunStore
from .training.candidate import Candidate, CellJob

#: Entries of the manifest that Cells were trained under: their arithmetic.
_KEPT = ("numerics",)


def require_forkable(origin: RunStore, fork: RunStore) -> None:
    """Refuses what is no run to fork from, and a folder that holds another one.

    Raises:
        StoreError: naming the folder and the way out.
    """
    origin.require()
    if fork.path == origin.path:
        raise StoreError(f"{fork.path}: a run cannot be forked into itself; give --fork another folder")
    if fork.exists() and fork.manifest().get("forked", {}).get("run") != str(origin.path):
        raise StoreError(
            f"{fork.path}: there is a run already, which was not forked from {origin.path}; give --fork another folder"
        )


def take_over(origin: RunStore, fork: RunStore, identity: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """Copies frozen features where the images are the same, and Cells with the records of their search where folds,
    seed and metric are too; what is there already is kept, so that it may be interrupted.

    Args:
        origin: only read; a driver may be at it.
        fork: claimed for `identity`, and locked.
        identity: of the fork.
        metric: of the fork.

    Returns:
        The origin's path, and how many Cells and files of features were taken over.
    """
    manifest = origin.manifest()
    known = manifest.get("identity", {})
    same_images = all(known.get(key) == identity[key] for key in ("fingerprint", "image_size"))
    same_rows = same_images and all(known.get(key) == identity[key] for key in ("folds", "seed"))
    features = _copy_features(origin.features, fork.features) if same_images else 0
    cells = 0
    if same_rows and manifest.get("metric") == metric:
        cells = _copy_cells(origin, fork, identity["fingerprint"])
        known_trials = {trial["number"] for trial in fork.trials()}
        for trial in origin.trials():
            if trial["number"] not in known_trials:
                fork.write_trial(trial["number"], trial)
        fork.update_manifest(
            **{key: manifest[key] for key in _KEPT if key in manifest and key not in fork.manifest()}
        )
    return {"run": str(origin.path), "cells": cells, "features": features}


def _copy_features(source: Path, target: Path) -> int:
    files = [file for file in listed(source) if file.name[0] != "."]
    for file in files:
        if not (target / file.name).exists():
            with reading(file, "run the command that made it again"), file.open("rb") as stream:
                write_file(target / file.name, lambda to, of=stream: shutil.copyfileobj(of, to))  # type: ignore[misc]
    return len(files)


def _copy_cells(origin: RunStore, fork: RunStore, fingerprint: str) -> int:
    """Those that this very code would train for the same rows."""
    taken = 0
    cells = [cell for folder in listed(origin.path / "cells") for cell in listed(folder)]
    for cell in (cell for cell in cells if cell.name[0] != "."):
        record = read_if_there(cell / "result.json")
        try:
            candidate = Candidate.from_dict(record["candidate"])
            job = CellJob(candidate, record["fold"], record["seed"], source=record["source"])
        except (KeyError, TypeError):  # damaged, or of a recipe that we do not know: it is trained again
            continue
        if record.get("key") != job.key(fingerprint):
            continue
        taken += 1
        if not fork.has_cell(job, fingerprint):
            write_folder(
                fork.cell_path(candidate.id, job.fold),
                lambda folder, of=cell: _copy_files(of, folder),  # type: ignore[misc]
                keep_if=lambda _: False,
            )
    return taken


def _copy_files(source: Path, target: Path) -> None:
    for file in listed(source):
        shutil.copyfile(file, target / file.name)


def told(forked: Mapping[str, Any], changed: Sequence[str]) -> str:
    """What was taken over, for people."""
    what = f"{forked['cells']} trainings and {forked['features']} files of frozen features of {forked['run']} are kept"
    return f"{what}; changed: {'; '.join(changed)}" if changed else what
