"""Class folders: one folder a class, as most image data sets come."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import DataError
from .source import Request, Row, Source

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")

_EXPECTED = f"expected one folder a class, with images in it ({', '.join(EXTENSIONS)})"


class ClassFolders(Source):
    """A directory with one folder a class. Listed last, it takes whatever no other source recognises."""

    def recognises(self, source: str) -> bool:  # noqa: ARG002
        """Always: a path that leads nowhere is best refused as a missing folder."""
        return True

    def rows(self, request: Request) -> list[Row]:
        """See `read_class_folders`."""
        return read_class_folders(request.location)


def read_class_folders(root: Path) -> list[Row]:
    """One row an image, sorted by id: its path below `root`, with forward slashes.

    The first folder below `root` is the class; folders within it are allowed. Hidden files and folders, and
    files that are no images by their extension, are passed over.

    Raises:
        DataError: no such folder, no class folders, a class folder without an image, or a folder that cannot be listed.
    """
    if not root.is_dir():
        problem = "is a file" if root.exists() else "no such folder"
        raise DataError(f"{root}: {problem}; {_EXPECTED}, or a .csv or .parquet manifest")
    try:
        folders = sorted(
            entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")
        )
    except OSError as error:
        raise _unlisted(error) from error
    if not folders:
        raise DataError(f"{root}: has no class folders; {_EXPECTED}")
    rows = []
    for folder in folders:
        found = [
            Row(id=file.relative_to(root).as_posix(), path=str(file), label=folder.name)
            for file in _images_below(folder)
        ]
        if not found:
            raise DataError(
                f"{folder}: class {folder.name!r} has no image ({', '.join(EXTENSIONS)}); "
                "put images in the folder or remove it"
            )
        rows += found
    return sorted(rows)


def _images_below(folder: Path) -> Iterable[Path]:
    def fail(error: OSError) -> None:  # else its images would be missing without a word
        raise _unlisted(error) from error

    for parent, children, files in os.walk(folder, onerror=fail):
        children[:] = [name for name in children if not name.startswith(".")]
        for name in files:
            if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                yield Path(parent, name)


def _unlisted(error: OSError) -> DataError:
    return DataError(
        f"{error.filename}: cannot be listed: {error.strerror}; mend its permissions or the disk"
    )


def write_class_folders(root: Path, images: Iterable[tuple[str, str, NDArray[np.uint8]]]) -> None:
    """Class folders of PNG files at `root`: all of them, or on any failure none.

    Args:
        root: made by one rename when every image is written; kept as it is when another process was first.
        images: (class name, file stem, uint8 pixels) each.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}-"))
    building.chmod(0o755)  # mkdtemp's own 0700 would lock others out of a shared cache
    try:
        for class_name, stem, pixels in images:
            folder = building / class_name
            folder.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{stem}.png", compress_level=1)
        try:
            building.rename(root)
        except OSError:
            if not root.is_dir():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
