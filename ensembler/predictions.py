"""`Predictions`: the one value that flows from training to combiners, scores, the app and the bundle.

It validates itself once, when it is made, so that nobody downstream has to. Its arrays are read-only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from .errors import PredictionsError

Split = Literal["oof", "test"]

#: How far the sum of a float32 row may be from 1. Softmax in float32 over 1,000 classes stays within 1e-5.
ROW_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Predictions:
    """Class probabilities of one or more members for the same images.

    Attributes:
        proba: float32 (members, samples, classes); finite, in [0, 1], rows sum to 1.
        members: candidate or ensemble names, unique, one a slab of `proba`.
        sample_ids: (samples,) str, unique; the same order for every member.
        classes: class names in column order, unique.
        labels: int64 (samples,), index into `classes`.
        fold: int16 (samples,), the fold whose model predicted this row; -1 on the test split.
        split: "oof" or "test".
        features: float32 (samples, dims), finite: what a frozen backbone says of each image; or None.

    Raises:
        PredictionsError: naming the field, the row or member, the value and what was expected.
    """

    proba: NDArray[np.float32]
    members: tuple[str, ...]
    sample_ids: NDArray[np.str_]
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    fold: NDArray[np.int16]
    split: Split = "oof"
    features: NDArray[np.float32] | None = None
    _valid: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "members", tuple(str(m) for m in self.members))
        set_(self, "classes", tuple(str(c) for c in self.classes))
        set_(self, "proba", _as_array("proba", self.proba, np.float32, ndim=3))
        set_(self, "sample_ids", _as_ids(self.sample_ids))
        set_(self, "labels", _as_array("labels", self.labels, np.int64, ndim=1))
        set_(self, "fold", _as_array("fold", self.fold, np.int16, ndim=1))
        if self.features is not None and not _is_frozen(self.features):
            set_(self, "features", _as_array("features", self.features, np.float32, ndim=2))
            self.features.flags.writeable = False
        if not self._valid:
            self._validate()
        for name in ("proba", "sample_ids", "labels", "fold"):
            getattr(self, name).flags.writeable = False

    # ------------------------------------------------------------------ making

    @classmethod
    def from_arrays(
        cls,
        proba: ArrayLike,
        labels: ArrayLike,
        fold: ArrayLike | None = None,
        *,
        members: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
        sample_ids: Sequence[str] | None = None,
        split: Split = "oof",
        features: ArrayLike | None = None,
    ) -> Predictions:
        """Predictions from plain arrays, with names made up where none are given.

        Args:
            proba: (members, samples, classes), or (samples, classes) for a single member.
            labels: (samples,) int, index into the classes.
            fold: (samples,) int; may be left out on the test split only.
            members: defaults to "m0", "m1", ...
            classes: defaults to "0", "1", ...
            sample_ids: defaults to "0", "1", ...
            split: "oof" or "test".
            features: (samples, dims), or None.

        Raises:
            PredictionsError: see the class.

        >>> p = Predictions.from_arrays([[0.9, 0.1], [0.2, 0.8]], labels=[0, 1], fold=[0, 1])
        >>> p.n_members, p.n_samples, p.n_classes
        (1, 2, 2)
        """
        cube = np.asarray(proba)
        if cube.ndim == 2:
            cube = cube[None]
        if cube.ndim != 3:
            raise PredictionsError(f"proba: has {cube.ndim} dimensions; expected (members, samples, classes)")
        n_members, n_samples, n_classes = cube.shape
        if fold is None:
            if split == "oof":
                raise PredictionsError("fold: missing; out-of-fold rows need the fold that predicted them")
            fold = np.full(n_samples, -1, np.int16)
        names = [f"m{i}" for i in range(n_members)] if members is None else members
        columns = [str(i) for i in range(n_classes)] if classes is None else classes
        ids = [str(i) for i in range(n_samples)] if sample_ids is None else sample_ids
        return cls(
            proba=cast(Any, cube),
            members=tuple(names),
            sample_ids=cast(Any, ids),
            classes=tuple(columns),
            labels=cast(Any, labels),
            fold=cast(Any, fold),
            split=split,
            features=cast(Any, features),
        )

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, split: Split = "oof") -> Predictions:
        """Predictions from a long table: `member`, `sample_id`, `fold`, `label`, then one column a class.

        Args:
            frame: one row a (member, sample); `label` holds a class name; `fold` may be absent on the test
                split only.
            split: "oof" or "test".

        Raises:
            PredictionsError: a column is missing, a member lacks a sample, or a sample's label or fold differs
                between members.
        """
        from .predictions_io import from_frame

        return from_frame(frame, split)

    @classmethod
    def assemble(
        cls,
        parts: Mapping[tuple[str, int], NDArray[np.float32]],
        *,
        members: Sequence[str],
        holdouts: Sequence[NDArray[np.int64]],
        labels: NDArray[np.int64],
        sample_ids: Sequence[str],
        classes: Sequence[str],
    ) -> Predictions:
        """Out-of-fold predictions from what each fold's model said of its holdout rows.

        Args:
            parts: (member, fold) -> (holdout samples, classes).
            members: names, in the order wanted.
            holdouts: for each fold the row index of its holdout; together they cover every row once.
            labels: (samples,) int.
            sample_ids: (samples,) names of the rows.
            classes: names of the columns.

        Raises:
            PredictionsError: naming every missing (member, fold), or a part of the wrong shape.
        """
        gaps = [(m, f) for m in members for f in range(len(holdouts)) if (m, f) not in parts]
        if gaps:
            shown = ", ".join(f"({m}, fold {f})" for m, f in gaps)
            raise PredictionsError(f"{len(gaps)} fold results missing: {shown}; run the sweep again")
        covered = np.sort(np.concatenate(list(holdouts)))
        if not np.array_equal(covered, np.arange(len(labels))):
            raise PredictionsError(f"holdouts: cover {len(np.unique(covered))} of {len(labels)} rows once")
        proba = np.empty((len(members), len(labels), len(classes)), np.float32)
        fold = np.empty(len(labels), np.int16)
        for f, rows in enumerate(holdouts):
            fold[rows] = f
            for m, member in enumerate(members):
                part = parts[member, f]
                if part.shape != (len(rows), len(classes)):
                    raise PredictionsError(
                        f"member {member!r}, fold {f}: shape {part.shape}; expected {(len(rows), len(classes))}"
                    )
                proba[m, rows] = part
        return cls.from_arrays(proba, labels, fold, members=members, classes=classes, sample_ids=sample_ids)

    # ------------------------------------------------------------------ reading

    @property
    def n_members(self) -> int:
        """Number of members."""
        return int(self.proba.shape[0])

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        return int(self.proba.shape[1])

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return int(self.proba.shape[2])

    @property
    def folds(self) -> list[int]:
        """The folds that occur, ascending; `[-1]` on the test split."""
        return [int(f) for f in np.unique(self.fold)]

    def index(self, member: str) -> int:
        """Position of a member, or a PredictionsError that names those there are."""
        try:
            return self.members.index(member)
        except ValueError:
            raise PredictionsError(f"member {member!r}: not among {list(self.members)}") from None

    # ------------------------------------------------------------------ cutting and joining

    def select(self, members: Sequence[str]) -> Predictions:
        """The named members only, in the order asked for."""
        rows = [self.index(m) for m in members]
        return self._replace(proba=self.proba[rows], members=tuple(members))

    def rows(self, index: NDArray[Any]) -> Predictions:
        """The rows of an integer or boolean index, for every member."""
        return self._replace(
            proba=self.proba[:, index],
            sample_ids=self.sample_ids[index],
            labels=self.labels[index],
            fold=self.fold[index],
            features=None if self.features is None else self.features[index],
        )

    def with_proba(self, proba: NDArray[Any], members: Sequence[str]) -> Predictions:
        """The same samples with other members; (samples, classes) makes a one-member value."""
        cube = np.asarray(proba, np.float32)
        return Predictions(
            proba=cube[None] if cube.ndim == 2 else cube,
            members=tuple(members),
            sample_ids=self.sample_ids,
            classes=self.classes,
            labels=self.labels,
            fold=self.fold,
            split=self.split,
            features=self.features,
        )

    def with_features(self, features: ArrayLike) -> Predictions:
        """The same rows with what a frozen backbone says of their images, (samples, dims).

        Raises:
            PredictionsError: not a row each, or not finite.
        """
        made = self._replace(features=features)
        made._validate_features()
        return made

    def with_fold(self, fold: NDArray[Any]) -> Predictions:
        """The same out-of-fold rows under other numbers of folds (samples,)."""
        return self._replace(fold=fold)

    @staticmethod
    def concat(parts: Sequence[Predictions]) -> Predictions:
        """Members of several values over the same samples, one after another.

        Features are those of the parts that have any.

        Raises:
            PredictionsError: when samples, classes, labels, folds, split or features differ, or a member occurs
                twice.
        """
        if not parts:
            raise PredictionsError("nothing to concatenate; expected at least one Predictions")
        head = parts[0]
        for part in parts[1:]:
            same = (
                part.split == head.split
                and part.classes == head.classes
                and np.array_equal(part.sample_ids, head.sample_ids)
                and np.array_equal(part.labels, head.labels)
                and np.array_equal(part.fold, head.fold)
            )
            if not same:
                raise PredictionsError(
                    f"members {list(part.members)} are over other samples, classes, folds or another split than "
                    f"{list(head.members)}"
                )
        features = [part.features for part in parts if part.features is not None]
        if any(not (other is features[0] or np.array_equal(other, features[0])) for other in features[1:]):
            raise PredictionsError("features: differ between the values; take them from one")
        if features:
            head = head._replace(features=features[0])
        return head.with_proba(
            np.concatenate([p.proba for p in parts]), [m for part in parts for m in part.members]
        )

    # ------------------------------------------------------------------ disk

    def arrays(self, prefix: str = "") -> dict[str, NDArray[Any]]:
        """The arrays of the `.npz` contract, each name with `prefix`; none is an object array."""
        arrays: dict[str, NDArray[Any]] = {
            f"{prefix}proba": self.proba,
            f"{prefix}labels": self.labels,
            f"{prefix}fold": self.fold,
            f"{prefix}sample_ids": self.sample_ids,
            "members": np.array(self.members),
            "classes": np.array(self.classes),
        }
        if self.features is not None:
            arrays[f"{prefix}features"] = self.features
        return arrays

    def save(self, path: str | Path, test: Predictions | None = None) -> None:
        """Writes the `.npz` that `load` and `ensembler combine --predictions` read."""
        with Path(path).open("wb") as stream:
            self.save_to(stream, test)

    def save_to(self, stream: IO[bytes], test: Predictions | None = None) -> None:
        """`save` into an open binary stream."""
        arrays = self.arrays()
        if test is not None:
            arrays |= test.arrays("test_")
        np.savez(stream, allow_pickle=False, **cast(dict[str, Any], arrays))

    @classmethod
    def load(cls, path: str | Path) -> tuple[Predictions, Predictions | None]:
        """Out-of-fold predictions, and those of the test split where there are any.

        Args:
            path: `.npz` with `proba`, `labels`, `fold`, `members`, `classes`, `sample_ids`, optionally
                `features` (and the same with the prefix `test_`), or a long `.csv` / `.parquet` (see
                `from_frame`), whose optional column `split` says "oof" or "test".

        Raises:
            PredictionsError: naming the file and what is wrong in it.
        """
        from .predictions_io import read

        return read(Path(path))

    # ------------------------------------------------------------------ validity

    def _replace(self, **changes: Any) -> Predictions:
        values: dict[str, Any] = {
            "proba": self.proba,
            "members": self.members,
            "sample_ids": self.sample_ids,
            "classes": self.classes,
            "labels": self.labels,
            "fold": self.fold,
            "split": self.split,
            "features": self.features,
        }
        # A cut of something valid is valid: cutting stays cheap, and a fold of one class is allowed.
        return Predictions(**(values | changes), _valid=True)

    def _validate(self) -> None:
        n_members, n_samples, n_classes = self.proba.shape
        if min(n_members, n_samples) < 1 or n_classes < 2:
            raise PredictionsError(
                f"proba: shape {self.proba.shape}; expected at least one member, one sample and two classes"
            )
        lengths = [
            ("members", len(self.members), n_members),
            ("classes", len(self.classes), n_classes),
            ("sample_ids", len(self.sample_ids), n_samples),
            ("labels", len(self.labels), n_samples),
            ("fold", len(self.fold), n_samples),
        ]
        for name, length, expected in lengths:
            if length != expected:
                raise PredictionsError(f"{name}: {length} entries; proba has {expected}")
        for name, values in (
            ("members", self.members),
            ("classes", self.classes),
            ("sample_ids", self.sample_ids),
        ):
            unique, counts = np.unique(np.asarray(values), return_counts=True)
            if len(unique) != len(values):
                raise PredictionsError(
                    f"{name}: {str(unique[counts > 1][0])!r} appears twice; names are unique"
                )
        outside = (self.labels < 0) | (self.labels >= n_classes)
        if outside.any():
            i = int(np.argmax(outside))
            raise PredictionsError(
                f"labels: {self.labels[i]} for sample {str(self.sample_ids[i])!r}; expected 0 to {n_classes - 1}"
            )
        if self.split not in ("oof", "test"):
            raise PredictionsError(f"split: {self.split!r}; expected 'oof' or 'test'")
        bad_fold = self.fold != -1 if self.split == "test" else self.fold < 0
        if bad_fold.any():
            i = int(np.argmax(bad_fold))
            raise PredictionsError(
                f"fold: {self.fold[i]} for sample {str(self.sample_ids[i])!r}; expected "
                + ("-1 on the test split" if self.split == "test" else "0 or more on out-of-fold rows")
            )
        self._validate_features()
        self._validate_proba()

    def _validate_features(self) -> None:
        if self.features is None:
            return
        if len(self.features) != self.n_samples:
            raise PredictionsError(
                f"features: {len(self.features)} rows; proba has {self.n_samples}, give one row each"
            )
        if self.features.shape[1] < 1:
            raise PredictionsError("features: no columns; leave them out instead")
        bad = ~np.isfinite(self.features).all(axis=1)
        if bad.any():
            i = int(np.argmax(bad))
            shown = json.dumps([round(float(v), 4) for v in self.features[i][:6]])
            raise PredictionsError(
                f"features: sample {str(self.sample_ids[i])!r}: {shown} is not finite; give others, or none"
            )

    def _validate_proba(self) -> None:
        for m, name in enumerate(self.members):  # one member at a time: no second cube in memory
            slab = self.proba[m]
            bad = ~np.isfinite(slab).all(axis=1)
            problem = "is not finite"
            if not bad.any():
                bad = (slab < -1e-6).any(axis=1) | (slab > 1 + ROW_SUM_TOLERANCE).any(axis=1)
                problem = "has a value outside [0, 1]"
            if not bad.any():
                bad = np.abs(slab.sum(axis=1, dtype=np.float64) - 1) > ROW_SUM_TOLERANCE
                problem = "does not sum to 1"
            if bad.any():
                i = int(np.argmax(bad))
                shown = json.dumps([round(float(v), 4) for v in slab[i][:6]])
                raise PredictionsError(
                    f"proba: member {name!r}, sample {str(self.sample_ids[i])!r}: {shown} {problem}; "
                    "give probabilities (softmax of the logits)"
                )


def _as_array(name: str, value: Any, dtype: Any, ndim: int) -> NDArray[Any]:
    raw = np.asarray(value)
    if raw.ndim != ndim:
        raise PredictionsError(f"{name}: has {raw.ndim} dimensions; expected {ndim}")
    if np.issubdtype(dtype, np.integer) and raw.size and not np.issubdtype(raw.dtype, np.integer):
        whole = raw == np.round(raw) if np.issubdtype(raw.dtype, np.floating) else np.zeros(raw.shape, bool)
        if not whole.all():
            shown = raw[~whole][0].item()
            raise PredictionsError(f"{name}: {raw.dtype} values such as {shown!r}; expected integers")
    elif not (np.issubdtype(raw.dtype, np.number) or raw.size == 0):
        raise PredictionsError(f"{name}: {raw.dtype} values; expected numbers")
    array = raw.astype(dtype)  # always a copy of what the caller holds: freezing it must not freeze theirs
    if np.issubdtype(dtype, np.integer) and not np.array_equal(array, raw):
        shown = raw[array != raw][0].item()
        raise PredictionsError(
            f"{name}: {shown!r} is outside the range of {np.dtype(dtype).name}; give smaller numbers"
        )
    return array


def _is_frozen(features: Any) -> bool:
    """Whether these are features of another value, which nobody can change: they are shared, not copied."""
    if not isinstance(features, np.ndarray) or features.dtype != np.float32 or features.ndim != 2:
        return False
    return features.flags.owndata and not features.flags.writeable


def _as_ids(value: Any) -> NDArray[np.str_]:
    array = np.asarray([str(v) for v in value] if not isinstance(value, np.ndarray) else value)
    if array.ndim != 1:
        raise PredictionsError(f"sample_ids: has {array.ndim} dimensions; expected 1")
    return array.astype(np.str_) if array.dtype.kind != "U" else array.copy()
