"""Folders of any size: memory that stays, runs that go on where they stopped, images that are no images."""

from __future__ import annotations

import csv
import errno
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ensembler.bundle import predict as predict_module
from ensembler.bundle.images import decoded, find_images
from ensembler.bundle.predict import predict_files, view_average
from ensembler.bundle.progress import Progress
from ensembler.bundle.table import Table
from ensembler.cli import main
from ensembler.errors import DataError, StoreError
from ensembler.parquet import read_parquet

Make = Callable[..., Any]


def _rows(file: Path) -> list[list[str]]:
    with file.open(newline="") as stream:
        return list(csv.reader(stream))


def _left_over(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


def test_images_are_found_in_order_and_hidden_ones_passed_over(colour_images: Make) -> None:
    folder = colour_images(12)
    (folder / ".hidden.png").write_bytes(b"x")
    (folder / "notes.txt").write_text("x")
    (folder / "again").symlink_to(folder)  # a walk that followed it would not end
    found = [p.relative_to(folder).as_posix() for p in find_images([folder])]
    assert len(found) == 12
    assert found[:2] == ["0001.png", "0002.png"]
    assert found[-2:] == ["below/0000.png", "below/0010.png"]


def test_a_link_that_leads_nowhere_is_told(colour_bundle: Make, colour_images: Make, capsys: Any) -> None:
    colour_bundle()
    folder = colour_images(3)
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    predict_files("b", [folder], folder / "out.csv")
    assert "gone.png" in capsys.readouterr().err
    assert len(_rows(folder / "out.csv")) == 4


def test_chunks_keep_to_their_bytes_and_decode_one_ahead(
    colour_images: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = list(find_images([colour_images(25)]))
    asked: list[Path] = []

    def source() -> Iterator[Path]:
        for file in files:
            asked.append(file)
            yield file

    chunks = decoded(source(), 8, chunk=4)
    first = next(chunks)
    assert len(first.paths) == 4
    assert len(asked) == 8  # two chunks, whatever there is
    assert [len(c.paths) for c in chunks] == [4, 4, 4, 4, 4, 1]
    monkeypatch.setattr("ensembler.bundle.images.CHUNK_BYTES", 3 * 8 * 8 * 2)
    assert [len(c.paths) for c in decoded(files, 8, chunk=100)] == [2] * 12 + [1]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tables_hold_what_the_bundle_answers(
    suffix: str, colour_bundle: Make, colour_images: Make, tmp_path: Path
) -> None:
    bundle = colour_bundle(classes=("a,b", 'c"d', "e\nf"))
    folder = colour_images(23)
    files = list(find_images([folder]))
    output = tmp_path / "out" / f"preds{suffix}"
    predict_files("b", [folder], output)
    frame = pd.read_csv(output) if suffix == ".csv" else pd.read_parquet(output)
    assert list(frame.columns) == ["path", "label", "confidence", *bundle.classes]
    assert frame["path"].tolist() == [str(f) for f in files]
    (chunk,) = decoded(files, 8, chunk=100)
    proba = bundle.predict_pixels(chunk.pixels)
    np.testing.assert_allclose(frame[list(bundle.classes)], proba, atol=1e-7)
    np.testing.assert_allclose(frame["confidence"], proba.max(1), atol=1e-7)
    assert frame["label"].tolist() == [bundle.classes[i] for i in proba.argmax(1)]
    assert sorted(p.name for p in output.parent.iterdir()) == [output.name]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_interrupted_run_goes_on_where_it_stopped(
    suffix: str, colour_bundle: Make, colour_images: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = colour_images(40)
    (folder / "0005.png").write_bytes(b"no image")
    whole, parts = tmp_path / f"whole{suffix}", tmp_path / f"parts{suffix}"
    monkeypatch.setattr(predict_module, "CHUNK", 4)
    colour_bundle()
    predict_files("b", [folder], whole)
    bundle = colour_bundle()
    answer, calls = bundle.predict_pixels, []

    def stop(pixels: Any) -> Any:
        calls.append(len(pixels))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return answer(pixels)

    monkeypatch.setattr(bundle, "predict_pixels", stop)
    with pytest.raises(KeyboardInterrupt):
        predict_files("b", [folder], parts)
    assert not parts.exists()
    (partial,) = (tmp_path / n for n in _left_over(tmp_path) if n.endswith("partial"))
    with partial.open("ab") as stream:
        stream.write(b'"images/cut short, wh')  # as a kill may leave it
    predict_files("b", [folder], parts)
    assert sum(calls) == 39 + 4  # nothing is answered twice but what was under way
    assert parts.read_bytes() == whole.read_bytes()
    listed = [_rows(tmp_path / f"{n}.unreadable.csv") for n in ("whole", "parts")]
    assert listed[0] == listed[1]
    assert listed[0][0] == ["path", "reason"]
    assert listed[0][1][0].endswith("0005.png")
    assert _left_over(tmp_path) == []


def test_rows_of_another_bundle_or_other_options_are_not_continued(
    colour_bundle: Make, colour_images: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    folder, output = colour_images(8), tmp_path / "out.csv"
    bundle = colour_bundle()
    monkeypatch.setattr(predict_module, "CHUNK", 4)
    answer = bundle.predict_pixels

    def once(pixels: Any) -> Any:
        monkeypatch.setattr(bundle, "predict_pixels", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        return answer(pixels)

    monkeypatch.setattr(bundle, "predict_pixels", once)
    with pytest.raises(KeyboardInterrupt):
        predict_files("b", [folder], output)
    assert len(_left_over(tmp_path)) == 2
    other = colour_bundle()
    predict_files("b", [folder], output, tta="mirror")
    assert "are discarded" in capsys.readouterr().err
    assert sum(other.batches) == 2 * 8
    assert _left_over(tmp_path) == []


def test_two_runs_do_not_fill_one_table(tmp_path: Path) -> None:
    with (
        Table(tmp_path / "t.csv", ["a"], "k"),
        pytest.raises(DataError, match="another `ensembler predict` fills it"),
    ):
        Table(tmp_path / "t.csv", ["a"], "k")


def test_a_table_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        Table(tmp_path / "file" / "t.csv", ["a"], "k")
    with pytest.raises(DataError, match=r"unknown table '\.xlsx'; name it \.csv or \.parquet"):
        Table(tmp_path / "t.xlsx", ["a"], "k")
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        Table(tmp_path / "t.csv", ["a"], "k")


def test_where_nothing_can_be_read_no_table_is_left(
    colour_bundle: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    colour_bundle()
    (tmp_path / "in").mkdir()
    for i in range(12):
        (tmp_path / "in" / f"{i}.png").write_bytes(b"x")
    output = tmp_path / "out.csv"
    assert main(["predict", "b", str(tmp_path / "in"), "-o", str(output)]) == 2
    err = capsys.readouterr().err
    assert err.count("warning: left out") == 10  # and the others are counted
    assert "none of 12 images can be read" in err
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_names_that_are_no_text_are_escaped(colour_bundle: Make, colour_images: Make, tmp_path: Path) -> None:
    colour_bundle()
    folder = colour_images(2)
    (folder / "0001.png").rename(os.fsdecode(os.fsencode(folder) + b"/\xff,\n.png"))
    predict_files("b", [folder], tmp_path / "o.csv")
    predict_files("b", [folder], tmp_path / "o.parquet")
    names = [row[0] for row in _rows(tmp_path / "o.csv")[1:]]
    assert names[1] == f"{folder}/\\xff,\n.png"
    assert pd.read_parquet(tmp_path / "o.parquet")["path"].tolist() == names


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_line_ends_within_names_are_read_back(suffix: str, tmp_path: Path) -> None:
    paths = [Path(f"{name}.png") for name in ("x\ry", "\r", "x\r\ny", "\n\r", '"\r"', "plain")]
    proba = np.full((len(paths), 2), 0.5, np.float32)
    with Table(tmp_path / f"o{suffix}", ["a\rb", "c"], "key") as table:
        table.add(paths[:4], proba[:4], [(Path("gone\r.png"), "of\rno\nuse")])
    with Table(tmp_path / f"o{suffix}", ["a\rb", "c"], "key") as table:
        assert [table.is_done(p) for p in paths] == [True] * 4 + [False] * 2
        assert table.is_done(Path("gone\r.png"))
        table.add(paths[4:], proba[4:], [])
        table.finish()
    if suffix == ".parquet":
        found = read_parquet(tmp_path / "o.parquet")
        assert found.column(0).to_pylist() == [str(p) for p in paths]
        assert found.column_names[-2:] == ["a\rb", "c"]
    else:
        assert [row[0] for row in _rows(tmp_path / "o.csv")] == ["path", *map(str, paths)]
        assert _rows(tmp_path / "o.unreadable.csv") == [["path", "reason"], ["gone\r.png", "of\rno\nuse"]]
        written = (tmp_path / "o.csv").read_bytes()
        assert written.endswith(b"\n")
        assert not written.endswith(b"\r\n")


def test_mirror_averages_an_image_and_its_mirror_image(colour_bundle: Make) -> None:
    bundle = colour_bundle()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    both = (bundle.predict_pixels(pixels) + bundle.predict_pixels(pixels[:, :, ::-1])) / 2
    np.testing.assert_allclose(view_average(bundle, pixels, "mirror"), both, atol=1e-6)
    assert abs(both - bundle.predict_pixels(pixels)).max() > 1e-3  # otherwise this shows nothing
    assert view_average(bundle, pixels[:0], "mirror").shape == (0, 3)


def test_progress_is_drawn_on_a_terminal_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(10) as progress:
        progress.add(5)
    assert capsys.readouterr().err == ""
    with Progress(60_000, shown=True) as progress:
        progress._drawn -= 1
        progress.add(1_024)
        assert progress.line().startswith("1,024 of 60,000 images, ")
    assert capsys.readouterr().err.rstrip(" \n").endswith("s left")


def test_progress_without_a_total_counts_and_its_line_can_be_wiped() -> None:
    stream = io.StringIO()
    with Progress(None, "rows", stream=stream, shown=True) as progress:
        progress.clear()
        assert stream.getvalue() == ""  # nothing was drawn
        progress._drawn -= 1
        progress.add(1_024)
        drawn = stream.getvalue()
        assert re.fullmatch(r"\r1,024 rows, [\d,]+ a second", drawn)
        progress.clear()
        progress.clear()
    wiped = stream.getvalue().removeprefix(drawn)
    assert wiped == "\r" + " " * (len(drawn) - 1) + "\r"
    assert Progress(5, shown=True).line() == "0 of 5 images, 0 a second"  # who knows how long


def test_a_folder_that_cannot_be_listed_is_told(colour_images: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, scan = colour_images(12), os.scandir

    def locked(path: Path) -> Any:
        if Path(path).name == "below":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scan(path)

    monkeypatch.setattr("ensembler.bundle.images.os.scandir", locked)
    with pytest.raises(
        DataError, match=r"below: cannot be listed: Permission denied; mend its permissions or leave it out"
    ):
        list(find_images([folder]))


def test_of_a_new_table_no_image_is_done(tmp_path: Path) -> None:
    with Table(tmp_path / "t.csv", ["a"], "k") as table:
        assert not table.is_done(tmp_path / "0.png")
    with Table(tmp_path / "t.csv", ["a"], "k") as table:
        table.add([tmp_path / "0.png"], np.ones((1, 1), np.float32), [(tmp_path / "1.png", "broken")])
    with Table(tmp_path / "t.csv", ["a"], "k") as table:
        assert [table.is_done(tmp_path / f"{i}.png") for i in range(3)] == [True, True, False]


def test_on_windows_an_open_table_is_its_own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ensembler.bundle.table.sys.platform", "win32")
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with Table(tmp_path / "t.csv", ["a"], "k") as table:
        table.add([tmp_path / "0.png"], np.ones((1, 1), np.float32), [])
        table.finish()
    assert len(_rows(tmp_path / "t.csv")) == 2


def test_a_killed_process_leaves_rows_that_the_next_one_continues(
    finished_run: Any, mean_bundle: Path, tmp_path: Path
) -> None:
    bundle = mean_bundle
    folder = tmp_path / "images"
    for i in range(6):
        for file in sorted((finished_run.images / "test").rglob("*.png")):
            target = folder / f"{i}-{file.parent.name}-{file.name}"
            target.parent.mkdir(exist_ok=True)
            os.link(file, target)
    program = (
        "import sys, time, ensembler.bundle.predict as p; p.CHUNK = 4; add = p.Table.add\n"
        "def slow(self, *a):\n    add(self, *a); time.sleep(0.3)\n"
        "p.Table.add = slow\n"
        f"p.predict_files({str(bundle)!r}, [p.Path({str(folder)!r})], p.Path({str(tmp_path / 'o.csv')!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        partial = next(tmp_path.glob(".o.csv.*.partial"), None)
        if partial and partial.read_bytes().count(b"\n") > 12:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "o.csv").exists()
    assert main(["predict", str(bundle), str(folder), "-o", str(tmp_path / "o.csv")]) == 0
    assert main(["predict", str(bundle), str(folder), "-o", str(tmp_path / "again.csv")]) == 0
    one, again = pd.read_csv(tmp_path / "o.csv"), pd.read_csv(tmp_path / "again.csv")
    assert one["path"].tolist() == again["path"].tolist()
    numbers = ["confidence", "ant", "bee", "cow"]
    np.testing.assert_allclose(one[numbers], again[numbers], atol=1e-5)  # in batches of other sizes


@pytest.mark.parametrize(
    "classes",
    [
        ["label", "path", "a\nb"],
        [f"class {i}" for i in range(3000)],
        [f"{i}" * 90 for i in range(1000, 2000)],
    ],
)
def test_parquet_holds_every_row_whatever_the_columns_are_named_and_however_many(
    classes: list[str], tmp_path: Path
) -> None:
    """More rows than a block of the conversion has, rows of tens of kilobytes, and a head longer than a block."""
    proba = (
        np.random.default_rng(0).dirichlet(np.ones(len(classes)), 40_000 // len(classes)).astype(np.float32)
    )
    paths = [Path(f"{i} \n, ü.png") for i in range(len(proba))]
    with Table(tmp_path / "o.parquet", classes, "key") as table:
        table.add(paths, proba, [])
        table.finish()
    found = read_parquet(tmp_path / "o.parquet")
    assert found.column_names == ["path", "label", "confidence", *classes]
    assert found.column(0).to_pylist() == [str(p) for p in paths]
    assert found.column(1).to_pylist() == [classes[i] for i in proba.argmax(1)]
    np.testing.assert_allclose(np.stack([c.to_numpy() for c in found.columns[3:]], 1), proba, atol=1e-7)
