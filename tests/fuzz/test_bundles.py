"""Bundles: folders and zips that anybody may have made are checked before they are used, and refused by name."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import stat
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch._dynamo  # noqa: F401 - some models import it when they are built, and it makes a folder for its cache
from onnx import TensorProto, helper
from safetensors.numpy import save

from ensembler.bundle import (
    Bundle,
    networks,  # noqa: F401 - torch and timm take longer to import than a case may take
)
from ensembler.bundle.layout import CARD, INDEX, MODEL
from ensembler.bundle.monitor.features import LOOKS
from ensembler.bundle.monitor.reference import REFERENCE, read_reference
from ensembler.bundle.pages import card_page, read_card

from .choices import Choices, changed, damaged, number, one_in, pick, words
from .target import CASES, Target

SIDE, CLASSES, ROWS = 4, ("red", "green", "blue"), 5
WEIGHTS = "members/0/0.safetensors"

#: Names of files in an index or a zip, beside those that belong there.
NAMES = (
    "../secret", "/etc/passwd", "members/../../secret", "a\\b", "C:/x", "", ".", "..", "members", "link", "loop",
    "a\nb", "x" * 5000, "bundle.json/x", "README.md\0", "\ud800", "é", "e\u0301", "CON", INDEX, MODEL, "members/",
    "//secret", "./" + MODEL,
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """The files of a bundle by name, and the links among them; packed or not."""

    files: dict[str, bytes]
    links: dict[str, str]
    packed: bytes | None
    engine: Any


def prepare(inside: Path) -> dict[str, bytes]:
    """A bundle of one member that tells the strongest colour."""
    dice = np.random.default_rng(0)
    weights = {"head.weight": np.ones((3, 4), np.float32), "head.bias": np.zeros(3, np.float32)}
    proba = dice.dirichlet([1, 1, 1], ROWS).astype(np.float16)
    reference = {
        "looks": np.zeros((ROWS, len(LOOKS)), np.float32), "proba": proba,
        "disagreement": np.zeros((ROWS, 1), np.float16),
        "labels": np.zeros(ROWS, np.int32), "folds": np.array([1], np.int32),
    }  # fmt: skip
    files = {
        MODEL: _graph(), WEIGHTS: save(weights), REFERENCE: save(reference),
        CARD: b"---\nlicense: mit\n---\n\n# A <b>card</b>\n\n| a | b |\n|---|---|\n| 1 | [x](javascript:y) |\n",
    }  # fmt: skip
    member = {
        "name": "one", "architecture": "test_vit", "folds": [{"file": WEIGHTS, "temperature": 1.0}], "body": None,
        "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "hidden": [], "mirror": False,
    }  # fmt: skip
    index = {
        "format": 2, "name": "one", "classes": list(CLASSES), "image_size": SIDE, "members": [member], "combiner": None,
        "graph": {"folds": 1, "batch": 8}, "files": {name: hashlib.sha256(b).hexdigest() for name, b in files.items()},
        "scores": {"cv": 0.5}, "versions": {"ensembler": "0.1.0"}, "precision": "fp32",
    }  # fmt: skip
    return {INDEX: json.dumps(index).encode(), **files}


def _graph() -> bytes:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["wide", "axes"], ["mean"], keepdims=0),
            helper.make_node("Softmax", ["mean"], ["probabilities"]),
            helper.make_node("Unsqueeze", ["probabilities", "front"], ["members"]),
        ],
        "g",
        [value("images", TensorProto.UINT8, [None, SIDE, SIDE, 3])],
        [
            value("probabilities", TensorProto.FLOAT, [None, 3]),
            value("members", TensorProto.FLOAT, [1, 1, None, 3]),
        ],
        [
            helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
            helper.make_tensor("front", TensorProto.INT64, [2], [0, 1]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    content: bytes = model.SerializeToString()
    return content


def generate(choices: Choices, whole: dict[str, bytes]) -> Case:
    """A bundle whose parts have changed, mostly by somebody who writes the digests that fit."""
    files = dict(whole)
    for _ in range(choices.whole(0, 2)):
        name = pick(choices, list(files))
        how = choices.whole(0, 5)
        if how == 0:
            del files[name]
        elif how == 1:
            files[name] = pick(choices, list(whole.values()))
        elif name.endswith(".safetensors") and how <= 3:
            files[name] = _safetensors(choices)
        elif name != MODEL:  # a well-formed graph that is a bad one is for onnxruntime to refuse; see below
            files[name] = damaged(choices, files[name])
    index: Any = json.loads(whole[INDEX])
    for _ in range(choices.whole(0, 2)):
        index = changed(choices, index)
    if isinstance(index, dict) and isinstance(index.get("files"), dict):
        if not one_in(choices, 4):
            index["files"] = {
                n: hashlib.sha256(files[n]).hexdigest() if n in files else d
                for n, d in index["files"].items()
            }
        if one_in(choices, 6):
            index["files"][pick(choices, NAMES)] = pick(
                choices, ("0" * 64, None, 3, hashlib.sha256(b"secret").hexdigest())
            )
    if INDEX in files and files[INDEX] == whole[INDEX]:
        files[INDEX] = json.dumps(index).encode()
    links = {}
    if one_in(choices, 8):
        links[pick(choices, (*files, "members", "link"))] = pick(
            choices, ("../../secret", "loop", "/etc/passwd", ".")
        )
    engine = pick(choices, (None, None, None, "onnx", "torch"))
    packed = _zip(choices, files) if one_in(choices, 2) else None
    return Case(files, links, packed, engine)


def _safetensors(choices: Choices) -> bytes:
    entry: Any = {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}
    header = {
        "head.weight": changed(choices, entry),
        pick(choices, ("__metadata__", "b")): changed(choices, {"a": "b"}),
    }
    text = (
        damaged(choices, json.dumps(header).encode()) if one_in(choices, 2) else json.dumps(header).encode()
    )
    length = pick(choices, (len(text),) * 4 + (0, 1, 7, 10**9, 2**63, 2**64 - 1))
    return struct.pack("<Q", length) + text + bytes(choices.whole(0, 64))


def _zip(choices: Choices, files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        top = pick(choices, ("", "", "bundle/", "a/b/"))
        for name, content in files.items():
            how = zipfile.ZIP_DEFLATED if one_in(choices, 3) else zipfile.ZIP_STORED
            archive.writestr(zipfile.ZipInfo(top + name), content, how)
        if one_in(choices, 5):
            odd = zipfile.ZipInfo(
                pick(choices, (*NAMES, words(choices, 2))).encode(errors="replace").decode() or "x"
            )
            odd.external_attr = (
                pick(choices, (0, stat.S_IFLNK | 0o777, stat.S_IFIFO, stat.S_IFDIR, 0xFFFF)) << 16
            )
            if odd.filename not in archive.NameToInfo:
                archive.writestr(odd, pick(choices, (b"../secret", b"", b"x" * 70_000)), zipfile.ZIP_DEFLATED)
    data = bytearray(stream.getvalue())
    for _ in range(choices.whole(0, 2) if one_in(choices, 2) else 0):
        # into the directory or a header, where sizes, methods and names stand
        mark = pick(choices, (b"PK\1\2", b"PK\3\4", b"PK\5\6"))
        starts = [i for i in range(len(data) - 3) if data[i : i + 4] == mark]
        if starts:
            at = pick(choices, starts) + choices.whole(4, 45)
            width = pick(choices, (1, 2, 4))
            value = number(choices)
            whole = int(value) if value == value and abs(value) < 1e9 else 2**32 - 1
            data[at : at + width] = (whole % (1 << 8 * width)).to_bytes(width, "little")
    return damaged(choices, bytes(data)) if one_in(choices, 6) else bytes(data)


def run(case: Case, shared: Any, inside: Path) -> object:
    """What predict, serve and monitor do with a bundle."""
    path = inside / ("bundle.zip" if case.packed is not None else "bundle")
    try:
        _write(case, path)
        bundle = Bundle.load(path, engine=case.engine, threads=1)
        proba = bundle.predict_pixels(np.zeros((2, bundle.image_size, bundle.image_size, 3), np.uint8))
        assert proba.shape == (2, len(bundle.classes))
        bundle.combine(
            bundle.fold_probabilities(np.zeros((1, bundle.image_size, bundle.image_size, 3), np.uint8))
        )
        assert isinstance(bundle.name, str)
        page = card_page(read_card(path))
        assert "<script" not in page
        return read_reference(path)
    finally:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _write(case: Case, path: Path) -> None:
    if case.packed is not None:
        path.write_bytes(case.packed)
        return
    for name, content in case.files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    for name, to in case.links.items():
        file = path / name
        if file.is_dir():
            shutil.rmtree(file)
        file.unlink(missing_ok=True)
        file.symlink_to(to)


BUNDLES = Target("bundles", prepare, generate, run)


def test_a_bundle_is_used_or_refused(tmp_path: Path) -> None:
    outcomes = BUNDLES.hold(tmp_path)
    assert outcomes.get("accepted", 0) > CASES / 100
    assert len(outcomes) > min(30, CASES / 20), outcomes
