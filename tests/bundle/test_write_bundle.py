"""A bundle from members that are given, without a run: a cascade of a pair of fold models and one refitted network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from ensembler.bundle import Bundle
from ensembler.bundle.export import MemberSource, write_bundle
from ensembler.bundle.graph.check import Sample
from ensembler.bundle.layout import CARD, IMAGES, MODEL, WANTED
from ensembler.bundle.member import FoldWeights, Member
from ensembler.bundle.monitor.reference import REFERENCE, read_reference
from ensembler.bundle.networks import Networks
from ensembler.bundle.options import ExportOptions
from ensembler.combiners.cascade import Cascade
from ensembler.errors import BundleError, StoreError
from ensembler.evaluation.trade_off import TradeOff
from ensembler.predictions import Predictions
from ensembler.training.backbone import create, to_arrays

SIZE, CLASSES, TEMPERATURE = 32, ("a", "b", "c"), 0.2
ROW = {"name": "cascade", "kind": "ensemble", "metric": "log_loss", "cv": 0.5, "cv_low": None, "cv_high": None,
       "accuracy": 0.9, "log_loss": 0.5, "ece": None}  # fmt: skip


def source(home: Path, name: str, *seeds: int) -> MemberSource:
    folds, files = [], []
    for seed in seeds:
        torch.manual_seed(seed)
        arrays = to_arrays(create("test_resnet", len(CLASSES)).state_dict())
        files.append((home / f"{seed}.safetensors", TEMPERATURE))
        save_file(arrays, files[-1][0])
        folds.append(FoldWeights(arrays, TEMPERATURE))
    member = Member("test_resnet", CLASSES, SIZE, folds)
    return MemberSource(name, "test_resnet", "random", "apache-2.0", member, files)


@pytest.fixture(scope="module")
def images(draw_images: Callable[..., Any]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    found: tuple[NDArray[np.uint8], NDArray[np.int64]] = draw_images(60, size=SIZE)
    return found


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[MemberSource]:
    home = tmp_path_factory.mktemp("weights")
    return [source(home, "folds", 0, 1), source(home, "refit", 2)]


@pytest.fixture(scope="module")
def cascade(sources: list[MemberSource], images: Any) -> Cascade:
    """Some images need both members."""
    pixels, _ = images
    proba = np.stack([one.member.predict(pixels) for one in sources])
    rows = Predictions.from_arrays(
        proba,
        proba.mean(axis=0).argmax(axis=1),
        np.arange(60) % 2,
        members=[s.name for s in sources],
        classes=CLASSES,
    )
    fitted = Cascade(order=("folds", "refit"), max_loss=0.0).fit(rows)
    # In the widest gap of what the images' largest probabilities are, so that rounding decides nothing.
    sure = np.sort(sources[0].member.predict_folds(pixels).max(axis=2).ravel())
    middle = sure[20:100]
    widest = int(np.argmax(np.diff(middle)))
    fitted.thresholds_ = np.array([float(middle[widest : widest + 2].mean())])
    return fitted


@pytest.fixture
def export(sources: list[MemberSource], cascade: Cascade, images: Any, tmp_path: Path) -> Callable[..., Path]:
    def write(**changes: Any) -> Path:
        pixels, labels = images
        given: dict[str, Any] = {
            "experiment": "pets",
            "row": ROW,
            "verdict": "v",
            "classes": CLASSES,
            "image_size": SIZE,
            "members": sources,
            "combiner": cascade,
            "data": {"images": 60, "test_images": 0, "fingerprint": "f" * 32, "image_size": SIZE, "k": 2},
            "versions": {},
            "sample": lambda: Sample(pixels, labels, np.arange(60) % 2, honest=False),
            "curve": [TradeOff(0.0, 0.9, 1.5, None), TradeOff(1.0, 0.9, 2.0, None)],
        }
        return write_bundle(tmp_path / "bundle", **given | changes)

    return write


def test_a_cascade_runs_in_stages_and_says_what_its_networks_say(
    export: Callable[..., Path], sources: list[MemberSource], cascade: Cascade, images: Any
) -> None:
    folder = export()
    bundle, pixels = Bundle.load(folder), images[0]
    assert bundle.index["graph"]["cascade"] == {
        "order": [0, 1],
        "thresholds": cascade.thresholds_.tolist(),
        "together": [False, True],  # one network has nothing to run apart
    }
    assert [value.name for value in onnx.load(folder / MODEL).graph.input] == [IMAGES, WANTED]
    members = {one.name: one.member for one in sources}
    expected = Networks(members, cascade, CLASSES).predict(pixels)
    np.testing.assert_allclose(bundle.predict_pixels(pixels), expected, atol=1e-5)
    np.testing.assert_allclose(bundle.answer(pixels)[0], expected, atol=1e-5)
    assert "members that an image is run through on average" in (folder / CARD).read_text()


def test_in_low_precision_a_cascade_runs_whole_and_that_is_told(
    export: Callable[..., Path], images: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = export(options=ExportOptions(precision="fp16"))
    assert capsys.readouterr().err == (
        "warning: fp16: the cascade runs all its members on every image; with --precision fp32 it runs those that an "
        "image needs\n"
    )
    bundle = Bundle.load(folder)
    assert bundle.index["graph"]["cascade"] is None
    assert [value.name for value in onnx.load(folder / MODEL).graph.input] == [IMAGES]
    np.testing.assert_array_equal(bundle.predict_pixels(images[0]), bundle.answer(images[0])[0])
    card = (folder / CARD).read_text()
    assert "members that an image would need (this bundle runs all of them, always) on average" in card


def test_without_a_reference_a_bundle_predicts_and_cannot_be_monitored(
    export: Callable[..., Path], sources: list[MemberSource], images: Any
) -> None:
    asked: list[list[str]] = []

    def nothing(folder: Path) -> None:
        asked.append(sorted(file.name for file in folder.iterdir()))

    one = replace(sources[1], name="cascade")
    folder = export(members=[one], combiner=None, curve=[], reference=nothing)
    assert asked == [["README.md", "bundle.json", "model.onnx"]]  # it could have answered
    bundle = Bundle.load(folder)
    assert REFERENCE not in bundle.index["files"]
    np.testing.assert_allclose(bundle.predict_pixels(images[0]), one.member.predict(images[0]), atol=1e-5)
    with pytest.raises(BundleError, match="holds no reference to monitor with"):
        read_reference(folder)


def test_weights_that_cannot_be_read_are_named_and_not_the_bundle(
    export: Callable[..., Path], sources: list[MemberSource], tmp_path: Path
) -> None:
    """The disk gave them once, for the networks, and not a second time."""
    gone = tmp_path / "gone.safetensors"
    one = replace(sources[1], name="cascade", folds=[(gone, 1.0)])
    with pytest.raises(StoreError, match=f"^{gone}: cannot be read .*; delete its folder and run again$"):
        export(members=[one], combiner=None, curve=[], options=ExportOptions(format="torch"))
    assert sorted(file.name for file in tmp_path.iterdir()) == []
