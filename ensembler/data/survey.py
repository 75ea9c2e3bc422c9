"""What a folder of images holds: classes, sizes, copies and damage. Every file is read once, none is decoded."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, UnreadableImageError, printable
from .decode import header_size, read_plain
from .table import ImageTable

#: Names of folders that are parts of a data set rather than classes of it.
PARTS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})

#: More classes than twice this are shown by their largest and smallest alone.
SHOWN = 6


@dataclass(frozen=True, eq=False)
class Survey:
    """The findings about the images of a table.

    Attributes:
        table: all rows, readable or not.
        counts: images of each class among the rows that are not test rows, largest first; unreadable ones are not
            counted.
        sizes: int64 (readable images, 2), width and height in pixels from the headers.
        unreadable: (id, reason) of the files whose header does not open.
        copies: ids of the files with the same bytes, two or more each, in the table's order.
    """

    table: ImageTable
    counts: Mapping[str, int]
    sizes: NDArray[np.int64]
    unreadable: tuple[tuple[str, str], ...]
    copies: tuple[tuple[str, ...], ...]

    @property
    def n_images(self) -> int:
        """Readable images that are not test images."""
        return sum(self.counts.values())

    @property
    def imbalance(self) -> float:
        """Images of the largest class over those of the smallest; infinite where a class has none left."""
        smallest = min(self.counts.values())
        return max(self.counts.values()) / smallest if smallest else float("inf")

    @property
    def median_side(self) -> int:
        """Median over the images of the shorter side, in pixels."""
        return int(np.median(self.sizes.min(axis=1)))

    @property
    def conflicts(self) -> tuple[tuple[tuple[str, str], ...], ...]:
        """(id, label) of the copies that do not agree on their class."""
        label = self._column("label")
        named = (tuple((i, label[i]) for i in same) for same in self.copies)
        return tuple(same for same in named if len({name for _, name in same}) > 1)

    @property
    def leaks(self) -> tuple[tuple[str, ...], ...]:
        """Copies that lie both among the test images and among the others."""
        split = self._column("split")
        return tuple(same for same in self.copies if len({split[i] for i in same}) > 1)

    def _column(self, name: str) -> dict[str, str]:
        return dict(zip(self.table.frame["id"], self.table.frame[name], strict=True))

    def to_text(self) -> str:
        """The findings for a person, a line each; names are shown without control characters."""
        n_test = len(self.table.test)
        beside = f", and {n_test} marked as test images" if n_test else ""
        lines = [f"{_many(self.n_images, 'image')} in {_many(len(self.counts), 'class', 'classes')}{beside}"]
        lines += [f"  {printable(name)}: {count}" for name, count in _ends(list(self.counts.items()))]
        lines.append(
            f"imbalance: the largest class has {self.imbalance:.3g} times the images of the smallest"
        )
        sides = self.sizes.min(axis=1)
        width, height = np.median(self.sizes, axis=0).astype(int)
        lines.append(
            f"sizes: median {width} x {height} pixels; the shorter side from {sides.min()} to {sides.max()}, "
            f"median {self.median_side}"
        )
        extra = sum(len(same) - 1 for same in self.copies)
        advice = "; copies in two folds flatter every score: keep one of each" if extra else ""
        lines.append(f"exact copies: {_many(extra, 'file')}{advice}")
        lines += [f"  {' = '.join(printable(i) for i in same)}" for same in self.copies[:SHOWN]]
        for labelled in self.conflicts:
            told = ", ".join(f"{printable(i)} is {printable(name)!r}" for i, name in labelled)
            lines.append(f"  conflicting labels for the same bytes: {told}")
        for same in self.leaks:
            lines.append(f"  both a test image and not: {' = '.join(printable(i) for i in same)}")
        lines.append(f"unreadable: {_many(len(self.unreadable), 'file')}")
        lines += [f"  {printable(i)}: {printable(reason)}" for i, reason in self.unreadable[:SHOWN]]
        if len(self.unreadable) > SHOWN:
            lines.append(f"  and {len(self.unreadable) - SHOWN} more")
        return "\n".join(lines)


def survey(
    table: ImageTable,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Survey:
    """Reads every file of a table once: its content for copies, its header for its size.

    Args:
        table: see `load_table`.
        workers: threads; four by default, because it is the disk that is waited for.
        progress: called in this thread with the number of files read and of all.

    Raises:
        DataError: the classes are parts of a data set (train, test), or no file is a readable image.
    """
    parts = {name.lower() for name in table.classes}
    if parts <= PARTS:
        folder = Path(str(table.frame["path"][0])).parent.parent
        raise DataError(
            f"{folder}: its folders {', '.join(table.classes)} are parts of a data set, not classes; "
            f"give the one to train on, such as {folder / table.classes[_for_training(table.classes)]}"
        )
    with ThreadPoolExecutor(workers or min(4, os.cpu_count() or 1)) as pool:
        looks = []
        for look in pool.map(_look, table.paths):
            looks.append(look)
            if progress is not None:
                progress(len(looks), len(table))
    ids = table.ids.tolist()
    unreadable = tuple((i, look) for i, look in zip(ids, looks, strict=True) if isinstance(look, str))
    if len(unreadable) == len(ids):
        raise DataError(
            f"{table.paths[0]}: {unreadable[0][1]}; none of the {len(ids)} files can be read; give images"
        )
    same: dict[bytes, list[str]] = {}
    sizes = []
    counts = Counter(dict.fromkeys(table.classes, 0))
    rows = zip(ids, looks, table.frame["label"], table.frame["split"], strict=True)
    for image_id, look, label, split in rows:
        if isinstance(look, str):
            continue
        content, size = look
        same.setdefault(content, []).append(image_id)
        sizes.append(size)
        counts[label] += split == "oof"
    return Survey(
        table,
        dict(counts.most_common()),
        np.array(sizes, np.int64),
        unreadable,
        tuple(tuple(found) for found in same.values() if len(found) > 1),
    )


def _look(path: Path) -> tuple[bytes, tuple[int, int]] | str:
    """Hash of the content and size of the image, or why there are none."""
    try:
        data = read_plain(path)
        size = header_size(data, name=str(path))
    except UnreadableImageError as error:
        return str(error).removeprefix(printable(f"{path}: "))
    except OSError as error:
        return error.strerror or str(error)
    return hashlib.blake2b(data, digest_size=20).digest(), size


def _for_training(names: Sequence[str]) -> int:
    """Position of the part that is most likely to be the one for training."""
    return next((i for i, name in enumerate(names) if name.lower().startswith("train")), 0)


def _ends(items: list[tuple[str, int]]) -> list[tuple[str, int | str]]:
    if len(items) <= 2 * SHOWN:
        return list(items)
    between = items[SHOWN:-SHOWN]
    return [
        *items[:SHOWN],
        (f"and {len(between)} between", f"{between[-1][1]} to {between[0][1]}"),
        *items[-SHOWN:],
    ]


def _many(n: int, one: str, more: str | None = None) -> str:
    return f"{n:,} {one if n == 1 else more or one + 's'}"
