"""Manifests: tables of images in CSV or Parquet from anybody become an `ImageTable`, or an error that names the row."""

from __future__ import annotations

import csv
import datetime
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import sklearn.datasets  # noqa: F401 - else the first case of `digits` imports it, in its five seconds
from PIL import Image
from pyarrow import parquet

from ensembler.data import load_table
from ensembler.data.survey import survey

from .choices import PIECES, Choices, damaged, number, one_in, pick, words
from .target import CASES, Target

COLUMNS = ("path", "label", "group", "split", "fold")

#: Files that there are beside the manifest, plain and odd; made once.
FILES = (
    "a/0.png",
    "a/1.png",
    "b/2.png",
    "b/3.png",
    "-rf.png",
    "日本 🐱.png",
    "e\u0301.png",
    "é.png",
    "new\nline.png",
    "$(id).png",
)

#: What a path may be beside those.
PATHS = (
    "../nothing", "/etc/passwd", "/dev/zero", "/proc/self/mem", "fifo.png", "loop.png", "outside.png", "a", ".",
    "~/x", "~nobody/x",
    "a/../a/0.png", "./a/0.png", "a//0.png", "A/0.PNG", "nowhere.png", "a/0.png\0", "file:///a/0.png", "a" * 5000,
    "con", "empty.png",
)  # fmt: skip

LABELS = ("ant", "bee", "cow", "", " ", "ant ", "1", "nan", "None", "ünïcode", "a/b", "..")

#: Types that Parquet has and that a label or a fold may come in.
KINDS = (
    pa.string(), pa.large_string(), pa.binary(), pa.int64(), pa.uint8(), pa.float32(), pa.bool_(), pa.date32(),
    pa.timestamp("ns"), pa.decimal128(9, 2), pa.list_(pa.string()), pa.null(), pa.dictionary(pa.int8(), pa.string()),
    pa.struct([("x", pa.int8())]),
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A manifest's bytes and the settings under which it is read."""

    suffix: str
    data: bytes
    options: dict[str, Any]


def prepare(inside: Path) -> None:
    """Images, a broken one, and links that lead nowhere or outside."""
    for i, name in enumerate(FILES):
        file = inside / name
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (5 + i, 4), (i, 0, 0)).save(file, "PNG")
    (inside / "empty.png").touch()
    (inside / "loop.png").symlink_to("loop.png")
    (inside / "outside.png").symlink_to("../nothing")


def generate(choices: Choices, shared: Any) -> Case:
    """Mostly a table that could be right, with a few cells and columns that are not."""
    columns = [c for c in COLUMNS if c in ("path", "label") or one_in(choices, 3)]
    if one_in(choices, 8):
        columns[choices.whole(0, len(columns) - 1)] = words(choices, 2)
    if one_in(choices, 20):
        columns.append(pick(choices, columns))
    rows = [[_cell(choices, column, i) for column in columns] for i in range(choices.whole(0, 9))]
    options: dict[str, Any] = {}
    if one_in(choices, 4):
        options["test"] = pick(
            choices, (0.3, 0.0, 1.0, float("nan"), "official", "folder", "nowhere.csv", "digits", 1e-9)
        )
    for key in ("label", "path", "group", "fold"):
        if one_in(choices, 12):
            options[key] = pick(choices, (*columns, words(choices, 2), "label"))
    if one_in(choices, 3):
        data, suffix = _parquet(choices, columns, rows), ".parquet"
    else:
        data, suffix = _csv(choices, columns, rows), pick(choices, (".csv", ".csv", ".CSV", ".parquet"))
    if one_in(choices, 4):
        data = damaged(choices, data)
    return Case(suffix, data, options)


def _cell(choices: Choices, column: str, row: int) -> object:
    if one_in(choices, 24):
        return pick(
            choices,
            (words(choices), number(choices), None, pick(choices, PATHS), "1.0", "-1", "32768", "1e3", "٣"),
        )
    match column:
        case "path":
            return FILES[row] if row < len(FILES) else pick(choices, PATHS)
        case "label":
            return pick(choices, LABELS[: 3 if choices.whole(0, 7) else len(LABELS)])
        case "split":
            return pick(choices, ("train", "oof", "test"))
        case "fold":
            return choices.whole(0, 2)
        case _:
            return pick(choices, ("g1", "g2", "g3"))


def _csv(choices: Choices, columns: list[str], rows: list[list[object]]) -> bytes:
    stream = io.StringIO()
    how = pick(choices, (csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_MINIMAL))
    writer = csv.writer(stream, quoting=how, lineterminator=pick(choices, ("\n", "\r\n", "\r")))
    writer.writerow(columns)
    writer.writerows(rows)
    text = stream.getvalue()
    if one_in(choices, 10):
        at = choices.whole(0, len(text))
        text = text[:at] + pick(choices, (*PIECES, "x" * 200_000)) + text[at:]
    codec = pick(choices, ("utf-8",) * 8 + ("utf-8-sig", "utf-16", "latin-1", "cp037"))
    errors = "surrogatepass" if codec.startswith("utf") else "replace"
    return text.encode(codec, errors)


def _parquet(choices: Choices, columns: list[str], rows: list[list[object]]) -> bytes:
    arrays = []
    for i in range(len(columns)):
        cells = [row[i] for row in rows]
        kind = pick(choices, KINDS) if one_in(choices, 8) else pa.string()
        try:
            arrays.append(pa.array([_as(cell, kind) for cell in cells], kind))
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            arrays.append(pa.array([ascii(cell) for cell in cells]))
    names = [name.encode(errors="replace").decode() for name in columns]
    stream = io.BytesIO()
    parquet.write_table(
        pa.table(arrays, names=names),
        stream,
        compression=pick(choices, ("none", "snappy", "zstd")),
        row_group_size=4,
    )
    return stream.getvalue()


def _as(cell: object, kind: pa.DataType) -> object:
    if cell is None or pa.types.is_null(kind):
        return None
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return str(cell)
    if pa.types.is_list(kind):
        return [str(cell)]
    if pa.types.is_struct(kind):
        return {"x": 1}
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return datetime.date(2001, 2, 3)
    return cell


def run(case: Case, shared: Any, inside: Path) -> object:
    """Lists the images of a manifest, and looks at the files as `ensembler init` does."""
    file = inside / f"manifest{case.suffix}"
    file.write_bytes(case.data)
    try:
        table = load_table(str(file), base_dir=inside, cache_dir=inside / "cache", **case.options)
        assert len(set(table.ids)) == len(table) > 0
        assert len(table.labels) == len(table)
        return survey(table, workers=1).to_text()
    finally:
        file.unlink()


MANIFESTS = Target("manifests", prepare, generate, run)


def test_a_manifest_is_read_or_refused(tmp_path: Path) -> None:
    outcomes = MANIFESTS.hold(tmp_path)
    assert outcomes.get("accepted", 0) > CASES / 50
    assert len(outcomes) > min(25, CASES / 20), outcomes
