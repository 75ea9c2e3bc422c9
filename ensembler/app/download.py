"""A bundle as one file for a browser: built once, on disk beside the bundle."""

from __future__ import annotations

import zipfile
from pathlib import Path

from ..atomic import below, write_file
from ..bundle.layout import INDEX, read_index


def zipped(bundle: Path) -> Path:
    """The zip of a bundle, made when it is first asked for and after each export.

    Weights do not shrink, so nothing is compressed. What the index does not name is not sent, nor is anything that
    was altered since the export.

    Raises:
        BundleError: the bundle is damaged.
        StoreError: the zip cannot be written.
    """
    target = bundle.with_name(f".{bundle.name}.zip")  # no bundle's own name begins with a dot
    if not _holds(target, bundle):
        names = [INDEX, *read_index(bundle)["files"]]

        def fill(stream: object) -> None:
            with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
                for name in names:
                    archive.write(bundle / name, f"{bundle.name}/{name}")

        write_file(target, fill)
    return target


def _holds(target: Path, bundle: Path) -> bool:
    """Whether a zip was made of this very export: its index holds the digests of all that is in it."""
    try:
        with zipfile.ZipFile(target) as archive:
            return archive.read(f"{bundle.name}/{INDEX}") == (bundle / INDEX).read_bytes()
    except (OSError, KeyError, zipfile.BadZipFile):
        return False


def download_name(bundle: Path) -> str:
    """What the browser calls it: run and row."""
    return f"{bundle.parent.parent.name}-{bundle.name}.zip"


def size_of(bundle: Path) -> int:
    """Bytes of all files of a bundle."""
    return sum(file.stat().st_size for file in below(bundle) if file.is_file())


def megabytes(size: int) -> str:
    """A size as people read it.

    >>> megabytes(12_345_678)
    '12.3 MB'
    """
    return f"{size / 1e6:,.1f} MB"
