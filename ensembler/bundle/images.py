"""Images from the disk, as many as there are: found folder by folder, decoded a few hundred at a time.

Memory holds the names of one folder and two chunks of pixels, whatever the number of images.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data.decode import load_pixels
from ..data.folder import EXTENSIONS
from ..errors import DataError, UnreadableImageError

#: Pixels of a chunk, at most; two chunks are held at a time.
CHUNK_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some images.

    Attributes:
        paths: those that could be read.
        pixels: uint8 (images, size, size, 3) of these.
        unreadable: path and reason of the others.
    """

    paths: list[Path]
    pixels: NDArray[np.uint8]
    unreadable: list[tuple[Path, str]]


def find_images(paths: Sequence[Path]) -> Iterator[Path]:
    """The files named, and every image file below the folders named, in order of their names.

    Hidden files and folders are passed over, and links to folders are not followed, so that a walk always ends.

    Raises:
        DataError: at once, when a path does not exist or there is no image at all.
    """
    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder; give images or folders of images")
    found = itertools.chain.from_iterable(_below(path) if path.is_dir() else [path] for path in paths)
    first = next(found, None)
    if first is None:
        raise DataError(
            f"{', '.join(map(str, paths))}: no image files; expected {', '.join(sorted(EXTENSIONS))}"
        )
    return itertools.chain([first], found)


def decoded(
    files: Iterable[Path], size: int, *, chunk: int, workers: int | None = None
) -> Generator[Chunk, None, None]:
    """Decodes in threads, one chunk ahead of whoever works on the last one.

    Args:
        files: image files; they are asked for no sooner than they are needed.
        size: side of the square images.
        chunk: images at a time, fewer where they are large.
        workers: threads; one a core unless told otherwise.
    """
    chunk = max(1, min(chunk, CHUNK_BYTES // (3 * size * size)))
    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1, thread_name_prefix="decode")
    waiting: deque[list[tuple[Path, Future[NDArray[np.uint8]]]]] = deque()
    source = iter(files)
    try:
        while True:
            part = [(file, pool.submit(load_pixels, file, size)) for file in itertools.islice(source, chunk)]
            if part:
                waiting.append(part)
            if not waiting:
                return
            if len(waiting) > 1 or not part:
                yield _collect(waiting.popleft(), size)
    finally:
        pool.shutdown(cancel_futures=True)


def _collect(part: Sequence[tuple[Path, Future[NDArray[np.uint8]]]], size: int) -> Chunk:
    paths, pixels, unreadable = [], [], []
    for file, future in part:
        try:
            pixels.append(future.result())
            paths.append(file)
        except UnreadableImageError as error:
            unreadable.append((file, str(error)))
    stacked = np.stack(pixels) if pixels else np.empty((0, size, size, 3), np.uint8)
    return Chunk(paths, stacked, unreadable)


def _below(folder: Path) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(
                (entry.name, entry.is_dir(follow_symlinks=False))
                for entry in entries
                if not entry.name.startswith(".")
            )
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be listed: {error.strerror}; mend its permissions or leave it out"
        ) from error
    for name, is_folder in names:
        path = folder / name
        if is_folder:
            yield from _below(path)
        elif path.suffix.lower() in EXTENSIONS and (path.is_file() or not path.exists()):
            yield path  # also a link that leads nowhere: it is told as unreadable
