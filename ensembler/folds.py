"""Three index sets a fold: what gradients see, what decides when to stop, and what is predicted once.

    train     gradients
    monitor   a slice of the training part: early stopping, checkpoint, temperature, all that a search sees
    holdout   predicted when training is over; every image is in exactly one

The usual two sets choose the checkpoint on the very images whose predictions then count as out-of-fold, and
flatter every model before the first ensemble is built.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import DataError


@dataclass(frozen=True, eq=False)
class Fold:
    """Disjoint row numbers, int64 and ascending, that together cover the table."""

    train: NDArray[np.int64]
    monitor: NDArray[np.int64]
    holdout: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Folds:
    """The folds in order, and int16 (n,) the fold whose holdout each row is in."""

    folds: tuple[Fold, ...]
    assignment: NDArray[np.int16]

    def __iter__(self) -> Iterator[Fold]:
        return iter(self.folds)

    def __len__(self) -> int:
        return len(self.folds)

    def __getitem__(self, index: int) -> Fold:
        return self.folds[index]


def make_folds(
    labels: ArrayLike,
    k: int,
    seed: int = 0,
    *,
    groups: ArrayLike | None = None,
    predefined: ArrayLike | None = None,
    stratify: bool = True,
    monitor_fraction: float = 0.15,
    class_names: Sequence[str] | None = None,
) -> Folds:
    """Folds for cross-validation; the same seed gives the same folds on every machine.

    Args:
        labels: (n,) int from 0, the class of each row.
        k: number of folds, at least 2; passed over when the folds are predefined.
        seed: draws both the folds and the monitor slices.
        groups: (n,) values whose rows stay together: no group straddles train, monitor and holdout. "" marks a row on
            its own; where there is one, the rows of a group go where the first of them goes, as if they were one row.
        predefined: (n,) int, 0 or more, the fold of each row; re-numbered from 0 in ascending order.
        stratify: whether every holdout has each class in proportion (within one row without groups).
        monitor_fraction: share of the training part, in (0, 1), that becomes the monitor slice.
        class_names: for error messages, and for classes that have no row.

    Raises:
        DataError: a class or the groups too few for k, a class that some fold could not train on, folds that
            split a group, or settings out of range.
    """
    y = np.asarray(labels, np.int64)
    group, as_one = _coded(groups)
    names = (
        list(class_names) if class_names is not None else [str(c) for c in range(int(y.max(initial=-1)) + 1)]
    )
    for what, values in (("groups", groups), ("predefined folds", predefined)):
        if values is not None and len(np.asarray(values)) != len(y):
            raise DataError(f"{what}: {len(np.asarray(values))} values for {len(y)} images; give one each")
    if predefined is not None:
        assignment = _renumber(np.asarray(predefined))
    elif group is not None and as_one:
        first = np.unique(group, return_index=True)[1]
        assignment = _assign(y[first], k, seed, group=None, stratify=stratify, names=names)[group]
    else:
        assignment = _assign(y, k, seed, group=group, stratify=stratify, names=names)
    if group is not None:
        _refuse_split_groups(assignment, group, np.asarray(groups))
    n_folds = int(assignment.max()) + 1
    folds = []
    for number in range(n_folds):
        rest = np.flatnonzero(assignment != number)
        _refuse_untrainable(y, rest, number, names)
        what, own = f"monitor slice of fold {number}", None if group is None else group[rest]
        if own is not None and as_one:
            _, first, which = np.unique(own, return_index=True, return_inverse=True)
            chosen = stratified_slice(y[rest][first], monitor_fraction, [seed, number], what=what)
            chosen = np.flatnonzero(np.isin(which, chosen))
        else:
            chosen = stratified_slice(y[rest], monitor_fraction, [seed, number], groups=own, what=what)
        monitor = rest[chosen]
        folds.append(
            Fold(
                train=np.setdiff1d(rest, monitor),
                monitor=monitor,
                holdout=np.flatnonzero(assignment == number),
            )
        )
    return Folds(tuple(folds), assignment)


def _coded(groups: ArrayLike | None) -> tuple[NDArray[np.int64] | None, bool]:
    """A number from 0 for each group and for each row on its own; and whether there are rows on their own."""
    if groups is None:
        return None, False
    code = np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)
    alone = np.asarray(groups, object) == ""
    if alone.any():
        code[alone] = len(code) + np.flatnonzero(alone)
        code = np.unique(code, return_inverse=True)[1].astype(np.int64)
    return code, bool(alone.any())


# ---------------------------------------------------------------------- holdouts


def _assign(
    y: NDArray[np.int64],
    k: int,
    seed: int,
    *,
    group: NDArray[np.int64] | None,
    stratify: bool,
    names: Sequence[str],
) -> NDArray[np.int16]:
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

    if k < 2:
        raise DataError(f"folds: k is {k}; at least 2 are needed, so that every image is held out once")
    if len(y) < k:
        raise DataError(f"folds: {len(y)} images for {k} folds; lower k or add images")
    if stratify:
        counts = np.bincount(y, minlength=len(names))
        rarest = int(counts.argmin())
        if counts[rarest] < k:
            raise DataError(
                f"class {names[rarest]!r}: {counts[rarest]} images for {k} folds; "
                "add images, lower k, or leave the class out"
            )
    if group is None:
        kind = StratifiedKFold if stratify else KFold
        splitter = kind(k, shuffle=True, random_state=seed)
    else:
        n_groups = int(group.max()) + 1
        if n_groups < k:
            raise DataError(f"groups: {n_groups} for {k} folds; lower k or use finer groups")
        if stratify:
            splitter = StratifiedGroupKFold(k, shuffle=True, random_state=seed)
        else:
            # It balances sizes, greedily and without a seed; other numbers for the groups break its ties.
            splitter = GroupKFold(k)
            group = np.random.default_rng(seed).permutation(n_groups)[group]
    assignment = np.full(len(y), -1, np.int16)
    for number, (_, holdout) in enumerate(splitter.split(y, y, group)):
        if len(holdout) == 0:
            raise DataError(f"groups: fold {number} of {k} would be empty; lower k or use finer groups")
        assignment[holdout] = number
    return assignment


def _renumber(predefined: NDArray[Any]) -> NDArray[np.int16]:
    if not np.issubdtype(predefined.dtype, np.integer):
        raise DataError(f"predefined folds: {predefined.dtype} values; expected integers")
    values, assignment = np.unique(predefined, return_inverse=True)
    if len(values) < 2:
        raise DataError(f"predefined folds: only {values.tolist()}; at least 2 folds are needed")
    if values[0] < 0:
        row = int(np.argmax(predefined < 0))
        raise DataError(f"predefined folds: {predefined[row]} in row {row}; expected 0 or more")
    renumbered: NDArray[np.int16] = assignment.astype(np.int16)
    return renumbered


def _refuse_split_groups(
    assignment: NDArray[np.int16], group: NDArray[np.int64], names: NDArray[Any]
) -> None:
    home = np.zeros(int(group.max()) + 1, np.int16)
    home[group] = assignment
    strays = np.flatnonzero(home[group] != assignment)
    if len(strays):
        row = strays[0]
        raise DataError(
            f"group {str(names[row])!r}: lies in folds {assignment[row]} and {home[group[row]]}; "
            "its images would be trained on and held out at once: put them in one fold"
        )


def _refuse_untrainable(
    y: NDArray[np.int64], rest: NDArray[np.int64], number: int, names: Sequence[str]
) -> None:
    missing = np.setdiff1d(y, y[rest])
    if len(missing):
        raise DataError(
            f"class {names[missing[0]]!r}: all its images are held out in fold {number}, "
            "none is left to train on; spread the class over more groups or folds, or leave it out"
        )


# ---------------------------------------------------------------------- slices


def stratified_slice(
    labels: NDArray[np.int64],
    fraction: float,
    seed: int | Sequence[int],
    *,
    groups: ArrayLike | None = None,
    what: str = "slice",
) -> NDArray[np.int64]:
    """Rows of about a fraction of each class; what is left is still good to train on.

    Never empty, and never the last row of a class that has two or more. Without groups each class is within
    one row of its share. scikit-learn's splitters do not serve here: those for rows refuse a class of one
    row, those for groups know only k equal parts.

    Args:
        labels: (n,) int from 0.
        fraction: in (0, 1).
        seed: draws the rows.
        groups: (n,) values; only whole groups are taken.
        what: what an error calls the slice.

    Returns:
        int64 row numbers, ascending.

    Raises:
        DataError: fraction out of range, fewer than two rows, or groups that leave no choice.
    """
    if not 0 < fraction < 1:
        raise DataError(f"{what}: fraction {fraction}; expected one between 0 and 1")
    if len(labels) < 2:
        raise DataError(f"{what}: {len(labels)} image to take it from; at least two are needed")
    draw = np.random.default_rng(seed)
    if groups is None:
        return _slice_rows(labels, fraction, draw)
    group = np.unique(np.asarray(groups), return_inverse=True)[1]
    chosen = _slice_groups(labels, group, fraction, draw)
    if chosen is None:
        raise DataError(
            f"{what}: every group holds all images of some class, so none can be set aside; use finer groups"
        )
    return np.flatnonzero(np.isin(group, chosen))


def _slice_rows(y: NDArray[np.int64], fraction: float, draw: np.random.Generator) -> NDArray[np.int64]:
    counts = np.bincount(y)
    share = counts * fraction
    quota = np.floor(share).astype(np.int64)
    # Largest remainder, so that the total is right too; the draw comes first and decides between equals.
    order = draw.permutation(len(counts))
    order = order[np.argsort(-(share - quota)[order], kind="stable")]
    order = order[(quota < counts - 1)[order]]
    quota[order[: max(round(len(y) * fraction), 1) - int(quota.sum())]] += 1
    if quota.sum() == 0:  # no class has two rows
        quota[y[0]] = 1
    of_class = np.split(
        np.argsort(y, kind="stable"), np.cumsum(counts)[:-1]
    )  # in one pass, however many there are
    chosen = [draw.permutation(rows)[:n] for rows, n in zip(of_class, quota, strict=True)]
    return np.sort(np.concatenate(chosen))


def _slice_groups(
    y: NDArray[np.int64], group: NDArray[np.int64], fraction: float, draw: np.random.Generator
) -> NDArray[np.int64] | None:
    """The best of several searches, each of which puts groups in or takes them out while that helps.

    What helps is less distance between the class counts and their share, squared and relative to the size of
    the class: a rare class weighs as much as a common one. Few groups are hard to balance and get many
    searches, each in another order; among many a single one comes within a row or so.
    """
    n_groups = int(group.max()) + 1
    counts = np.zeros((n_groups, int(y.max()) + 1), np.int64)
    np.add.at(counts, (group, y), 1)
    total = counts.sum(axis=0)
    scale = 1 / np.maximum(total, 1)
    stays = np.minimum(total - 1, 1)  # of each class with two rows or more, one has to stay outside
    possible = np.flatnonzero((total - counts >= stays).all(axis=1))
    if len(possible) == 0 or n_groups < 2:
        return None

    def distance(inside: NDArray[np.int64]) -> float:
        return float((((inside - total * fraction) * scale) ** 2).sum())

    # Where every group is larger than the share, and each search stays empty, the smallest will do.
    best, least = {int(possible[counts[possible].sum(axis=1).argmin()])}, np.inf
    for _ in range(1 + 1000 // n_groups):
        inside, chosen = np.zeros_like(total), set[int]()
        order = draw.permutation(possible).tolist()
        for g in order * 3:
            changed = inside - counts[g] if g in chosen else inside + counts[g]
            allowed = (total - changed >= stays).all() and changed.sum() < len(y)
            if allowed and distance(changed) < distance(inside):
                inside, chosen = changed, chosen ^ {g}
        if chosen and distance(inside) < least:
            best, least = chosen, distance(inside)
    return np.array(sorted(best), np.int64)
