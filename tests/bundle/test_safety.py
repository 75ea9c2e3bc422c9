"""A bundle from anybody: what is not what was exported is refused by name, before anything of it is loaded."""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
import resource
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from ensembler.bundle import Bundle
from ensembler.bundle.archive import MAX_FILE_BYTES, open_archive
from ensembler.bundle.layout import INDEX, MODEL
from ensembler.bundle.options import ExportOptions
from ensembler.errors import BundleError
from ensembler.experiment import Experiment

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def whole(finished_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("bundle") / "b"
    return Experiment.from_run(finished_run.run).export(target, "stacking", ExportOptions(format="both"))


@pytest.fixture
def folder(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to damage; opening a session or building a network fails the test."""
    shutil.copytree(whole, tmp_path / "bundle")
    never = lambda *_, **__: pytest.fail("used before it was checked")  # noqa: E731
    monkeypatch.setattr("onnxruntime.InferenceSession", never)
    monkeypatch.setattr("ensembler.bundle.member.Member.__init__", never)
    return tmp_path / "bundle"


def _refused(path: Path, **how: Any) -> str:
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(BundleError) as caught:
        Bundle.load(path, **how)
    assert "\n" not in str(caught.value)
    assert sorted(path.parent.rglob("*")) == before  # nothing was written
    return str(caught.value)


def _signed(folder: Path, **changes: Any) -> None:
    """Somebody who damages a file can write its digest too."""
    index = json.loads((folder / INDEX).read_text())
    for name in index["files"]:
        index["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / INDEX).write_text(json.dumps(index | changes))


def _packed(folder: Path, change: Callable[[zipfile.ZipFile], None] = lambda _: None) -> Path:
    target = folder.with_suffix(".zip")
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, file.relative_to(folder).as_posix())
        change(archive)
    return target


# ---------------------------------------------------------------------- files


@pytest.mark.parametrize("as_zip", [False, True])
@pytest.mark.parametrize("name", [MODEL, "combiner.onnx", "README.md", "members/0/0.safetensors"])
def test_a_flipped_byte_is_found(name: str, as_zip: bool, folder: Path) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    path = _packed(folder) if as_zip else folder
    for engine in ("onnx", "torch"):
        assert _refused(path, engine=engine) == (
            f"{path / name}: altered since the export (SHA-256 differs); export again"
        )


def test_swapped_weights_are_found(folder: Path) -> None:
    one, two = folder / "members/0/0.safetensors", folder / "members/1/0.safetensors"
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    assert "members/0/0.safetensors: altered" in _refused(folder, engine="torch")
    assert "members/0/0.safetensors: altered" in _refused(folder)


def test_a_flipped_bit_of_a_zip_is_found(folder: Path) -> None:
    path = _packed(folder)
    content = bytearray(path.read_bytes())
    place = content.find((folder / MODEL).read_bytes()[1000:1100])
    content[place] ^= 1
    path.write_bytes(content)
    assert f"{path / MODEL}: cannot be read (Bad CRC-32" in _refused(path)


def test_a_file_that_is_no_bundle_is_told(folder: Path) -> None:
    path = folder.with_name("photo.jpg")
    path.write_bytes(b"\xff\xd8\xff")
    assert "photo.jpg: is no readable zip" in _refused(path)
    with zipfile.ZipFile(folder.with_name("other.zip"), "w") as archive:
        archive.writestr("a/b.txt", "c")
    assert "no bundle here" in _refused(folder.with_name("other.zip"))


# ---------------------------------------------------------------------- names in a zip


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/outside", "members/../../outside", "a\\b", "C:/outside", "bundle/../../x"]
)
def test_a_name_in_a_zip_that_leads_outside_is_refused(name: str, folder: Path) -> None:
    path = _packed(folder, lambda archive: archive.writestr(name, "x"))
    assert f"file name {name!r} leads outside the bundle" in _refused(path)
    assert not (folder.parent / "outside").exists()


def test_a_symbolic_link_in_a_zip_is_refused(folder: Path) -> None:
    link = zipfile.ZipInfo("members/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = _packed(folder, lambda archive: archive.writestr(link, "/etc/passwd"))
    assert f"{path}/members/link: is a symbolic link" in _refused(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_name_are_refused(folder: Path) -> None:
    path = _packed(folder, lambda archive: archive.writestr(MODEL, b"another"))
    assert "holds two files of one name" in _refused(path)


def test_an_encrypted_or_oddly_packed_zip_is_refused(folder: Path) -> None:
    path = _packed(folder, lambda archive: archive.writestr("odd", b"x" * 99, zipfile.ZIP_LZMA))
    assert "odd: is packed by method 14" in _refused(path)


def test_a_zip_bomb_is_refused_in_little_memory(folder: Path) -> None:
    def bomb(archive: zipfile.ZipFile) -> None:
        with archive.open("bomb", "w", force_zip64=True) as stream:
            for _ in range(300):
                stream.write(bytes(1 << 20))

    target = folder.with_suffix(".zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / INDEX, INDEX)
        bomb(archive)
    assert target.stat().st_size < 1 << 20
    assert "more than 20 times its size; a zip bomb perhaps" in _refused(target)


def test_a_zip_whose_sizes_lie_is_refused(folder: Path) -> None:
    """The directory says 10 bytes, and a deflated gigabyte follows: no more than 10 are ever unpacked."""
    target = folder.with_suffix(".zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(INDEX, bytes(1 << 26))
    content = target.read_bytes()
    true, lie = struct.pack("<I", 1 << 26), struct.pack("<I", 10)
    target.write_bytes(content.replace(true, lie))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert INDEX in _refused(target)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 15  # KiB


def test_a_file_that_ends_before_its_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"x" * 77)
    content, size = path.read_bytes(), struct.pack("<II", 77, 77)  # packed and whole
    at = content.rindex(size)  # in the directory at the end
    path.write_bytes(content[: at + 4] + struct.pack("<I", 78) + content[at + 8 :])
    with pytest.raises(BundleError, match=r"b\.zip/a: is not as long as it says; export again"):
        open_archive(path).read("a")


def test_a_file_of_any_length_is_not_hashed(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as stream:
        stream.truncate(MAX_FILE_BYTES + 1)  # takes no room on the disk
    with pytest.raises(BundleError, match=r"a: holds 17,179,869,185 bytes; at most 17,179,869,184 are read"):
        open_archive(tmp_path).digest("a")


def test_an_index_of_any_length_is_not_read(folder: Path) -> None:
    with (folder / INDEX).open("wb") as stream:
        stream.truncate(1 << 34)  # takes no room on the disk
    assert "bytes; at most 16,777,216 are read" in _refused(folder)


# ---------------------------------------------------------------------- what is inside the files


def test_data_outside_the_graph_is_refused(folder: Path) -> None:
    (folder.parent / "secret").write_bytes(np.ones(64, np.float32).tobytes())
    model = onnx.load(folder / MODEL)
    tensor = next(t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
    onnx.external_data_helper.set_external_data(tensor, "../secret")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    (folder / MODEL).write_bytes(model.SerializeToString())
    _signed(folder)
    expected = f"{folder / MODEL}: names data outside the graph; a bundle's graph holds all of its own"
    assert _refused(folder) == expected
    attribute = helper.make_node("Constant", [], ["x"], value=tensor)  # or in an attribute of a node
    model = onnx.load(folder / MODEL, load_external_data=False)
    model.graph.initializer.remove(next(t for t in model.graph.initializer if t.external_data))
    model.graph.node.append(attribute)
    (folder / MODEL).write_bytes(model.SerializeToString())
    _signed(folder)
    assert _refused(folder) == expected


def test_a_graph_of_something_else_is_refused(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    shutil.copytree(whole, folder)
    index = json.loads((folder / INDEX).read_text())
    _signed(folder, classes=[*index["classes"], "dog"])
    assert "outputs probabilities tensor(float)" in _refused(folder)
    _signed(folder, classes=index["classes"], image_size=64)
    assert "inputs images tensor(uint8)" in _refused(folder)
    (folder / MODEL).write_bytes(b"no graph")
    _signed(folder, image_size=32)
    assert f"{folder / MODEL}: onnxruntime cannot use it" in _refused(folder)
    identity = helper.make_graph(
        [helper.make_node("Identity", ["a"], ["b"])],
        "g",
        [helper.make_tensor_value_info("a", 1, [1])],
        [helper.make_tensor_value_info("b", 1, [1])],
        [numpy_helper.from_array(np.ones(1, np.float32), "unused")],
    )
    other = helper.make_model(identity, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (folder / MODEL).write_bytes(other.SerializeToString())
    _signed(folder)
    assert "inputs a tensor(float) [1] are not those of this bundle" in _refused(folder)


def _header(text: str, length: int | None = None, body: bytes = b"") -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 7,
        _header("{}", 2**63),
        _header("{}", 10**9),
        _header('{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}', body=b"1234"),
        _header('{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}', body=b"1234"),
        _header('{"a": {"dtype": "F32", "shape": [1099511627776], "data_offsets": [0, 4]}}', body=b"1234"),
        _header('{"a": {"dtype": "F32", "shape": [2305843009213693952, 4], "data_offsets": [0, 0]}}'),
        _header('{"a": {"dtype": "OBJ", "shape": [1], "data_offsets": [0, 8]}}', body=b"12345678"),
        _header("[" * 10_000),
        _header('{"a": 1}'),
        _header("\x80\x04."),
    ],
    ids=range(12),
)
@pytest.mark.parametrize(
    "name", ["members/0/0.safetensors", "members/1/1.safetensors", "combiner.safetensors"]
)
def test_a_header_of_safetensors_that_lies_is_refused(name: str, content: bytes, folder: Path) -> None:
    (folder / name).write_bytes(content)
    _signed(folder)
    assert f"{folder / name}: its header lies" in _refused(folder, engine="torch")


@pytest.mark.parametrize(
    "changes",
    [
        {"image_size": 10**9},
        {"image_size": "32"},
        {"image_size": True},
        {"classes": []},
        {"classes": [1, 2, 3]},
        {"classes": "abc"},
        {"members": 3},
        {"members": [None]},
        {"graph": {}},
        {"graph": []},
        {"graph": {"folds": "many"}},
        {"files": {MODEL: "0" * 64}},
        {"files": {}},
    ],
)
def test_an_index_that_lies_is_refused(changes: dict[str, Any], folder: Path) -> None:
    _signed(folder, **changes)
    assert str(folder) in _refused(folder)


def test_damage_anywhere_is_refused_and_never_crashes(whole: Path, tmp_path: Path) -> None:
    """500 zips with bytes changed at random: refused, or what was changed is not read."""
    path = tmp_path / "bundle.zip"
    small = {INDEX: (whole / INDEX).read_bytes(), MODEL: (whole / "combiner.onnx").read_bytes()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in small.items():
            archive.writestr(name, content)
    original, dice = buffer.getvalue(), random.Random(0)
    for _ in range(500):
        content = bytearray(original)
        for _ in range(dice.choice((1, 4, 64))):
            content[dice.randrange(len(content))] = dice.randrange(256)
        path.write_bytes(content[: dice.choice((None, dice.randrange(len(content))))])
        with pytest.raises(BundleError):
            Bundle.load(path)


def test_nothing_here_is_a_pickle() -> None:
    words = re.compile(r"\b(pickle|joblib|dill|marshal|torch\.load|allow_pickle=True|(?<![.])eval|exec)\b\(?")
    files = list((ROOT / "ensembler" / "bundle").rglob("*.py"))
    assert len(files) > 20
    assert not [(file, found) for file in files for found in words.findall(file.read_text())]
