"""A survey of images: what is counted, what is found twice, and what is never decoded."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ensembler.data import load_table
from ensembler.data import survey as survey_mod
from ensembler.data.survey import Survey, survey
from ensembler.errors import DataError, printable


def _look(root: Path, tmp_path: Path, **options: Any) -> Survey:
    return survey(load_table(str(root), base_dir=tmp_path, cache_dir=tmp_path / "cache", **options))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three classes of 4, 2 and 1 images of known sizes."""
    root = tmp_path / "images"
    sizes = {
        "ant": [(10, 20), (30, 40), (50, 60), (70, 80)],
        "bee": [(90, 100), (110, 100)],
        "cow": [(12, 12)],
    }
    for name, shapes in sizes.items():
        (root / name).mkdir(parents=True)
        for i, shape in enumerate(shapes):
            Image.new("RGB", shape, (i * 40, len(name), ord(name[0]))).save(root / name / f"{i}.png")
    return root


def test_classes_are_counted_and_sizes_measured(images: Path, tmp_path: Path) -> None:
    found = _look(images, tmp_path)
    assert dict(found.counts) == {"ant": 4, "bee": 2, "cow": 1}
    assert list(found.counts) == ["ant", "bee", "cow"]
    assert found.n_images == 7
    assert found.imbalance == 4.0
    assert found.sizes.tolist()[:2] == [[10, 20], [30, 40]]
    assert found.median_side == 50  # of 10, 30, 50, 70, 90, 100, 12
    assert found.copies == found.conflicts == found.unreadable == ()
    text = found.to_text()
    assert "7 images in 3 classes" in text
    assert "the shorter side from 10 to 100, median 50" in text


def test_no_pixel_is_decoded(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(Image.Image, "convert", refuse)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse)
    assert _look(images, tmp_path).n_images == 7


def test_copies_are_found_by_content_and_conflicting_labels_named(images: Path, tmp_path: Path) -> None:
    shutil.copy(images / "ant" / "0.png", images / "ant" / "again.png")
    shutil.copy(images / "bee" / "1.png", images / "cow" / "other.png")
    found = _look(images, tmp_path)
    assert found.copies == (("ant/0.png", "ant/again.png"), ("bee/1.png", "cow/other.png"))
    assert found.conflicts == ((("bee/1.png", "bee"), ("cow/other.png", "cow")),)
    text = found.to_text()
    assert "exact copies: 2 files" in text
    assert "bee/1.png is 'bee', cow/other.png is 'cow'" in text


def test_a_test_image_that_is_trained_on_is_told(images: Path, tmp_path: Path) -> None:
    beside = tmp_path / "beside"
    (beside / "ant").mkdir(parents=True)
    shutil.copy(images / "ant" / "0.png", beside / "ant" / "x.png")
    found = _look(images, tmp_path, test=str(beside))
    assert found.n_images == 7
    assert found.leaks == (("ant/0.png", "ant/x.png"),)
    assert "both a test image and not: ant/0.png = ant/x.png" in found.to_text()


def test_unreadable_files_are_listed_and_not_counted(images: Path, tmp_path: Path) -> None:
    (images / "ant" / "empty.png").write_bytes(b"")
    (images / "cow" / "text.jpg").write_text("no image")
    found = _look(images, tmp_path)
    assert [i for i, _ in found.unreadable] == ["ant/empty.png", "cow/text.jpg"]
    assert found.unreadable[0][1] == "is empty"
    assert dict(found.counts) == {"ant": 4, "bee": 2, "cow": 1}
    assert "unreadable: 2 files\n  ant/empty.png: is empty" in found.to_text()


def test_a_source_without_a_single_image_is_refused(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        (tmp_path / "x" / name).mkdir(parents=True)
        (tmp_path / "x" / name / "a.png").write_text("no image")
    with pytest.raises(DataError, match="none of the 2 files can be read"):
        _look(tmp_path / "x", tmp_path)


def test_the_parts_of_a_data_set_are_not_its_classes(images: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(images, root / "train")
    shutil.copytree(images, root / "val")
    with pytest.raises(DataError, match=r"train, val are parts of a data set.*such as .*set/train"):
        _look(root, tmp_path)


def test_many_classes_are_shown_by_their_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey_mod, "SHOWN", 2)
    for i in range(7):
        (tmp_path / "x" / f"c{i}").mkdir(parents=True)
        for j in range(i + 1):
            Image.new("RGB", (9, 9), (i, j, 0)).save(tmp_path / "x" / f"c{i}" / f"{j}.png")
    lines = _look(tmp_path / "x", tmp_path).to_text().splitlines()
    assert lines[1:6] == ["  c6: 7", "  c5: 6", "  and 3 between: 3 to 5", "  c1: 2", "  c0: 1"]


def test_a_name_cannot_speak_to_the_terminal() -> None:
    assert printable("a\x1b[31mb\nc ü 😀") == "a\\x1b[31mb\\nc ü 😀"


def test_progress_counts_every_file(images: Path, tmp_path: Path) -> None:
    table = load_table(str(images), base_dir=tmp_path, cache_dir=tmp_path / "cache")
    told: list[tuple[int, int]] = []
    survey(table, progress=lambda done, total: told.append((done, total)))
    assert told == [(i, 7) for i in range(1, 8)]
