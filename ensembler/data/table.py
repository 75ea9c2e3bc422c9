"""`ImageTable`: one row an image, checked once when it is made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DataError, did_you_mean

COLUMNS = ("id", "path", "label", "group", "split", "fold")


@dataclass(frozen=True, eq=False)
class ImageTable:
    """The images of an experiment, in a fixed order.

    Attributes:
        frame: one row an image, with the columns

            - `id`: str, unique; the same wherever the data lie
            - `path`: str, absolute
            - `label`: str, a class name
            - `group`: str, what never straddles folds (a patient, a scene); None where there is none
            - `split`: "oof" or "test"
            - `fold`: int16, the predefined fold; -1 where there is none, and on test rows

        classes: class names, sorted; those of the oof rows where none are given.
        fingerprint: a hash of every row and its file's content; "" until the files were read.

    Raises:
        DataError: naming the row by its file, the column, the value and the way out.
    """

    frame: pd.DataFrame
    classes: tuple[str, ...] = ()
    fingerprint: str = ""

    def __post_init__(self) -> None:
        missing = [column for column in COLUMNS if column not in self.frame.columns]
        if missing:
            raise DataError(f"image table: columns {missing} missing; found {list(self.frame.columns)}")
        frame = self.frame.loc[:, list(COLUMNS)].reset_index(drop=True)
        for column in ("id", "path", "label", "split"):
            frame[column] = frame[column].astype(str)
        frame["group"] = frame["group"].astype(object).where(frame["group"].notna(), None)
        frame["fold"] = frame["fold"].fillna(-1).astype(np.int16)
        object.__setattr__(self, "frame", frame)
        classes = self.classes or tuple(sorted(frame.loc[frame["split"] == "oof", "label"].unique()))
        object.__setattr__(self, "classes", tuple(str(name) for name in classes))
        self._validate()

    # ------------------------------------------------------------------ reading

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def ids(self) -> NDArray[np.str_]:
        """(n,) str, unique."""
        return self.frame["id"].to_numpy(np.str_)

    @property
    def paths(self) -> list[Path]:
        """(n,) absolute paths."""
        return [Path(path) for path in self.frame["path"]]

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,) int64, index into `classes`."""
        code = {name: i for i, name in enumerate(self.classes)}
        return np.array([code[label] for label in self.frame["label"]], np.int64)

    @property
    def groups(self) -> NDArray[np.str_] | None:
        """(n,) str; None when no row has a group. A row without one, among others with, has ""."""
        group = self.frame["group"]
        return None if group.isna().all() else group.fillna("").to_numpy(np.str_)

    @property
    def fold(self) -> NDArray[np.int16] | None:
        """(n,) int16, the predefined fold; None when no row has one."""
        fold = self.frame["fold"].to_numpy(np.int16)
        return None if (fold == -1).all() else fold

    # ------------------------------------------------------------------ cutting

    @property
    def oof(self) -> ImageTable:
        """The rows that are trained on and predicted out of fold."""
        return replace(self, frame=self.frame[self.frame["split"] == "oof"])

    @property
    def test(self) -> ImageTable:
        """The rows that nothing reads until the winner is chosen; may be empty."""
        return replace(self, frame=self.frame[self.frame["split"] == "test"])

    def drop(self, ids: Iterable[str]) -> ImageTable:
        """The table without the named rows: the classes stay, the fingerprint, no longer true, goes."""
        return replace(self, frame=self.frame[~self.frame["id"].isin(set(ids))], fingerprint="")

    def with_fingerprint(self, fingerprint: str) -> ImageTable:
        """The same rows with the hash of their content."""
        return replace(self, fingerprint=fingerprint)

    # ------------------------------------------------------------------ validity

    def _validate(self) -> None:
        frame = self.frame
        if len(self.classes) < 2:
            raise DataError(
                f"classes: {list(self.classes)}; at least two are needed: "
                "give a source whose training images have two labels or more"
            )
        self._refuse(frame["id"] == "", "id", "is empty")
        self._refuse(frame["id"].duplicated(), "id", "appears twice; ids are unique")
        self._refuse(frame["label"] == "", "label", "is empty; every image needs a class")
        self._refuse(~frame["split"].isin(["oof", "test"]), "split", "is unknown; expected 'oof' or 'test'")
        self._refuse(~frame["path"].map(lambda path: Path(path).is_absolute()), "path", "is not absolute")
        for i in np.flatnonzero(~frame["label"].isin(self.classes))[:1]:
            label = str(frame["label"][i])
            way_out = did_you_mean(label, self.classes)
            raise DataError(
                f"{frame['path'][i]}: label {label!r} is not among the training classes; {way_out}"
            )
        oof = frame["split"] == "oof"
        self._refuse(frame["fold"] < -1, "fold", "is negative; folds are 0 or more")
        self._refuse(~oof & (frame["fold"] != -1), "fold", "is set on a test row, which belongs to no fold")
        for column, absent in (("group", frame["group"].isna()), ("fold", frame["fold"] == -1)):
            if not absent[oof].all():
                self._refuse(
                    oof & absent, column, f"is missing; give every training image a {column}, or none"
                )

    def _refuse(self, bad: pd.Series[bool], column: str, problem: str) -> None:
        for i in np.flatnonzero(bad)[:1]:
            path, value = self.frame["path"][i], self.frame[column][i]
            shown = repr(value if isinstance(value, str) or value is None else int(value))
            raise DataError(f"{path}: {column} {shown} {problem}")
