"""Copies among the images of a run: which of them show the same picture, and what a run does about it.

A picture that is in two folds is learned from in one and predicted in the other; one that is a training and a test
image flatters the test score. So near-duplicates stay in one fold, and a run with leaks is refused unless told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, printable
from .cache import DecodedImages
from .decode import header_size
from .likeness import close_pairs, hashes, likeness, proves, same, thumbnails
from .table import ImageTable

Kind = Literal["bytes", "near", "mirrored"]

#: What a group of copies is called in the table of a run.
PREFIX = "copies of "

#: Pairs that are compared at a time: 2,048 of them take about 300 MB.
_CHUNK = 2048

#: Pairs that a message names.
_NAMED = 3


class Pair(NamedTuple):
    """Two rows of the table that show the same picture, and by what that is known."""

    first: int
    second: int
    kind: Kind


@dataclass(frozen=True, eq=False)
class Duplicates:
    """The copies among the readable images of a table.

    Attributes:
        table: the readable rows, all splits.
        pairs: enough pairs to connect each set; not every pair of a large set.
    """

    table: ImageTable
    pairs: tuple[Pair, ...]

    @cached_property
    def sets(self) -> tuple[tuple[int, ...], ...]:
        """Rows that show the same picture, two or more each, ascending; in the order of their first row."""
        sets = Sets(len(self.table))
        sets.join((p.first, p.second) for p in self.pairs)
        return sets.members()

    @cached_property
    def leaks(self) -> tuple[Pair, ...]:
        """Pairs of a training and a test image; at least one of every set that has both."""
        split = self.table.frame["split"].to_numpy()
        return tuple(p for p in self.pairs if split[p.first] != split[p.second])

    @property
    def leaked(self) -> list[str]:
        """Ids of the test images that share a set with a training image, in the table's order."""
        frame = self.table.frame
        test = (frame["split"] == "test").to_numpy()
        rows = [row for found in self._across(test) for row in found if test[row]]
        return [str(i) for i in frame["id"].to_numpy()[sorted(rows)]]

    @property
    def conflicts(self) -> tuple[tuple[int, ...], ...]:
        """Sets whose images do not agree on their class."""
        return self._across(self.table.frame["label"].to_numpy())

    @property
    def within_training(self) -> tuple[tuple[int, ...], ...]:
        """The rows of each set that are training images, where there are two or more."""
        oof = (self.table.frame["split"] == "oof").to_numpy()
        kept = (tuple(row for row in found if oof[row]) for found in self.sets)
        return tuple(found for found in kept if len(found) > 1)

    def _across(self, values: NDArray[Any]) -> tuple[tuple[int, ...], ...]:
        return tuple(found for found in self.sets if len({values[row] for row in found}) > 1)

    def groups(self) -> NDArray[np.object_] | None:
        """(training images,) the group of each, in the order of `table.oof`; None where nothing needs one.

        Copies have a group in common, which joins the groups that the table has. Where it has none, an image without
        a copy has "". Predefined folds stay as they are: copies that they separate are not joined.
        """
        oof = self.table.oof
        own, fold = oof.groups, oof.fold
        position = {
            row: i for i, row in enumerate(np.flatnonzero(self.table.frame["split"] == "oof").tolist())
        }
        joined = [[position[row] for row in found] for found in self.within_training]
        if fold is not None:
            joined = [part for found in joined for part in _by_value(found, fold)]
        if not joined:
            return None if own is None else own.astype(object)
        names = oof.ids.astype(object)
        if own is None:
            groups = np.full(len(oof), "", object)
            for found in joined:
                groups[found] = f"{PREFIX}{names[found[0]]}"
            return groups
        kinds, code = np.unique(own, return_inverse=True)
        sets = Sets(len(kinds))
        sets.join((int(code[found[0]]), int(code[row])) for found in joined for row in found[1:])
        return np.asarray(kinds[sets.roots()[code]], object)

    def separated(self) -> int:
        """Sets whose training images lie in different predefined folds."""
        fold = self.table.frame["fold"].to_numpy()
        return sum(len({fold[row] for row in found}) > 1 for found in self.within_training)

    def to_dict(self) -> dict[str, Any]:
        """What the manifest keeps: counts, and every set by its ids."""
        ids = self.table.frame["id"].to_numpy()
        return {
            "sets": [[str(ids[row]) for row in found] for found in self.sets],
            "leaked": self.leaked,
            "conflicts": len(self.conflicts),
        }

    def warnings(self, policy: Literal["group", "ignore"]) -> list[str]:
        """A line each on what a run ought to tell: copies that are grouped, ignored, or torn apart by given folds."""
        lines = []
        found = self.within_training
        if found:
            n = sum(map(len, found))
            done = (
                "each is kept in one fold"
                if policy == "group"
                else "folds may separate them (data.duplicates: ignore)"
            )
            lines.append(
                f"{len(found)} pictures are in the training images more than once ({n} files): {done}"
            )
        if policy == "group" and self.separated():
            lines.append(
                f"the given folds separate copies of {self.separated()} pictures: scores are too good; put each in one"
            )
        if self.leaks:
            lines.append(
                f"{len(self.leaked)} test images are also training images: the test score is too good"
            )
        return lines

    def refuse_leaks(self) -> None:
        """Stops a run whose test images are among its training images.

        Raises:
            DataError: naming some pairs and the ways out.
        """
        if not self.leaks:
            return
        frame = self.table.frame
        ids, split = frame["id"].to_numpy(), frame["split"].to_numpy()
        shown = []
        for p in self.leaks[:_NAMED]:
            test, train = (p.first, p.second) if split[p.first] == "test" else (p.second, p.first)
            shown.append(f"{printable(str(ids[test]))} = {printable(str(ids[train]))} ({WORDS[p.kind]})")
        n = len(self.leaked)
        more = f" and {len(self.leaks) - _NAMED} more pairs" if len(self.leaks) > _NAMED else ""
        raise DataError(
            f"data.test: {n} of {len(self.table.test)} test images {'is' if n == 1 else 'are'} also among the training "
            f"images: {', '.join(shown)}{more}; the test score would be too good: remove them from one of the two, or "
            "set data.leaks: drop (leaves them out of the test split) or data.leaks: allow; `ensembler audit` lists all"
        )


#: How a pair is known, in words.
WORDS: dict[Kind, str] = {"bytes": "same bytes", "near": "same picture", "mirrored": "mirror image"}


def find_duplicates(images: DecodedImages) -> Duplicates:
    """Exact copies by the content of the files, near ones by `likeness`, within and across the splits.

    Args:
        images: of `build_cache`.
    """
    table = images.table
    sets, pairs = Sets(len(table)), list[Pair]()
    rows_of = {split: np.flatnonzero(table.frame["split"] == split) for split in ("oof", "test")}
    files = [(rows_of["oof"], images.oof)]
    if images.test is not None:
        files.append((rows_of["test"], images.test))
    paths = table.paths
    first_of: dict[str, int] = {}
    for row, image_id in enumerate(table.ids.tolist()):
        first = first_of.setdefault(images.digests[image_id], row)
        if first != row:
            pairs.append(Pair(first, row, "bytes"))
    sets.join((p.first, p.second) for p in pairs)
    # Of the same bytes one is enough, and what shows nothing looks like everything.
    distinct = np.zeros(len(table), bool)
    distinct[list(first_of.values())] = True
    found = [(rows, *hashes(path), np.load(path, mmap_mode="r")) for rows, path in files]
    rows = np.concatenate([part[0] for part in found])
    bits = np.concatenate([part[1] for part in found])
    use = np.concatenate([part[2] for part in found]) & distinct[rows]
    home = np.concatenate([np.full(len(part[0]), k) for k, part in enumerate(found)])
    offset = np.concatenate([np.arange(len(part[0])) for part in found])
    rows, bits, home, offset = rows[use], bits[use], home[use], offset[use]

    def small(positions: NDArray[np.int64]) -> NDArray[np.float32]:
        return thumbnails([found[home[p]][3][offset[p]] for p in positions])

    for kind in ("near", "mirrored"):
        for tile in close_pairs(bits, mirrored=kind == "mirrored"):
            for start in range(0, len(tile), _CHUNK):
                chunk = tile[start : start + _CHUNK]
                roots = sets.roots()[rows]
                chunk = chunk[roots[chunk[:, 0]] != roots[chunk[:, 1]]]
                if not len(chunk):
                    continue
                wanted, where = np.unique(chunk, return_inverse=True)
                pictures = small(wanted)
                a, b = pictures[where.reshape(-1, 2)[:, 0]], pictures[where.reshape(-1, 2)[:, 1]]
                likenesses = likeness(a[:, :, ::-1] if kind == "mirrored" else a, b)
                alike = rows[chunk]
                is_same = same(likenesses)
                for p in np.flatnonzero(is_same):  # few: only now is it worth to open their files
                    side = min(min(header_size(paths[row])) for row in alike[p])
                    is_same[p] = proves(float(likenesses[p, 1]), side)
                alike = alike[is_same]
                pairs += [Pair(min(i, j), max(i, j), kind) for i, j in alike.tolist()]
                sets.join(map(tuple, alike.tolist()))
    return Duplicates(table, tuple(sorted(pairs)))


class Sets:
    """Disjoint sets of the numbers below n (union by the smaller root, with halved paths)."""

    def __init__(self, n: int) -> None:
        self._parent = np.arange(n)

    def join(self, pairs: Iterable[tuple[int, ...]]) -> None:
        """Makes one set of the two that the numbers of each pair are in."""
        for i, j in pairs:
            a, b = self._root(i), self._root(j)
            self._parent[max(a, b)] = min(a, b)

    def _root(self, i: int) -> int:
        parent = self._parent
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    def roots(self) -> NDArray[np.int64]:
        """(n,) the smallest number of the set that each number is in."""
        roots = self._parent
        while True:
            above = roots[roots]
            if (above == roots).all():
                return np.asarray(roots, np.int64)
            roots = above

    def members(self) -> tuple[tuple[int, ...], ...]:
        """The sets of two or more, each ascending, in the order of their smallest number."""
        roots = self.roots()
        order = np.argsort(roots, kind="stable")
        cuts = np.flatnonzero(np.diff(roots[order])) + 1
        return tuple(tuple(part.tolist()) for part in np.split(order, cuts) if len(part) > 1)


def _by_value(rows: Sequence[int], values: NDArray[Any]) -> list[list[int]]:
    parts: dict[Any, list[int]] = {}
    for row in rows:
        parts.setdefault(values[row], []).append(row)
    return [part for part in parts.values() if len(part) > 1]
