"""`ensembler predict`: files and folders of any size in, a table out.

Images are decoded in threads while the model works on the chunk before, and rows are written as they come: memory
does not grow with the number of images. A run that was interrupted goes on where it stopped; see `table`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .images import Chunk, decoded, find_images
from .progress import Progress
from .runtime import CHUNK, Bundle
from .table import HEAD, Table, partial_key, rows, write_rows

#: Test-time augmentation by name: the answers to these views of the images are averaged.
VIEWS: dict[str, tuple[Callable[[NDArray[np.uint8]], NDArray[np.uint8]], ...]] = {
    "none": (lambda pixels: pixels,),
    "mirror": (lambda pixels: pixels, lambda pixels: np.ascontiguousarray(pixels[:, :, ::-1])),
}

#: So many unreadable images are named on standard error; the others are counted.
NAMED = 10


def predict_files(
    bundle_path: str | Path, paths: Sequence[Path], output: Path | None, *, tta: str = "none"
) -> None:
    """Writes path, label, confidence and one column a class, an image a row.

    Unreadable images are no rows: they are named on standard error and listed in `<output>.unreadable.csv`.

    Args:
        bundle_path: a bundle.
        paths: images, and folders of images.
        output: `.csv` or `.parquet`; standard output, as CSV, where it is None.
        tta: one of `VIEWS`.

    Raises:
        DataError: not one image could be read.
        BundleError: see `Bundle.load`.
    """
    files = find_images(paths)
    bundle = Bundle.load(bundle_path)
    if output is None:
        _to_stdout(bundle, files, tta)
    else:
        _to_table(bundle, files, paths, output, tta)


def answers(
    bundle: Bundle, files: Iterator[Path], tta: str = "none"
) -> Iterator[tuple[Chunk, NDArray[np.float32]]]:
    """Chunks of decoded images, each with the bundle's probabilities float32 (images, classes)."""
    with closing(decoded(files, bundle.image_size, chunk=CHUNK)) as chunks:
        for chunk in chunks:
            yield chunk, view_average(bundle, chunk.pixels, tta)


def view_average(bundle: Bundle, pixels: NDArray[np.uint8], tta: str) -> NDArray[np.float32]:
    """Probabilities float32 (images, classes), the mean over the views of each image."""
    if not len(pixels):
        return np.empty((0, len(bundle.classes)), np.float32)
    views = [bundle.predict_pixels(view(pixels)) for view in VIEWS[tta]]
    return views[0] if len(views) == 1 else np.asarray(np.mean(views, 0, np.float64), np.float32)


def _to_stdout(bundle: Bundle, files: Iterator[Path], tta: str) -> None:
    write_rows(sys.stdout, [(*HEAD, *bundle.classes)])
    readable = failed = 0
    for chunk, proba in answers(bundle, files, tta):
        write_rows(sys.stdout, rows(chunk.paths, proba, bundle.classes))
        _warn(chunk, failed)
        readable += len(chunk.paths)
        failed += len(chunk.unreadable)
    _conclude(readable, failed, None)


def _to_table(bundle: Bundle, files: Iterator[Path], paths: Sequence[Path], output: Path, tta: str) -> None:
    with Table(output, bundle.classes, _key(bundle, tta)) as table:
        if table.discarded:
            print(f"{output}: rows left by another bundle or other options are discarded", file=sys.stderr)
        known = table.rows + table.failures
        if known:
            print(f"{output}: goes on behind {known:,} images that are done", file=sys.stderr)
        total = sum(1 for _ in find_images(paths)) if sys.stderr.isatty() else None
        with Progress(total and total - known) as progress:
            todo = (file for file in files if not table.is_done(file)) if known else files
            for chunk, proba in answers(bundle, todo, tta):
                if chunk.unreadable:
                    progress.clear()
                    _warn(chunk, table.failures)
                table.add(chunk.paths, proba, chunk.unreadable)
                progress.add(len(chunk.paths) + len(chunk.unreadable))
        if not table.rows:
            table.abandon()
            _conclude(table.rows, table.failures, None)
        table.finish()
    _conclude(table.rows, table.failures, table.unreadable_target)
    print(f"{table.rows:,} images: {output}", file=sys.stderr)


def _key(bundle: Bundle, tta: str) -> str:
    """Names all that the rows depend on: the bundle, by its index with the digest of each file, and the options."""
    return partial_key(json.dumps(bundle.index, sort_keys=True).encode(), tta.encode())


def _warn(chunk: Chunk, before: int) -> None:
    for _, reason in chunk.unreadable[: max(0, NAMED - before)]:
        print(f"warning: left out: {reason}", file=sys.stderr)


def _conclude(readable: int, failed: int, listed: Path | None) -> None:
    if failed and not readable:
        raise DataError(f"none of {failed} images can be read; see the warnings above")
    if failed > NAMED or (failed and listed):
        where = f": {listed}" if listed else ""
        print(f"warning: {failed:,} of {failed + readable:,} images cannot be read{where}", file=sys.stderr)
