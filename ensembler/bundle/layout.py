"""What is in a bundle, and the checks before anything of it is used.

bundle.json                 classes, preprocessing, members, combiner, scores, versions, SHA-256 of each file
members/<i>/<fold>.safetensors, members/<i>/body.safetensors
combiner.safetensors        learned arrays of the combiner
README.md                   the model card
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import BundleError

FORMAT = 1
INDEX = "bundle.json"
REQUIRED = ("format", "classes", "image_size", "members", "combiner", "files")


def file_digest(file: Path) -> str:
    """SHA-256 of a file, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_index(folder: Path) -> dict[str, Any]:
    """The checked index of a bundle: every file that it names lies inside and has the content it should.

    Raises:
        BundleError: no bundle, an unknown format, a missing, foreign or altered file.
    """
    file = folder / INDEX
    if not folder.is_dir() or not file.is_file():
        raise BundleError(
            f"{folder}: no bundle here ({INDEX} is missing); give the folder `ensembler export` wrote"
        )
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{file}: cannot be read ({error}); export again") from error
    if not isinstance(index, dict) or [key for key in REQUIRED if key not in index]:
        raise BundleError(f"{file}: lacks some of {', '.join(REQUIRED)}; export again")
    if index["format"] != FORMAT:
        raise BundleError(f"{file}: format {index['format']!r}; this version reads {FORMAT}; export again")
    if not isinstance(index["files"], dict):
        raise BundleError(f"{file}: files is no table of digests; export again")
    for name, digest in index["files"].items():
        if file_digest(inside(folder, name)) != digest:
            raise BundleError(f"{folder / name}: altered since the export (SHA-256 differs); export again")
    return index


def inside(folder: Path, name: str) -> Path:
    """A file of the bundle by its name in the index.

    Raises:
        BundleError: a name that leads outside, a symbolic link, or a missing file.
    """
    parts = PurePosixPath(str(name)).parts
    if (
        not parts
        or any(part in ("..", "/") for part in parts)
        or "\\" in str(name)
        or parts[0].startswith("/")
    ):
        raise BundleError(f"{folder}: file name {name!r} leads outside the bundle; do not use it")
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise BundleError(f"{path}: is a symbolic link; a bundle holds files alone")
    if not path.is_file():
        raise BundleError(f"{path}: missing; export again")
    return path
