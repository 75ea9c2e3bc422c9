"""From what a config says to a table: folders, the test split, and the errors a user can mend."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ensembler.data import load_table
from ensembler.data.folder import write_class_folders
from ensembler.data.table import ImageTable
from ensembler.errors import DataError

Load = Callable[..., ImageTable]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def call(source: str, **options: object) -> ImageTable:
        return load_table(source, base_dir=tmp_path, cache_dir=tmp_path / "cache", **options)  # type: ignore[arg-type]

    return call


def put(root: Path, *names: str) -> None:
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (i, 0, 0)).save(root / name, "png")


# ---------------------------------------------------------------------- folders


def test_class_folders_as_people_keep_them(tmp_path: Path, load: Load) -> None:
    names = [
        "cat/b.PNG",
        "cat/a.jpeg",
        "dog/deep/er/c.TIFF",
        "dog/.hidden.png",
        ".git/x.png",
        "dog/.thumbs/t.png",
    ]
    put(tmp_path / "images", *names, "stray.png")
    (tmp_path / "images/cat/notes.txt").write_text("no image")
    table = load("images")
    assert table.ids.tolist() == ["cat/a.jpeg", "cat/b.PNG", "dog/deep/er/c.TIFF"]
    assert table.frame["label"].tolist() == ["cat", "cat", "dog"]
    assert table.paths[0] == tmp_path / "images/cat/a.jpeg"
    assert set(table.frame["split"]) == {"oof"}


def test_images_of_a_folder_that_cannot_be_listed_are_not_left_out(
    tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "images", "cat/a.png", "cat/more/b.png", "dog/c.png")
    scan = os.scandir

    def scandir(folder: Any) -> Any:
        if Path(folder).name == "more":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return scan(folder)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        with pytest.raises(
            DataError, match=r"^\S+/cat/more: cannot be listed: Permission denied; mend its perm"
        ):
            load("images")

    def listdir(folder: Any) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(folder))

    monkeypatch.setattr(os, "listdir", listdir)
    with pytest.raises(
        DataError, match=r"^\S+/images: cannot be listed: Input/output error; mend its permissions"
    ):
        load("images")


def test_folder_errors(tmp_path: Path, load: Load) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder; expected one folder a class"):
        load("nowhere")
    (tmp_path / "archive.zip").touch()
    with pytest.raises(DataError, match=r"archive\.zip: is a file; expected"):
        load("archive.zip")
    put(tmp_path / "flat", "a.png")
    with pytest.raises(DataError, match="flat: has no class folders; expected one folder a class"):
        load("flat")
    put(tmp_path / "one", "cat/a.png")
    with pytest.raises(DataError, match=r"classes: \['cat'\]; at least two"):
        load("one")
    (tmp_path / "one/dog").mkdir()
    with pytest.raises(DataError, match=r"one/dog: class 'dog' has no image .* or remove it"):
        load("one")
    with pytest.raises(DataError, match="one: has no column 'patient'; only a manifest"):
        load("one", group="patient")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names themselves")
def test_names_that_are_no_text(tmp_path: Path, load: Load) -> None:
    put(tmp_path / "images", "cat/a.png", "dog/ü.png")
    assert load("images").ids.tolist() == ["cat/a.png", "dog/ü.png"]
    (tmp_path / "images/cat/a.png").rename(tmp_path / "images/cat" / os.fsdecode(b"\xff.png"))
    with pytest.raises(DataError, match=r"cat/\\udcff\.png': the name is not valid UTF-8; rename it"):
        load("images")


def test_written_class_folders_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)

    def breaks():  # type: ignore[no-untyped-def]
        yield "cat", "0", pixels
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_class_folders(tmp_path / "made", breaks())
    assert list(tmp_path.iterdir()) == []

    def overtaken():  # type: ignore[no-untyped-def]
        write_class_folders(tmp_path / "made", [("first", "0", pixels)])
        yield "second", "0", pixels

    write_class_folders(tmp_path / "made", overtaken())
    assert [path.name for path in tmp_path.rglob("*")] == ["made", "first", "0.png"]
    (tmp_path / "taken").touch()
    with pytest.raises(NotADirectoryError):
        write_class_folders(tmp_path / "taken", [("cat", "0", pixels)])


# ---------------------------------------------------------------------- digits


def test_digits_are_the_digits_of_scikit_learn(load: Load) -> None:
    from sklearn.datasets import load_digits

    table = load("digits")
    data = load_digits()
    assert len(table) == 1797
    assert table.classes == tuple("0123456789")
    for i in (0, 700, 1796):
        row = table.frame[table.frame["id"] == f"{data.target[i]}/{i:04d}.png"].iloc[0]
        pixels = np.asarray(Image.open(row["path"]))
        np.testing.assert_array_equal(pixels, np.rint(data.images[i] * 255 / 16))


def test_digits_are_written_once(tmp_path: Path, load: Load) -> None:
    path = load("digits").paths[0]
    before = path.stat()
    assert load("digits").paths[0].stat() == before


def test_digits_that_cannot_be_written(tmp_path: Path, load: Load) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(DataError, match=r"cache/digits: the digits cannot be written: .*choose another"):
        load("digits")


# ---------------------------------------------------------------------- the test split


@pytest.fixture
def images(tmp_path: Path) -> Path:
    put(tmp_path / "images", *[f"{name}/{i:02d}.png" for name in ("cat", "dog") for i in range(20)])
    return tmp_path


def test_no_test_split_unless_asked_for(images: Path, load: Load) -> None:
    assert len(load("images").test) == 0


def test_a_share_is_stratified_and_seeded(images: Path, load: Load) -> None:
    table = load("images", test=0.25, seed=3)
    assert np.bincount(table.test.labels).tolist() == [5, 5]
    assert len(table) == 40
    assert load("images", test=0.25, seed=3).test.ids.tolist() == table.test.ids.tolist()
    assert load("images", test=0.25, seed=4).test.ids.tolist() != table.test.ids.tolist()


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 20])
def test_a_share_has_to_be_one(images: Path, load: Load, share: float) -> None:
    with pytest.raises(DataError, match="expected a share between 0 and 1"):
        load("images", test=share)


def test_a_second_folder_is_the_test_split(images: Path, load: Load) -> None:
    put(images / "other", "cat/new.png", "dog/newer.png")
    table = load("images", test="other")
    assert table.test.ids.tolist() == ["cat/new.png", "dog/newer.png"]
    assert len(table.oof) == 40
    put(images / "other", "cat/00.png")
    assert load("images", test="other").test.ids.tolist()[0] == "test/cat/00.png"
    put(images / "other", "cow/moo.png")
    with pytest.raises(DataError, match=r"other/cow/moo\.png: label 'cow' is not among the training classes"):
        load("images", test="other")


def test_only_some_sources_have_an_official_test_part(images: Path, load: Load) -> None:
    with pytest.raises(DataError, match="images: has no official test part; give test as a share or a path"):
        load("images", test="official")
