"""What somebody may put in our way on purpose, or a broken tool by accident; beside the fuzzers of `tests/fuzz`.

Names with anything in them go from a run to its leaderboard, its report and the app; sizes go to their extremes.
"""

from __future__ import annotations

import io
import json
import os
import resource
import struct
import subprocess
import sys
import time
import unicodedata
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ensembler.bundle import Bundle
from ensembler.bundle.monitor.labels import read_labels
from ensembler.cells import read_json
from ensembler.cli import main
from ensembler.comparison import combine, compare, read_leaderboard, start_bare_run
from ensembler.config import Config
from ensembler.data import decode as decoder
from ensembler.data import load_table
from ensembler.data.cache import build_cache
from ensembler.data.decode import decode, load_pixels
from ensembler.data.survey import Survey, survey
from ensembler.data.table import ImageTable
from ensembler.errors import (
    MOST,
    BundleError,
    ConfigError,
    DataError,
    EnsemblerError,
    StoreError,
    UnreadableImageError,
)  # fmt: skip
from ensembler.events import EventReader
from ensembler.folds import make_folds
from ensembler.predictions import Predictions
from ensembler.store import RunStore

#: Names that are one thing to a person and another to a program, or the other way round.
NAMES = (
    unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é"), "\u202egnp.exe", "👩\u200d👩\u200d👧", "日本",
    "new\nline", "tab\t", "\x1b[31mred", "<script>alert(1)</script>", "a|b*c_d", "=1+1", "$x$", ":smile:", "..",
    "-rf", "%s{0}", "\u2028", "ﬁ", "'\"`", "a" * 200,
)  # fmt: skip


# ---------------------------------------------------------------------- messages


def test_a_message_is_one_printable_line_whatever_it_quotes() -> None:
    text = str(DataError("a\nb\x1b[2J\u202e\ud800: 'ü 😀' is wrong; mend it"))
    assert text == "a\\nb\\x1b[2J\\u202e\\ud800: 'ü 😀' is wrong; mend it"
    long = str(DataError(f"where: {'x' * 100_000}; the way out"))
    assert len(long) <= MOST + 5
    assert long.startswith("where: xxx")
    assert long.endswith("xxx; the way out")


# ---------------------------------------------------------------------- YAML


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", ":2: alias *a is not allowed; write the value out"),
        ("name: !!python/object/apply:os.system ['touch owned']\n", ":1: tag 'tag:yaml.org,2002:python/object/a"),
        ("name: !!timestamp 2001-99-99x\n", ":1: tag 'tag:yaml.org,2002:timestamp' is not allowed; write the"),
        ("a: 1\nname: !!binary aGk=\n", ":2: tag 'tag:yaml.org,2002:binary' is not allowed"),
        ("name: !own x\n", ":1: tag '!own' is not allowed"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("- x\n" * 30_000, "too long; this is no config"),
        ("a: " + "9" * 5000, "not valid YAML: Exceeds the limit"),
    ],
    ids=["aliases", "object", "timestamp", "binary", "own tag", "depth", "length", "number"],
)  # fmt: skip
def test_yaml_that_stands_for_more_than_it_says_is_refused(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Config.load(file)
    assert str(caught.value).startswith(str(file))
    assert said in str(caught.value)
    assert sorted(tmp_path.iterdir()) == [file]


# ---------------------------------------------------------------------- images


def _bomb(kind: str) -> bytes:
    """A header of 60,000 x 60,000 pixels."""
    stream = io.BytesIO()
    Image.new("P" if kind == "GIF" else "RGB", (8, 8)).save(stream, kind)
    data, huge = bytearray(stream.getvalue()), 60_000
    match kind:
        case "PNG":
            data[16:24] = struct.pack(">II", huge, huge)
            data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
        case "BMP":
            data[18:26] = struct.pack("<II", huge, huge)
        case "GIF":
            data[6:10] = struct.pack("<HH", huge, huge)
        case "JPEG":
            at = data.index(b"\xff\xc0") + 5
            data[at : at + 4] = struct.pack(">HH", huge, huge)
        case "PPM":
            data[:] = data.replace(b"8 8", b"60000 60000")
    return bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "JPEG", "PPM"])
def test_a_decompression_bomb_is_refused_by_its_header(kind: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnreadableImageError, match="too large, a decompression bomb perhaps"):
        decode(_bomb(kind), name="bomb")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


@pytest.mark.parametrize(
    "content",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n",
        b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n%%EOF\n",
        b"push graphic-context\nfill 'url(https://x/\"|id)'\n",
        b"PK\3\4" + bytes(60),
        b"\x80\x04\x95cposix\nsystem\n.",
        b"",
        b"\0" * 4096,
    ],
    ids=["eps", "svg", "pdf", "mvg", "zip", "pickle", "empty", "zeros"],
)
def test_another_format_called_png_is_told_and_never_opened(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    file.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r"x\.png: (is no image of a known format|is empty)"):
        load_pixels(file, 8)


def test_a_gif_called_png_is_read_by_its_content(tmp_path: Path) -> None:
    Image.new("P", (9, 9), 1).save(tmp_path / "x.png", "GIF")
    assert load_pixels(tmp_path / "x.png", 8).shape == (8, 8, 3)


#: Decodes 100 megapixels of a mode in 1.5 GiB of address space, of which Python and numpy take a third.
HUGE = """
import pathlib, resource, sys
import numpy as np
from PIL import Image
from ensembler.data.decode import load_pixels
mode, file = sys.argv[1:]
limit = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + (1 << 30) + (1 << 28)
image = Image.new(mode, (10_000, 10_000), (9, 9, 9, 128)[: len(mode)] if mode != "I;16" else 9000)
image.save(file, compress_level=1)
del image
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
print(load_pixels(pathlib.Path(file), 64).mean().round())
"""


@pytest.mark.parametrize(("mode", "mean"), [("RGB", 9.0), ("RGBA", 132.0), ("I;16", 35.0)])
def test_a_hundred_megapixels_are_decoded_in_bounded_memory(mode: str, mean: float, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HUGE, mode, str(tmp_path / "huge.png")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) == mean


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA", "I;16", "I", "F"])
def test_strips_have_the_bits_of_the_whole(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (37, 11, 4), np.uint8)
    deep = {"I;16": np.uint16, "I": np.int32, "F": np.float32}.get(mode)
    image = (
        Image.fromarray(pixels[..., 0].astype(deep) * 37) if deep else Image.fromarray(pixels).convert(mode)
    )
    if mode in ("P", "I;16"):
        image.info["transparency"] = int(np.asarray(image)[3, 3])
    whole = decode(image)
    monkeypatch.setattr(decoder, "STRIP_PIXELS", 40)
    np.testing.assert_array_equal(decode(image), whole)


# ---------------------------------------------------------------------- files


def test_pipes_devices_and_circular_links_among_images_hold_up_nobody(
    tmp_path: Path, write_images: Any
) -> None:
    root = write_images(tmp_path / "images", 12)
    os.mkfifo(root / "ant" / "pipe.png")
    (root / "ant" / "loop.png").symlink_to("loop.png")
    (root / "ant" / "zero.png").symlink_to("/dev/zero")
    (root / "bee" / "circle").symlink_to("..")
    (root / "bee" / "nowhere.png").symlink_to("nothing")
    table = load_table(str(root), base_dir=tmp_path, cache_dir=tmp_path)
    reasons = {Path(i).name: reason for i, reason in survey(table).unreadable}
    assert reasons["pipe.png"] == reasons["zero.png"] == "is no plain file"
    assert set(reasons) == {"pipe.png", "zero.png", "loop.png", "nowhere.png"}
    cached = build_cache(table, 8, tmp_path / "cache", unreadable="skip")
    assert {Path(i).name for i, _ in cached.unreadable} == set(reasons)
    assert len(cached.table) == 12


@pytest.mark.parametrize("source", ["loop", "x" * 5000, "~nobody-of-this-name/x", "a\0b", "loop.csv", "."])
def test_a_source_that_leads_nowhere_is_told(source: str, tmp_path: Path) -> None:
    for name in ("loop", "loop.csv"):
        (tmp_path / name).symlink_to(name)
    with pytest.raises(DataError):
        load_table(source, base_dir=tmp_path / "empty" if source == "." else tmp_path, cache_dir=tmp_path)


@pytest.mark.parametrize(
    "path", ["x" * 5000, "~nobody-of-this-name/x.png", "a\0.png", "../" * 2000 + "x.png"]
)
def test_a_manifest_that_names_impossible_paths_is_told(path: str, tmp_path: Path) -> None:
    pd.DataFrame({"path": [path], "label": ["a"]}).to_parquet(tmp_path / "m.parquet")
    with pytest.raises(DataError, match="row 1, column 'path'"):
        load_table("m.parquet", base_dir=tmp_path, cache_dir=tmp_path)


def test_labels_of_impossible_paths_are_told(tmp_path: Path) -> None:
    (tmp_path / "x.png").touch()
    (tmp_path / "labels.csv").write_text("path,label\n" + "y" * 5000 + ",a\nx.png,a\n")
    assert read_labels(str(tmp_path / "labels.csv"), [tmp_path / "x.png"], ["a"]).tolist() == [0]
    (tmp_path / "labels.csv").write_text("path,label\na\0b,a\nx.png,a\n")
    with pytest.raises(DataError, match=r"labels\.csv: cannot be read"):
        read_labels(str(tmp_path / "labels.csv"), [tmp_path / "x.png"], ["a"])


@pytest.mark.parametrize(
    "changes",
    [
        {"candidates": 3}, {"candidates": ["x"]}, {"failed": {"a": 1}}, {"failed": ["x"]}, {"metric": None},
        {"classes": "abc"}, {"classes": [1, 2]}, {"ensembles": "mean"}, {"costs": []},
        {"stages": 7}, {"details": [1]}, {"limits": "none"},
    ],
    ids=str,
)  # fmt: skip
def test_a_manifest_of_something_else_is_refused_by_its_entry(
    changes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"metric": "log_loss", "ensembles": []} | changes))
    (key,) = changes
    with pytest.raises(StoreError, match=rf"manifest\.json: {key} (is|holds) "):
        RunStore(tmp_path).manifest()
    assert main(["leaderboard", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'manifest.json'}: {key} ")


def test_json_nested_without_end_is_damage(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 200_000)
    with pytest.raises(StoreError, match=r"a\.json: cannot be read"):
        read_json(tmp_path / "a.json")
    (tmp_path / "events.jsonl").write_text("[" * 200_000 + '\n{"kind": "stage"}\n')
    assert EventReader(tmp_path / "events.jsonl").read() == [{"kind": "stage"}]


@pytest.mark.parametrize(
    "header",
    ["{'descr': '<f4', 'for", "(" * 5000, "{'descr': '<f4', 'fortran_order': False, 'shape': (1 << 40, 9)}".replace(
        "1 << 40", str(1 << 40))],
    ids=["half", "nested", "petabytes"],
)  # fmt: skip
def test_an_array_whose_header_lies_is_damage(header: str, tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    folder = tmp_path / "ensembles" / "mean"
    folder.mkdir(parents=True)
    from safetensors.numpy import save_file

    save_file({"w": np.zeros(1)}, folder / "arrays.safetensors")
    (folder / "state.json").write_text("{}")
    text = header.encode().ljust(8000) + b"\n"
    (folder / "proba.npy").write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + bytes(16))
    with pytest.raises(StoreError, match="no readable ensemble"):
        store.ensemble("mean")


def test_a_zip_with_a_file_of_no_name_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("x"), b"")
    data = (tmp_path / "b.zip").read_bytes()
    (tmp_path / "b.zip").write_bytes(data.replace(b"x", b"\0"))  # zipfile ends a name at the first null byte
    with pytest.raises(BundleError):
        Bundle.load(tmp_path / "b.zip")


def test_a_run_that_is_a_circular_link_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert main(["leaderboard", str(tmp_path / "loop")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'loop'}: ")


# ---------------------------------------------------------------------- names


def test_any_name_goes_from_predictions_to_leaderboard_report_and_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dice, n = np.random.default_rng(0), 40
    proba = dice.dirichlet(np.ones(len(NAMES)), (3, n))
    labels = np.arange(n) % len(NAMES)
    members = [NAMES[0], NAMES[5], NAMES[8]]
    given = Predictions.from_arrays(
        proba, labels, np.arange(n) // len(NAMES) % 2, members=members, classes=NAMES,
        sample_ids=[f"{NAMES[i % len(NAMES)]}/{i}.png" for i in range(n)],
    )  # fmt: skip
    given.save(tmp_path / "p.npz")
    store = RunStore(tmp_path / "run")
    start_bare_run(store, tmp_path / "p.npz", "accuracy", [("mean", {})])
    compare(store, combine(store))
    assert {row["name"] for row in read_leaderboard(store).to_records()} == {*members, "mean"}
    for form in ("table", "json", "csv", "latex"):
        assert main(["leaderboard", str(store.path), "--format", form]) == 0
        out = capsys.readouterr().out
        if form == "json":
            assert {row["name"] for row in json.loads(out)} == {*members, "mean"}
        if form == "table":
            assert "\x1b" not in out
    assert main(["report", str(store.path)]) == 0
    html = (store.path / "report" / "report.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in html
    assert store.predictions().classes == NAMES


# ---------------------------------------------------------------------- sizes


@pytest.mark.parametrize("per_class", [1, 2])
def test_few_images_a_class_are_told_or_folded(per_class: int, tmp_path: Path, write_images: Any) -> None:
    root = write_images(tmp_path / "images", 3 * per_class)
    table = load_table(str(root), base_dir=tmp_path, cache_dir=tmp_path)
    assert survey(table).n_images == 3 * per_class
    with pytest.raises(EnsemblerError) as caught:
        make_folds(table.labels, 5, 0)
    assert "\n" not in str(caught.value)


def test_one_class_is_told(tmp_path: Path, write_images: Any) -> None:
    root = write_images(tmp_path / "images", 4, ("ant",))
    with pytest.raises(DataError, match="at least two are needed"):
        load_table(str(root), base_dir=tmp_path, cache_dir=tmp_path)


def test_a_hundred_thousand_classes_are_counted_folded_and_named_in_seconds(tmp_path: Path) -> None:
    n = 100_000
    names = [f"class {i:06d}" for i in range(n)]
    frame = pd.DataFrame(
        {"id": [f"{i}.png" for i in range(2 * n)], "label": names * 2, "split": "oof", "group": None}
    )
    frame["path"], frame["fold"] = "/nowhere/" + frame["id"], -1
    began = time.thread_time()
    table = ImageTable(frame)
    assert len(table.classes) == n
    counts = dict(zip(names, [2] * n, strict=True))
    text = Survey(table, counts, np.full((2 * n, 2), 8), (), ()).to_text()
    assert len(text.splitlines()) < 40
    assert f"{n:,} classes" in text
    folds = make_folds(table.labels, 2, predefined=np.arange(2 * n) // n)
    assert [len(fold.holdout) for fold in folds] == [n, n]
    with pytest.raises(
        DataError, match="label 'clas 000001' is not among the training classes; there are 100000"
    ):
        ImageTable(
            pd.concat([frame, frame[:1].assign(id="x", label="clas 000001", split="test")]), table.classes
        )
    assert time.thread_time() - began < 30
