"""From a row of the leaderboard to a folder that predicts alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from ..atomic import write_folder
from ..combiners import Combiner
from ..errors import BundleError
from .card import model_card
from .layout import FORMAT, INDEX, file_digest
from .member import Member


@dataclass(frozen=True, eq=False)
class MemberSource:
    """A member of the exported row, and where its fold models lie.

    Attributes:
        name: of the candidate.
        architecture, weights, licence: for the card.
        member: the same built, whose normalisation and shared body are exported.
        folds: (weights file, temperature) of each fold.
    """

    name: str
    architecture: str
    weights: str
    licence: str
    member: Member
    folds: Sequence[tuple[Path, float]]


def write_bundle(
    target: Path,
    *,
    experiment: str,
    row: Mapping[str, Any],
    verdict: str,
    classes: Sequence[str],
    image_size: int,
    members: Sequence[MemberSource],
    combiner: Combiner | None,
    data: Mapping[str, Any],
    versions: Mapping[str, Any],
) -> Path:
    """Writes a bundle whole, by one rename; see `layout` for what is in it.

    Raises:
        BundleError: the target exists and is no bundle.
        StoreError: it cannot be written.
    """
    target = target.resolve()
    if target.exists() and not (target / INDEX).is_file():
        raise BundleError(f"{target}: exists and is no bundle; choose another folder with -o")

    def fill(folder: Path) -> None:
        entries = [_write_member(folder, i, source) for i, source in enumerate(members)]
        state: dict[str, Any] | None = None
        if combiner is not None:
            state, arrays = combiner.get_state()
            save_file(
                {k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / "combiner.safetensors"
            )
        about = [
            {"name": m.name, "architecture": m.architecture, "weights": m.weights, "licence": m.licence}
            for m in members
        ]
        card = model_card(experiment, row, verdict, classes, about, data)
        (folder / "README.md").write_text(card, encoding="utf-8")
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        index = {
            "format": FORMAT,
            "experiment": experiment,
            "name": row["name"],
            "classes": list(classes),
            "image_size": image_size,
            "members": entries,
            "combiner": state,
            "scores": dict(row),
            "data": dict(data),
            "versions": dict(versions),
            "files": {p.relative_to(folder).as_posix(): file_digest(p) for p in files},
        }
        (folder / INDEX).write_text(json.dumps(index, indent=1, allow_nan=False), encoding="utf-8")

    write_folder(target, fill, keep_if=lambda _: False)
    return target


def _write_member(folder: Path, number: int, source: MemberSource) -> dict[str, Any]:
    home = folder / "members" / str(number)
    home.mkdir(parents=True)
    folds = []
    for fold, (file, temperature) in enumerate(source.folds):
        shutil.copyfile(file, home / f"{fold}.safetensors")
        folds.append({"file": f"members/{number}/{fold}.safetensors", "temperature": temperature})
    body: Mapping[str, NDArray[Any]] | None = source.member.body_arrays()
    if body is not None:
        save_file(dict(body), home / "body.safetensors")
    return {
        "name": source.name,
        "architecture": source.architecture,
        "weights": source.weights,
        "licence": source.licence,
        "mean": list(source.member.mean),
        "std": list(source.member.std),
        "hidden": list(source.member.hidden),
        "mirror": source.member.mirror,
        "folds": folds,
        "body": f"members/{number}/body.safetensors" if body is not None else None,
    }
