"""Every image decoded once, into one uint8 file a split that all workers map into memory.

A file is named by what it holds (the content of its images in their order, the size, the decoder), so a stale
one is never found, whatever the images are called, wherever they lie and whatever their labels say. Beside it
lies a small list of the images that do not decode. Both appear by rename, the list first: a pixel file that
exists is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import PIL
from filelock import FileLock
from numpy.typing import NDArray

from ..errors import DataError, UnreadableImageError, printable
from .decode import DECODER_VERSION, load_pixels, open_plain, read_plain
from .places import cache_dir
from .table import ImageTable

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True)
class DecodedImages:
    """Where the pixels are, and which rows they belong to.

    Attributes:
        table: the readable rows, with the fingerprint filled.
        oof: `.npy` file, uint8 (n, size, size, 3) RGB, one entry a row of `table.oof`, in its order; open it
            with `np.load(path, mmap_mode="r")`.
        test: the same for `table.test`, in a file of its own: whoever trains maps no test pixel; None without
            rows.
        unreadable: (id, reason) of the rows that were dropped.
        digests: hash of the content of every readable file, by id.
    """

    table: ImageTable
    oof: Path
    test: Path | None
    unreadable: tuple[tuple[str, str], ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)


def pixel_folder() -> Path:
    """Where the pixel files of all runs are."""
    return cache_dir() / "pixels"


def build_cache(
    table: ImageTable,
    image_size: int,
    cache_dir: Path,
    *,
    unreadable: Literal["fail", "skip"] = "fail",
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DecodedImages:
    """The pixels of every image, decoded now or found from an earlier call.

    Reads every file once for its hash; what was decoded before, by any experiment, is not decoded again. Any
    number of processes may call it at the same time: one decodes, the others wait for it.

    Args:
        table: any number of oof and test rows.
        image_size: side of the square, in pixels.
        cache_dir: made where it is missing.
        unreadable: "fail", or "skip" to drop the rows and list them.
        workers: threads; one a core by default (Pillow lets go of the interpreter lock).
        progress: called in this thread with the number of images done and of all.

    Raises:
        DataError: images cannot be read (first one, how many, the way out), a file changed meanwhile, or the
            cache cannot be written (no space left).
    """
    workers = workers or _cores()
    files = dict(zip(table.ids.tolist(), table.paths, strict=True))
    reasons: dict[str, str] = {}
    digests: dict[str, str] = {}
    pixel_files: dict[str, Path] = {}
    with ThreadPoolExecutor(workers) as pool:
        for image_id, digest in zip(files, _in_order(pool, workers, _digest, files.values()), strict=True):
            if isinstance(digest, OSError):
                reasons[image_id] = digest.strerror or str(digest)
            else:
                digests[image_id] = digest
        builder = _Builder(image_size, cache_dir, pool, workers, _Counter(len(digests), progress))
        for split, part in (("oof", table.oof), ("test", table.test)):
            readable = [image_id for image_id in part.ids.tolist() if image_id in digests]
            if not readable:
                continue
            images = [_Image(files[image_id], digests[image_id]) for image_id in readable]
            pixel_files[split], failed = builder.pixels(images)
            reasons |= {readable[i]: reason for i, reason in failed.items()}
    if reasons and unreadable == "fail":
        first = next(image_id for image_id in files if image_id in reasons)
        raise UnreadableImageError(
            f"{files[first]}: {reasons[first]}; {len(reasons)} of {len(files)} images cannot be read: "
            "mend or remove them, or set data.unreadable: skip"
        )
    kept = table.drop(reasons)
    if len(kept.oof) == 0:
        raise DataError(
            f"none of the {len(table.oof)} training images can be read; see that the source is right"
        )
    return DecodedImages(
        table=kept.with_fingerprint(_fingerprint(kept, digests)),
        oof=pixel_files["oof"],
        test=pixel_files["test"] if len(kept.test) else None,
        unreadable=tuple((image_id, reasons[image_id]) for image_id in files if image_id in reasons),
        digests=digests,
    )


# ---------------------------------------------------------------------- content


@dataclass(frozen=True)
class _Image:
    path: Path
    digest: str


def _hash() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=20)


def _digest(path: Path) -> str | OSError:
    try:
        with open_plain(path) as file:
            return hashlib.file_digest(file, _hash).hexdigest()
    except OSError as error:
        return error


def _fingerprint(table: ImageTable, digests: dict[str, str]) -> str:
    """The hash of every row (all but its path) and its content, in whatever order the rows come."""
    frame = table.frame
    rows = zip(
        frame["id"], frame["label"], frame["group"], frame["split"], frame["fold"].tolist(), strict=True
    )
    lines = sorted(json.dumps([*row, digests[row[0]]]) for row in rows)
    total = _hash()
    total.update("\n".join(lines).encode())
    return total.hexdigest()


# ---------------------------------------------------------------------- pixels


@dataclass
class _Counter:
    total: int
    report: Callable[[int, int], None] | None
    done: int = 0

    def add(self, n: int) -> None:
        self.done += n
        if self.report is not None:
            self.report(self.done, self.total)


@dataclass(frozen=True)
class _Builder:
    """Finds or makes the pixel file of some images."""

    size: int
    cache_dir: Path
    pool: ThreadPoolExecutor
    workers: int
    counter: _Counter

    def pixels(self, images: Sequence[_Image]) -> tuple[Path, dict[int, str]]:
        """The pixel file, and by position those images that do not decode and so are not in it."""
        target = self.cache_dir / f"{self._key(images)}.npy"
        failed = _whole(target, len(images), self.size)
        if failed is not None:
            self.counter.add(len(images))
            return target, failed
        try:
            self.cache_dir.mkdir(parents=True, exist_ok=True)
            with FileLock(target.with_suffix(".lock")):
                # Whoever held the lock may have made it.
                failed = _whole(target, len(images), self.size)
                return target, self._make(target, images) if failed is None else failed
        except OSError as error:
            raise DataError(
                f"{target}: the decoded images cannot be written: {error.strerror or error}; "
                f"{len(images) * self.size**2 * 3 / 1e6:.0f} MB are needed, free some or choose another place"
            ) from error

    def _key(self, images: Sequence[_Image]) -> str:
        # Another Pillow may bring another JPEG decoder, whose pixels differ by a bit here and there.
        total = _hash()
        total.update(f"{DECODER_VERSION} {PIL.__version__} {self.size}\n".encode())
        total.update("\n".join(image.digest for image in images).encode())
        return f"pixels-{self.size}-{total.hexdigest()}"

    def _make(self, target: Path, images: Sequence[_Image]) -> dict[int, str]:
        # Under the lock nobody else writes these names; what a killed builder left is overwritten.
        building = target.with_suffix(".building")
        failed: dict[int, str] = {}
        try:
            with building.open("wb") as file:
                _write_header(file, 0, self.size)
                decode = partial(_decode, size=self.size)
                for i, pixels in enumerate(_in_order(self.pool, self.workers, decode, images)):
                    if isinstance(pixels, str):
                        failed[i] = pixels
                    else:
                        # Written, not stored through a mapping: on a full disk that would be a SIGBUS.
                        file.write(pixels.data)
                    self.counter.add(1)
                file.seek(0)
                _write_header(file, len(images) - len(failed), self.size)
                file.flush()
                os.fsync(file.fileno())
            listing = target.with_suffix(".listing")
            listing.write_text(json.dumps(failed))
            listing.replace(_failures(target))
            building.replace(target)
        finally:
            building.unlink(missing_ok=True)
        return failed


def _decode(image: _Image, size: int) -> NDArray[np.uint8] | str:
    """The pixels, or why there are none."""
    total = _hash()
    try:
        data = read_plain(image.path)
        total.update(data)
    except OSError as error:
        raise DataError(f"{image.path}: went away meanwhile: {error.strerror}; start again") from error
    if total.hexdigest() != image.digest:
        raise DataError(f"{image.path}: changed while the images were read; start again once it rests")
    try:
        return load_pixels(data, size, name=str(image.path))
    except UnreadableImageError as error:
        # The path comes from the table: the same content may lie elsewhere when the reason is read again.
        return str(error).removeprefix(printable(f"{image.path}: "))


def _write_header(file: object, n: int, size: int) -> None:
    # numpy pads the header so that the first dimension can grow in place.
    header = {"descr": "|u1", "fortran_order": False, "shape": (n, size, size, 3)}
    np.lib.format.write_array_header_1_0(file, header)  # type: ignore[arg-type]


def _failures(target: Path) -> Path:
    return target.with_suffix(".json")


def _whole(target: Path, n_images: int, size: int) -> dict[int, str] | None:
    """The failures listed beside a whole pixel file; None where it is missing, too short or misshapen."""
    try:
        failed = {int(i): str(reason) for i, reason in json.loads(_failures(target).read_text()).items()}
        # Where no image is readable there is nothing to map.
        pixels = np.load(target, mmap_mode="r" if n_images > len(failed) else None)
    except (OSError, EOFError, ValueError, AttributeError):
        return None
    expected = (n_images - len(failed), size, size, 3)
    return failed if pixels.dtype == np.uint8 and pixels.shape == expected else None


# ---------------------------------------------------------------------- threads


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_order(
    pool: ThreadPoolExecutor, workers: int, function: Callable[[In], Out], items: Iterable[In]
) -> Iterator[Out]:
    """`pool.map` with few items in flight: a million images need no million futures, nor all their pixels."""
    pending: deque[Future[Out]] = deque()
    for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) > 16 * workers:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
