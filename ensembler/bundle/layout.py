"""What is in a bundle, and the checks before anything of it is used.

    bundle.json                 classes, preprocessing, members, combiner, graph, scores, versions, SHA-256 of each file
    README.md                   the model card
    model.onnx                  images in, probabilities out: all members, the combiner, the calibration
    combiner.onnx               the combiner alone, where there is one
    members/<i>/<fold>.safetensors, members/<i>/body.safetensors, combiner.safetensors      the same for PyTorch

The graphs, or the safetensors files, or both; a folder, or a .zip of it.

Format 1 had no graphs. Needs the standard library alone.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..errors import BundleError
from .archive import Archive, Folder, open_archive, safe_name

FORMAT = 2
READ = (1, FORMAT)
INDEX = "bundle.json"
CARD = "README.md"
MODEL = "model.onnx"
COMBINER_MODEL = "combiner.onnx"
COMBINER = "combiner.safetensors"
REQUIRED = ("format", "name", "classes", "image_size", "members", "combiner", "files")

#: Input and outputs of the graph; `SAID` is what each fold model of each member says, (members, folds, n, classes).
IMAGES, PROBABILITIES, SAID = "images", "probabilities", "members"

#: Input of the graph of a cascade that says which networks run, bool (members, folds); left out: all of them.
WANTED = "wanted"

#: Bytes of an index, which is read whole before anything else is known.
MAX_INDEX_BYTES = 16 << 20


class BundleFiles:
    """The files of a bundle, each compared with its digest before a byte of it is used.

    Attributes:
        index: what `bundle.json` says.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self.index = _index_of(archive)
        self._compared: set[str] = set()

    def read(self, name: str) -> bytes:
        """A file, whole, if it is what was written.

        Raises:
            BundleError: it is missing, altered, or not in the index.
        """
        digests = self.index["files"]
        if name not in digests:
            raise BundleError(f"{self._archive.where(name)}: the index holds no digest of it; export again")
        content = self._archive.read(name)
        if hashlib.sha256(content).hexdigest() != digests[name]:
            raise self._altered(name)
        self._compared.add(name)
        return content

    def verify(self) -> None:
        """Compares every file that was not read yet, in little memory.

        Raises:
            BundleError: names the first that is not what was written.
        """
        for name, digest in self.index["files"].items():
            if name not in self._compared and self._archive.digest(name) != digest:
                raise self._altered(name)

    def where(self, name: str) -> str:
        """The file for a person."""
        return self._archive.where(name)

    def _altered(self, name: str) -> BundleError:
        return BundleError(
            f"{self._archive.where(name)}: altered since the export (SHA-256 differs); export again"
        )


def open_bundle(path: Path) -> BundleFiles:
    """A bundle's files; nothing but the index has been read. `hf:USER/NAME` is fetched from the Hub first.

    Raises:
        BundleError: no bundle, an unknown format, a name that leads outside, a zip that is none or a bomb.
    """
    if str(path).startswith("hf:"):
        from .hub import fetch

        path = fetch(str(path))
    return BundleFiles(open_archive(path))


def read_index(path: Path) -> dict[str, Any]:
    """The checked index of a bundle: every file that it names lies inside and has the content it should.

    Raises:
        BundleError: no bundle, an unknown format, a missing, foreign or altered file.
    """
    files = open_bundle(path)
    files.verify()
    return files.index


def file_digest(file: Path) -> str:
    """SHA-256 of a file, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def inside(folder: Path, name: str) -> Path:
    """A file of a bundle's folder by its name in the index.

    Raises:
        BundleError: a name that leads outside, a symbolic link, or a missing file.
    """
    return Folder(folder).path(name)


def _index_of(archive: Archive) -> dict[str, Any]:
    shown = archive.where(INDEX)
    if not archive.has(INDEX):
        raise BundleError(
            f"{archive.shown}: no bundle here ({INDEX} is missing); give the folder or the .zip that "
            "`ensembler export` wrote"
        )
    try:
        index = json.loads(archive.read(INDEX, MAX_INDEX_BYTES).decode())
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{shown}: cannot be read ({error}); export again") from error
    if not isinstance(index, dict) or [key for key in REQUIRED if key not in index]:
        raise BundleError(f"{shown}: lacks some of {', '.join(REQUIRED)}; export again")
    if index["format"] not in READ:
        raise BundleError(f"{shown}: format {index['format']!r}; this version reads {FORMAT}; export again")
    if not isinstance(index["name"], str):
        raise BundleError(f"{shown}: name is {index['name']!r:.60}; expected a row's name; export again")
    if not isinstance(index["files"], dict):
        raise BundleError(f"{shown}: files is no table of digests; export again")
    for name in index["files"]:
        safe_name(archive.shown, name)
    members = index["members"]
    if not isinstance(members, list) or not all(
        isinstance(m, dict) and isinstance(m.get("name"), str) for m in members
    ):
        raise BundleError(f"{shown}: members is no list of members with their names; export again")
    size, classes = index["image_size"], index["classes"]
    if type(size) is not int or not 1 <= size <= 1 << 14:
        raise BundleError(
            f"{shown}: image_size is {size!r:.60}; expected 1 to {1 << 14} pixels; export again"
        )
    if (
        not isinstance(classes, list)
        or not all(isinstance(name, str) for name in classes)
        or len(classes) < 2
    ):
        raise BundleError(f"{shown}: classes is no list of two names or more; export again")
    return index
