"""What every source of images promises. A new one joins through one entry in `MAKE`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensembler.data import SOURCES, load_table
from ensembler.data.cache import build_cache
from ensembler.data.decode import load_pixels
from ensembler.data.table import ImageTable


def class_folders(root: Path) -> str:
    for label in ("cat", "dog"):
        (root / "images" / label).mkdir(parents=True, exist_ok=True)
        for i in range(5):
            Image.new("RGB", (6, 4), (40 * i, 0, 0)).save(root / f"images/{label}/{i}.png")
    return "images"


def manifest(root: Path) -> str:
    class_folders(root)
    lines = [f"images/{label}/{i}.png,{label}" for i in range(5) for label in ("dog", "cat")]
    (root / "manifest.csv").write_text("path,label\n" + "\n".join(lines))
    return "manifest.csv"


def digits(root: Path) -> str:
    return "digits"


def torchvision_set(root: Path) -> str:
    # A download of the past: the network is no part of a test.
    made = root / "cache/torchvision/Pets"
    if not made.exists():
        class_folders(root)
        made.mkdir(parents=True)
        (root / "images").rename(made / "train")
    return "torchvision:Pets"


MAKE: dict[str, Callable[[Path], str]] = {
    "folder": class_folders,
    "manifest": manifest,
    "digits": digits,
    "torchvision": torchvision_set,
}


def test_every_source_is_here() -> None:
    assert set(MAKE) == set(SOURCES)


@pytest.fixture(params=list(SOURCES))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def load(kind: str, root: Path) -> ImageTable:
    return load_table(MAKE[kind](root), base_dir=root, cache_dir=root / "cache")


def test_the_first_source_that_recognises_a_name_is_the_right_one(kind: str, tmp_path: Path) -> None:
    source = MAKE[kind](tmp_path)
    assert next(name for name, reader in SOURCES.items() if reader.recognises(source)) == kind


def test_rows_are_whole_and_every_file_is_an_image(kind: str, tmp_path: Path) -> None:
    table = load(kind, tmp_path)
    assert len(table.oof) == len(table)
    assert list(table.classes) == sorted(set(table.frame["label"]))
    assert set(table.labels.tolist()) == set(range(len(table.classes)))
    for path in table.paths[:3]:
        assert load_pixels(path, 8).shape == (8, 8, 3)


def test_rows_and_ids_do_not_depend_on_the_place(kind: str, tmp_path: Path) -> None:
    here, there = (load(kind, tmp_path / name) for name in ("here", "there"))
    assert here.ids.tolist() == there.ids.tolist()
    assert here.labels.tolist() == there.labels.tolist()
    assert not any(str(tmp_path) in image_id for image_id in here.ids)
    again = load(kind, tmp_path / "here")
    assert again.frame.equals(here.frame)


def test_the_same_content_has_the_same_fingerprint(kind: str, tmp_path: Path) -> None:
    built = [build_cache(load(kind, tmp_path / name), 8, tmp_path / name) for name in ("here", "there")]
    assert built[0].table.fingerprint == built[1].table.fingerprint != ""
    np.testing.assert_array_equal(np.load(built[0].oof), np.load(built[1].oof))


def test_a_share_of_every_source_can_be_the_test_split(kind: str, tmp_path: Path) -> None:
    table = load_table(MAKE[kind](tmp_path), test=0.2, base_dir=tmp_path, cache_dir=tmp_path / "cache")
    assert len(table.test) == round(0.2 * len(table))
    assert set(table.test.labels.tolist()) == set(table.oof.labels.tolist())
