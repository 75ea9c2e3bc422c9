"""Small pictures of a run's images.

A picture comes from the file that the run's own table names for a row, and from nowhere else: no path is made from
what a reader or a URL says. Where the file is gone, the copy that the models were trained on stands for it, if the
cache of decoded images still has it. What reaches the browser is always drawn anew, never the bytes of a file.
"""

from __future__ import annotations

import base64
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from PIL import Image

from ..data.cache import pixel_folder
from ..data.decode import preview
from ..errors import DataError, UnreadableImageError, printable
from ..store import RunStore, understood
from .reading import Stamp, View

#: Longest side of a picture, and the sizes of file and image above which none is made.
SIDE = 320
MAX_BYTES = 64 << 20
MAX_PIXELS = 50_000_000

#: Pictures this small would suffer from JPEG.
LOSSLESS = 64

#: Names of the cache's pixel files; the manifest is not trusted to name any other file.
_PIXELS = re.compile(r"pixels-\d+-[0-9a-f]{40}\.npy")


@dataclass(frozen=True)
class Thumbnail:
    """One picture.

    Attributes:
        uri: a `data:` URI; "" where there is no picture.
        note: why there is none, or what else than the original it is; one line, printable.
    """

    uri: str
    note: str = ""


def has_images(run: View) -> bool:
    """Whether the run knows its images; one that was made from predictions alone does not."""
    return (run.store.path / "table.parquet").is_file()


def thumbnails(run: View, rows: Sequence[int]) -> list[Thumbnail]:
    """Pictures of out-of-fold rows, by their positions; a row without one says why.

    Raises:
        StoreError: the run's table is damaged.
    """
    found = []
    for row in rows:
        try:
            found.append(_thumbnail(*run.key, int(row)))
        except UnreadableImageError as error:
            found.append(Thumbnail("", printable(str(error))))
    return found


# ---------------------------------------------------------------------- a row's picture


@st.cache_data(max_entries=4096, show_spinner=False)
def _thumbnail(path: str, stamp: Stamp, row: int) -> Thumbnail:
    """A failure is raised, and so not kept: a file that is back is shown."""
    paths = _paths(path, stamp)
    if not 0 <= row < len(paths):
        raise UnreadableImageError(f"row {row}: not in the run's table of {len(paths)} images")
    file = Path(paths[row])
    if not file.is_absolute():
        raise UnreadableImageError(f"{file.name}: the run's table does not say in which folder it lies")
    try:
        return Thumbnail(_uri(preview(_read(file), SIDE, max_pixels=MAX_PIXELS, name=file.name)))
    except UnreadableImageError as error:
        with understood(Path(path)):
            manifest = RunStore(path).manifest()
        pixels = _decoded(manifest, row, len(paths))
        if pixels is None:
            raise
        cause = str(error).removeprefix(printable(f"{file.name}: "))
        note = f"{file.name}: {cause}; this is the square copy that the models were trained on"
        return Thumbnail(_uri(Image.fromarray(pixels)), printable(note))


@st.cache_data(max_entries=4, show_spinner=False)
def _paths(path: str, stamp: Stamp) -> list[str]:  # noqa: ARG001
    """Where the out-of-fold images lie, in the order of the predictions."""
    with understood(Path(path)):
        table = RunStore(path).table()
        return [str(p) for p in table.loc[table["split"] == "oof", "path"]]


def _read(file: Path) -> bytes:
    """The bytes of a plain file of a reasonable size; links are followed, as in training."""
    try:
        # A pipe or a device would keep the reader waiting.
        handle = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode):
                raise UnreadableImageError(f"{file.name}: is no file")
            if about.st_size > MAX_BYTES:
                raise UnreadableImageError(
                    f"{file.name}: has {about.st_size / 1e6:,.0f} MB; at most {MAX_BYTES / 1e6:.0f} MB are read"
                )
            with os.fdopen(handle, "rb", closefd=False) as stream:
                return stream.read(MAX_BYTES)
        finally:
            os.close(handle)
    except FileNotFoundError as error:
        raise UnreadableImageError(
            f"{file.name}: the file is missing; it was moved, renamed or deleted"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise UnreadableImageError(f"{file.name}: {getattr(error, 'strerror', None) or error}") from error


def _decoded(manifest: Mapping[str, Any], row: int, n_rows: int) -> NDArray[np.uint8] | None:
    """The row's pixels in the cache of decoded images, where the run has said which file of it is its own."""
    named = manifest.get("pixels")
    name = str(named.get("oof")) if isinstance(named, Mapping) else ""
    if not _PIXELS.fullmatch(name):
        return None
    try:
        pixels = np.load(pixel_folder() / name, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError):
        return None
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[0] != n_rows or pixels.shape[3] != 3:
        return None
    return np.array(pixels[row])


def _uri(picture: Image.Image) -> str:
    kind = "PNG" if max(picture.size) <= LOSSLESS else "JPEG"
    stream = BytesIO()
    try:
        picture.save(stream, kind, **({"quality": 82} if kind == "JPEG" else {}))
    except (OSError, ValueError) as error:
        raise DataError(f"a picture of {picture.size} pixels cannot be drawn: {error}") from error
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"
