"""Is there anything in the images that would make a verdict on them worthless, or that somebody ought to look at?

`audit` puts the findings of this folder together: files that do not decode or are odd, copies and what they do, classes
that are too small for the folds, and labels that can be read from how a file was stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ...folds import make_folds
from ..cache import DecodedImages
from ..duplicates import WORDS, Duplicates, find_duplicates
from ..table import ImageTable
from .files import look_at, odd_files, passed_over
from .findings import Audit, Finding, Level
from .shortcuts import find_shortcuts, properties, shortcut_findings

__all__ = ["Audit", "Finding", "audit"]

Leaks = Literal["refuse", "drop", "allow"]


def audit(
    images: DecodedImages,
    *,
    image_size: int,
    k: int = 5,
    seed: int = 0,
    stratify: bool = True,
    monitor: float = 0.15,
    unreadable: Literal["fail", "skip"] = "fail",
    duplicates: Literal["group", "ignore"] = "group",
    leaks: Leaks = "refuse",
    drawn: bool = False,
    folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Looks at all images of a config; writes nothing but the cache.

    Args:
        images: decoded, unreadable ones left out and listed.
        image_size: side to which they were decoded.
        k, seed, stratify, monitor: the folds that a run would make.
        unreadable, duplicates, leaks: what a run would do.
        drawn: whether the test split is a share of the source, which a run draws without leaks.
        folder: of the class folders, to see what is passed over in them.
        progress: called with the number of files looked at and of all.
    """
    table = images.table
    ids = table.ids.tolist()
    looks = look_at(table.paths, progress)
    copies = find_duplicates(images)
    findings = [
        *_unreadable(images, unreadable),
        *odd_files(ids, looks, image_size),
        *_passed_over(images, folder),
        *_leaks(copies, leaks, drawn=drawn),
        *_copies(copies, duplicates),
        *_classes(copies, k, seed, duplicates, stratify=stratify, monitor=monitor),
    ]
    oof = np.flatnonzero(table.frame["split"] == "oof")
    seen = [looks[row] for row in oof]
    known = np.array([look is not None for look in seen], bool)
    columns = properties([look for look in seen if look is not None], _brightness(images.oof)[known])
    findings += shortcut_findings(find_shortcuts(columns, table.oof.labels[known], seed))
    order: tuple[Level, ...] = ("error", "warning", "note")
    findings.sort(key=lambda finding: order.index(finding.level))
    counts = Counter(dict.fromkeys(table.classes, 0))
    counts.update(table.oof.frame["label"].tolist())
    return Audit(dict(counts.most_common()), len(table.test), tuple(findings))


def _brightness(pixels: Path) -> NDArray[np.float64]:
    """(n,) mean of each image of a pixel file."""
    images = np.load(pixels, mmap_mode="r")
    return np.concatenate([images[i : i + 256].mean(axis=(1, 2, 3)) for i in range(0, len(images), 256)])


def _passed_over(images: DecodedImages, folder: Path | None) -> list[Finding]:
    if folder is None:
        return []
    unreadable = [str(folder / image_id) for image_id, _ in images.unreadable]
    return passed_over(folder, [*map(str, images.table.paths), *unreadable])


def _unreadable(images: DecodedImages, policy: Literal["fail", "skip"]) -> list[Finding]:
    found = images.unreadable
    if not found:
        return []
    items = tuple(f"{image_id}: {reason}" for image_id, reason in found)
    if policy == "skip":
        return [
            Finding("warning", "unreadable", f"{len(found)} files cannot be read and are left out", items)
        ]
    advice = "mend or remove them, or set data.unreadable: skip"
    return [
        Finding(
            "error", "unreadable", f"{len(found)} files cannot be read: a run refuses them", items, advice
        )
    ]


def _leaks(copies: Duplicates, policy: Leaks, *, drawn: bool) -> list[Finding]:
    if not copies.leaks:
        return []
    frame = copies.table.frame
    ids, split = frame["id"].to_numpy(), frame["split"].to_numpy()
    items = []
    for p in copies.leaks:
        test, train = (p.first, p.second) if split[p.first] == "test" else (p.second, p.first)
        items.append(f"{ids[test]} = {ids[train]} ({WORDS[p.kind]})")
    what = f"{len(copies.leaked)} of {len(copies.table.test)} test images are also training images"
    if drawn and policy == "refuse":
        return [
            Finding("note", "leak", f"{what}: a run gives them back to the training images", tuple(items))
        ]
    if policy == "drop":
        return [Finding("note", "leak", f"{what}: a run leaves them out of the test split", tuple(items))]
    advice = "the test score would be too good: remove them from one of the two, or set data.leaks: drop"
    return [Finding("error", "leak", what, tuple(items), advice)]


def _copies(copies: Duplicates, policy: Literal["group", "ignore"]) -> list[Finding]:
    frame = copies.table.frame
    ids, label = frame["id"].to_numpy(), frame["label"].to_numpy()
    findings = []
    if copies.conflicts:
        items = (", ".join(f"{ids[row]} is {label[row]}" for row in found) for found in copies.conflicts)
        findings.append(
            Finding(
                "warning",
                "conflict",
                f"copies of one picture in different classes: {len(copies.conflicts)}",
                tuple(items),
                "one of the labels is wrong: no model can be right on both; correct it, or leave the picture out",
            )
        )
    if separated := copies.separated():
        findings.append(
            Finding("error", "separated", f"the given folds separate copies of {separated} pictures",
                    _sets(copies.within_training, ids), "put all copies of a picture in one fold"),
        )  # fmt: skip
    if found := copies.within_training:
        extra = sum(map(len, found)) - len(found)
        what = f"training images that are copies of another (same bytes, picture or mirror image): {extra}"
        level: Level = "note" if policy == "group" else "warning"
        done = (
            "a run keeps the copies of a picture in one fold"
            if policy == "group"
            else "folds may separate them"
        )
        findings.append(Finding(level, "copies", f"{what}; {done}", _sets(found, ids)))
    return findings


def _sets(sets: Sequence[Sequence[int]], ids: NDArray[np.object_]) -> tuple[str, ...]:
    return tuple(" = ".join(str(ids[row]) for row in found) for found in sets)


def _classes(
    copies: Duplicates,
    k: int,
    seed: int,
    policy: Literal["group", "ignore"],
    *,
    stratify: bool,
    monitor: float,
) -> list[Finding]:
    """Whether the folds can be made; every class that is too small for them, and classes without a test image."""
    table: ImageTable = copies.table
    oof = table.oof
    groups = copies.groups() if policy == "group" else oof.groups
    findings = []
    counts = np.bincount(oof.labels, minlength=len(table.classes))
    small = [f"{name}: {n}" for name, n in zip(table.classes, counts.tolist(), strict=True) if n < k]
    if small and oof.fold is None:
        what = f"{len(small)} classes have fewer than {k} training images, one for each fold"
        findings.append(
            Finding("error", "classes", what, tuple(small), "add images, lower folds.k, or leave them out")
        )
    else:
        try:
            make_folds(
                oof.labels, k, seed, groups=groups, predefined=oof.fold, stratify=stratify, monitor_fraction=monitor,
                class_names=table.classes,
            )  # fmt: skip
        except DataError as error:
            findings.append(Finding("error", "folds", f"the folds cannot be made: {error}"))
    if len(table.test):
        missing = [name for name in table.classes if name not in set(table.test.frame["label"])]
        if missing:
            what = f"{len(missing)} classes have no test image"
            findings.append(Finding("note", "untested", what, tuple(missing)))
    return findings
