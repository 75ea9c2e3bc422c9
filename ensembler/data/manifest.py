"""A manifest: a CSV or Parquet file with one row an image."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from ..errors import DataError, did_you_mean
from ..parquet import read_parquet
from .source import Request, Row, Source

_SPLITS: dict[str, Literal["oof", "test"]] = {"train": "oof", "oof": "oof", "test": "test"}


@dataclass(frozen=True)
class _Line:
    """One row as text, and the words that lead a reader to it."""

    where: str
    values: dict[str, str]


class Manifest(Source):
    """A path that ends in .csv or .parquet, with the columns

    - `path`, relative to the manifest's folder, and `label`: both needed; other names can be given;
    - `group`, `fold` (0 or more): heeded where they exist, under these names or the ones given;
    - `split`: "train" (or "oof") and "test".
    """

    has_columns = True

    def recognises(self, source: str) -> bool:
        """By its extension."""
        return source.lower().endswith((".csv", ".parquet"))

    def rows(self, request: Request) -> list[Row]:
        """The rows in the file's order, each with its path as id.

        Raises:
            DataError: the file or a column is missing, or a row names no file, a file twice, or an impossible
                label, split or fold. Names manifest, row, column and value.
        """
        manifest = request.location
        columns, lines = _read(manifest)
        for column in (request.path, request.label, request.group, request.fold):
            if column is not None and column not in columns:
                raise DataError(f"{manifest}: column {column!r} is missing; {did_you_mean(column, columns)}")
        group = request.group or ("group" if "group" in columns else None)
        fold = request.fold or ("fold" if "fold" in columns else None)
        rows = []
        seen: dict[str, str] = {}
        for line in lines:
            cells = _Cells(manifest, line)
            path = _locate(manifest.parent, cells.text(request.path))
            if not os.path.isfile(path):  # noqa: PTH113 - Path's raises where a name is too long
                raise cells.error(
                    request.path,
                    f"no such file ({path}); paths are relative to the manifest's folder",
                )
            if path in seen:
                raise cells.error(request.path, f"is already in {seen[path]}; list each image once")
            seen[path] = line.where
            split = cells.split() if "split" in columns else None
            rows.append(
                Row(
                    id=_identify(manifest.parent, path),
                    path=path,
                    label=cells.text(request.label),
                    group=None if group is None else cells.text(group),
                    split=split,
                    fold=-1 if fold is None or split == "test" else cells.fold(fold),
                )
            )
        if not rows:
            raise DataError(f"{manifest}: has no rows; expected one row an image below the column names")
        return rows


@dataclass(frozen=True)
class _Cells:
    """Reads the cells of one line, or says which one is wrong."""

    manifest: Path
    line: _Line

    def error(self, column: str, problem: str) -> DataError:
        value = self.line.values[column]
        return DataError(f"{self.manifest}: {self.line.where}, column {column!r}: {value!r} {problem}")

    def text(self, column: str) -> str:
        value = self.line.values[column].strip()
        if not value:
            raise self.error(column, "is empty; fill it in or remove the row")
        return value

    def split(self) -> Literal["oof", "test"]:
        value = self.text("split")
        if value not in _SPLITS:
            raise self.error("split", f"is unknown; {did_you_mean(value, _SPLITS)}")
        return _SPLITS[value]

    def fold(self, column: str) -> int:
        value = self.text(column)
        # Parquet files written by pandas hold integers beside missing values as 2.0.
        digits = value.removesuffix(".0")
        if not digits.isdecimal() or int(digits) > 32767:
            raise self.error(column, "is no fold; expected an integer from 0 to 32767")
        return int(digits)


def _locate(folder: Path, written: str) -> str:
    # Not Path.resolve: it would ask the disk about each part of a path, and follow links out of the folder.
    return os.path.normpath(folder / os.path.expanduser(written))  # noqa: PTH111 - Path's raises for unknown users


def _identify(folder: Path, path: str) -> str:
    file = Path(path)
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.as_posix()


# ---------------------------------------------------------------------- files


def _read(manifest: Path) -> tuple[list[str], list[_Line]]:
    if not manifest.is_file():
        raise DataError(f"{manifest}: no such manifest; expected a CSV or Parquet file with one row an image")
    try:
        lines = list(_parquet(manifest) if manifest.suffix.lower() == ".parquet" else _csv(manifest))
    except (OSError, ValueError, csv.Error) as error:  # ValueError: pyarrow's and the codecs' errors
        cause = " ".join(str(error).split())
        raise DataError(
            f"{manifest}: cannot be read as {manifest.suffix[1:]}: {cause}; write it anew"
        ) from error
    return list(lines.pop(0).values), lines


def _csv(manifest: Path) -> Iterator[_Line]:
    """The header, then the rows. The csv module keeps every cell as text ("None", "007") and counts lines."""
    with manifest.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        columns = next(reader, [])
        yield _Line("header", dict.fromkeys(columns, ""))
        row = 0
        for cells in reader:
            if not cells:
                continue  # a blank line
            row += 1
            where = f"row {row} (line {reader.line_num})"
            if len(cells) != len(columns):
                raise ValueError(f"{where} has {len(cells)} cells, the header {len(columns)}")
            yield _Line(where, dict(zip(columns, cells, strict=True)))


def _parquet(manifest: Path) -> Iterator[_Line]:
    table = read_parquet(manifest)
    yield _Line("header", dict.fromkeys(table.column_names, ""))
    for row, values in enumerate(cast("list[dict[str, object]]", table.to_pylist()), start=1):
        texts = {name: "" if value is None else str(value) for name, value in values.items()}
        yield _Line(f"row {row}", texts)
