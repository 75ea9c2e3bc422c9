"""What is said of bundles' files, graphs and servers where nothing can be made of them."""

from __future__ import annotations

import io
import stat
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ensembler.bundle import archive, images
from ensembler.bundle.layout import INDEX
from ensembler.errors import BundleError, DataError

# ---------------------------------------------------------------------- files

#: Of the entry of a file in a zip's directory: where its flags and its size are, and how they are packed.
FLAGS, SIZE = (8, "<H"), (24, "<I")


def zipped(
    path: Path,
    content: bytes = b"x",
    mode: int = stat.S_IFREG,
    lie: tuple[tuple[int, str], int] | None = None,
) -> archive.Archive:
    """A bundle of one file, of which the directory may say something else."""
    entry = zipfile.ZipInfo("model.onnx")
    entry.external_attr = mode << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as out:
        out.writestr(entry, content)
    data = bytearray(stream.getvalue())
    if lie is not None:
        (offset, kind), value = lie
        struct.pack_into(kind, data, data.index(b"PK\x01\x02") + offset, value)
    path.write_bytes(data)
    return archive.open_archive(path)


def large(folder: Path) -> bytes:
    """A file with a hole in it, larger than anything that is read."""
    with (folder / "model.onnx").open("wb") as stream:
        stream.truncate(archive.MAX_FILE_BYTES + 1)
    return archive.open_archive(folder).read("model.onnx")


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda home: zipped(home / "b.zip").read("other"), "{home}/b.zip/other: missing; export again"),
        (
            lambda home: zipped(home / "b.zip", lie=(SIZE, 9)).read("model.onnx"),
            "{home}/b.zip/model.onnx: is not as long as it says; export again",
        ),
        (
            lambda home: zipped(home / "b.zip", lie=(FLAGS, 1)),
            "{home}/b.zip/model.onnx: is encrypted; give the bundle without a password",
        ),
        (
            lambda home: zipped(home / "b.zip", mode=stat.S_IFIFO),
            "{home}/b.zip/model.onnx: is no plain file; a bundle holds files alone",
        ),
        (
            lambda home: zipped(home / "b.zip", bytes(100_000)),
            "{home}/b.zip: would become 100,000 bytes, more than 20 times its size; a zip bomb perhaps, use the "
            "bundle's folder",
        ),
        (large, "{home}/model.onnx: holds 17,179,869,185 bytes; at most 17,179,869,184 are read"),
    ],
    ids=["missing", "length", "encrypted", "pipe", "bomb", "large"],
)
def test_files_of_a_bundle_that_are_refused(
    act: Callable[[Path], object], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "HARMLESS_BYTES", 10_000)
    with pytest.raises(BundleError) as caught:
        act(tmp_path)
    assert str(caught.value) == says.format(home=tmp_path)


def test_a_folder_of_images_that_goes_while_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match="gone: cannot be listed: No such file or directory; mend its permissions or leave it out",
    ):
        list(images._below(tmp_path / "gone"))


# ---------------------------------------------------------------------- the Hub

COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.mark.parametrize(
    ("commit", "says"),
    [
        ("main", r"hf:ada/pets: the hub names no commit \('main'\); give the folder of a bundle"),
        (COMMIT, r"hf:ada/pets: its bundle\.json has 99 bytes; it is no bundle, give another name"),
    ],
)
def test_a_hub_that_gives_something_else(
    commit: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ensembler.bundle import hub

    client = pytest.importorskip("huggingface_hub")

    def download(*_: object, local_dir: Path, **__: object) -> str:
        (local_dir / INDEX).write_bytes(bytes(99))
        return str(local_dir / INDEX)

    monkeypatch.setattr(hub, "hub_out_of_reach", lambda: None)
    monkeypatch.setattr(hub, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(hub, "_INDEX_BYTES", 98)
    monkeypatch.setattr(client.HfApi, "model_info", lambda *_, **__: SimpleNamespace(sha=commit))
    monkeypatch.setattr(client, "hf_hub_download", download)
    with pytest.raises(BundleError, match=says):
        hub.fetch("hf:ada/pets")
    assert not list(tmp_path.rglob(INDEX))


# ---------------------------------------------------------------------- graphs


def test_graphs_without_their_libraries(tmp_path: Path, without: Callable[[str], None]) -> None:
    from ensembler.bundle.export import _write_graph
    from ensembler.bundle.options import ExportOptions

    without("onnx")
    nothing: Any = None
    with pytest.raises(
        BundleError, match=r"onnx is missing; pip install 'ensembler\[train\]', or --format torch"
    ):
        _write_graph(tmp_path, [], None, (), nothing, ExportOptions())


def test_a_graph_that_answers_with_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    from ensembler.bundle.graph import check

    nan = np.full((1, 2), np.nan, np.float32)
    monkeypatch.setattr(check, "new_session", lambda *_: None)
    monkeypatch.setattr(check, "run_graph", lambda *_: (nan, nan[None, None]))
    sample: Any = SimpleNamespace(pixels=None)
    with pytest.raises(BundleError, match="the graph answers NaN; use --format torch"):
        check.compare(b"", sample, (nan, nan[None, None]), lambda _: nan, "fp32", 1)


def test_a_network_that_torch_cannot_export(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from ensembler.bundle.graph import members

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no such\noperator")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(
        BundleError,
        match=r"test_resnet: torch cannot export it as ONNX \(no such operator\); use --format torch",
    ):
        members._traced("test_resnet", 3, 33, ())


def test_members_that_are_not_of_one_kind() -> None:
    from ensembler.bundle.graph.merge import folds_of

    given: Any = {
        "a": SimpleNamespace(image_size=64, temperatures=(1.0, 1.0)),
        "b": SimpleNamespace(image_size=96, temperatures=(1.0, 1.0, 1.0)),
    }
    with pytest.raises(
        BundleError,
        match=r"members of \[64, 96\] pixels and \[2, 3\] fold models cannot be in one ensemble; export one of them",
    ):
        folds_of(given)


def test_trees_that_split_by_category() -> None:
    import xgboost

    from ensembler.bundle.graph.trees import tree_attributes

    colours = np.arange(20, dtype=np.float32)[:, None] % 4
    data = xgboost.DMatrix(colours, [0, 1, 1, 0] * 5, feature_types=["c"], enable_categorical=True)
    booster = xgboost.train({"max_depth": 1, "tree_method": "hist", "nthread": 1}, data, num_boost_round=1)
    with pytest.raises(
        BundleError, match="booster: splits by category cannot be in a graph; export with --format torch"
    ):
        tree_attributes(np.frombuffer(booster.save_raw("ubj"), np.uint8), 1)


def test_a_graph_larger_than_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from ensembler.bundle import session

    monkeypatch.setattr(session, "MAX_MODEL_BYTES", 1000)
    graph = object.__new__(session.GraphSession)
    files: Any = SimpleNamespace(where=lambda name: f"bundle/{name}")
    graph._files = files
    with pytest.raises(BundleError, match=r"bundle/model\.onnx: holds 1,001 bytes; at most 1,000 are read"):
        graph._open("model.onnx", bytes(1001), [], [])


def test_a_bundle_of_torch_weights_without_torch(
    without: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ensembler.bundle.runtime import _engine

    without("torch")
    for loaded in ("networks", "member"):
        monkeypatch.delitem(sys.modules, f"ensembler.bundle.{loaded}", raising=False)
    files: Any = SimpleNamespace(index={"members": [{"folds": [1]}]}, where=lambda name: f"bundle/{name}")
    with pytest.raises(
        BundleError,
        match=r"bundle/bundle\.json: needs PyTorch \(No module named 'torch'\); pip install 'ensembler\[train\]', or",
    ):
        _engine(files, None, 1)
