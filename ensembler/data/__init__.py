"""Images and what they show: from a folder, a manifest or a known data set to one `ImageTable`.

A new kind of source is one file beside this one, with a subclass of `Source`, and one line in `SOURCES`.

The exported bundle imports `ensembler.data.decode` through this file: keep pandas and scikit-learn inside
functions.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError
from .digits import Digits
from .folder import ClassFolders
from .manifest import Manifest
from .source import Request, Row, Source
from .torchvision_set import Torchvision

if TYPE_CHECKING:
    from .table import ImageTable

#: The first that recognises a source reads it.
SOURCES: dict[str, Source] = {
    "digits": Digits(),
    "torchvision": Torchvision(),
    "manifest": Manifest(),
    "folder": ClassFolders(),
}

OFFICIAL = "official"


def load_table(
    source: str,
    *,
    test: str | float | None = None,
    base_dir: Path,
    cache_dir: Path,
    label: str = "label",
    path: str = "path",
    group: str | None = None,
    fold: str | None = None,
    seed: int = 0,
) -> ImageTable:
    """Every image of an experiment, as one table.

    Args:
        source: class folders; a CSV or Parquet manifest; `digits`; or `torchvision:<Dataset>`.
        test: where the test split comes from:

            - None: there is none, or the manifest's `split` column marks it;
            - a number in (0, 1): that share of the source, stratified by class, whole groups only;
            - "official": the data set's own test part (torchvision only);
            - another source of any kind, all of it.

        base_dir: what relative paths are relative to.
        cache_dir: where digits and downloads are kept as files.
        label, path: column names of a manifest.
        group: manifest column whose images stay together; None takes the column "group" where there is one.
        fold: manifest column with predefined folds; None takes the column "fold" where there is one.
        seed: draws the share of the test split.

    Raises:
        DataError: naming file, row or folder, the value and the way out.
    """
    import pandas as pd

    from .table import ImageTable

    reader = _reader(source)
    request = Request(source, base_dir, cache_dir, label, path, group, fold)
    asked = group or fold
    if asked and not reader.has_columns:
        raise DataError(
            f"{source}: has no column {asked!r}; only a manifest has columns: list the images in one"
        )
    rows = reader.rows(request)
    if test is not None:
        if any(row.split == "test" for row in rows):
            raise DataError(
                f"{source}: marks test rows in its split column, and test is {test!r}; drop one of the two"
            )
        if test == OFFICIAL:
            rows = _beside(rows, reader.official_test(request))
        elif isinstance(test, str):
            second = replace(request, source=test, group=None, fold=None)
            rows = _beside(rows, _reader(test).rows(second))
        else:
            rows = _with_share(rows, test, seed)
    for row in rows:
        try:
            row.path.encode()
        except UnicodeEncodeError as error:  # the name holds bytes that no table can store
            raise DataError(f"{row.path!a}: the name is not valid UTF-8; rename it") from error
    rows = [row._replace(split=row.split or "oof") for row in rows]
    return ImageTable(pd.DataFrame(rows, columns=list(Row._fields)))


def _reader(source: str) -> Source:
    return next(reader for reader in SOURCES.values() if reader.recognises(source))


def _beside(rows: list[Row], test: list[Row]) -> list[Row]:
    """Both lists in one, the second as test rows; those get another prefix where ids would occur twice."""
    trained_on = [row for row in test if row.split == "oof"]
    if trained_on:
        raise DataError(
            f"{trained_on[0].path}: is marked as a training image in the source of the test split; mark it test, or "
            "leave the split column out there"
        )
    taken = {row.id for row in rows}
    prefix = ""
    while any(prefix + row.id in taken for row in test):
        prefix += "test/"
    return rows + [row._replace(id=prefix + row.id, split="test", fold=-1) for row in test]


def _with_share(rows: list[Row], share: float, seed: int) -> list[Row]:
    import numpy as np

    from ..folds import stratified_slice

    if not 0 < share < 1:
        raise DataError(f"test: {share}; expected a share between 0 and 1, a path, or {OFFICIAL!r}")
    labels = np.unique([row.label for row in rows], return_inverse=True)[1]
    grouped = any(row.group is not None for row in rows)
    groups = np.array([row.group or "" for row in rows]) if grouped else None
    chosen = set(stratified_slice(labels, share, seed, groups=groups, what="test split").tolist())
    return [
        row._replace(split="test", fold=-1) if i in chosen else row._replace(split="oof")
        for i, row in enumerate(rows)
    ]
