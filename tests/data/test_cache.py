"""The pixel cache: decoded once, never stale, whole or absent, one file a split."""

from __future__ import annotations

import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensembler.data import cache as module
from ensembler.data import load_table
from ensembler.data.cache import DecodedImages, build_cache
from ensembler.data.decode import load_pixels
from ensembler.data.table import ImageTable
from ensembler.errors import DataError, UnreadableImageError

SIZE = 8
PHOTOGRAPHS = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "clothing" / "train"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes of six photographs, and a test folder of two."""
    draw = np.random.default_rng(0)
    for folder, n in (("images/cat", 6), ("images/dog", 6), ("held/cat", 1), ("held/dog", 1)):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(n):
            pixels = draw.integers(0, 256, (20, 30, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{i}.png")
    return tmp_path


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that were decoded, as it happens."""
    names: list[str] = []

    def counting(source: bytes, size: int, *, name: str) -> object:
        names.append(name)
        return load_pixels(source, size, name=name)

    monkeypatch.setattr(module, "load_pixels", counting)
    return names


def table_of(root: Path, test: str | None = "held") -> ImageTable:
    return load_table("images", test=test, base_dir=root, cache_dir=root / "cache")


def build(root: Path, table: ImageTable | None = None, **options: object) -> DecodedImages:
    table = table_of(root) if table is None else table
    return build_cache(table, SIZE, root / "cache", **options)  # type: ignore[arg-type]


def assert_pixels(images: DecodedImages) -> None:
    for part, path in ((images.table.oof, images.oof), (images.table.test, images.test)):
        assert path is not None
        pixels = np.load(path, mmap_mode="r")
        assert pixels.dtype == np.uint8
        assert pixels.shape == (len(part), SIZE, SIZE, 3)
        for row, source in zip(pixels, part.paths, strict=True):
            np.testing.assert_array_equal(row, load_pixels(source, SIZE))


def test_rows_are_in_table_order_and_splits_in_files_of_their_own(images: Path) -> None:
    seen: list[tuple[int, int]] = []
    result = build(images, progress=lambda done, total: seen.append((done, total)))
    assert_pixels(result)
    assert result.oof != result.test
    assert result.unreadable == ()
    assert seen == [(i, 14) for i in range(1, 15)]
    shuffled = ImageTable(table_of(images).frame.sample(frac=1, random_state=0))
    again = build(images, shuffled)
    assert_pixels(again)
    assert again.table.fingerprint == result.table.fingerprint
    assert build(images, table_of(images, test=None)).test is None


def test_the_second_time_nothing_is_decoded(images: Path, decoded: list[str]) -> None:
    first = build(images)
    assert len(decoded) == 14
    seen: list[tuple[int, int]] = []
    second = build(images, workers=1, progress=lambda done, total: seen.append((done, total)))
    assert len(decoded) == 14
    assert (second.oof, second.test) == (first.oof, first.test)
    assert seen[-1] == (14, 14)


def test_moving_or_relabelling_images_decodes_nothing(images: Path, decoded: list[str]) -> None:
    first = build(images)
    (images / "images").rename(images / "moved")
    moved = load_table("moved", test="held", base_dir=images, cache_dir=images / "cache")
    assert build(images, moved).table.fingerprint == first.table.fingerprint
    frame = moved.frame.copy()
    frame.loc[0, "label"] = "dog"
    assert build(images, ImageTable(frame)).table.fingerprint != first.table.fingerprint
    assert len(decoded) == 14


@pytest.mark.parametrize(("column", "value"), [("group", "g"), ("fold", 0), ("split", "oof"), ("id", "x")])
def test_every_column_but_the_path_is_in_the_fingerprint(images: Path, column: str, value: object) -> None:
    table = table_of(images)
    frame = table.frame.copy()
    frame.loc[slice(None) if column == "group" else frame["split"] == "oof", column] = value
    if column == "split":
        frame["split"] = "oof"
    if column == "id":
        frame["id"] = [f"x{i}" for i in range(len(frame))]
    assert build(images, ImageTable(frame)).table.fingerprint != build(images).table.fingerprint


def test_a_changed_image_is_never_served_from_the_cache(images: Path, decoded: list[str]) -> None:
    first = build(images)
    Image.new("RGB", (20, 30), "red").save(images / "images/cat/3.png")
    second = build(images)
    assert second.table.fingerprint != first.table.fingerprint
    assert second.oof != first.oof
    assert second.test == first.test
    assert_pixels(second)
    assert build_cache(table_of(images), SIZE * 2, images / "cache").oof != second.oof


def test_another_decoder_decodes_anew(
    images: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    build(images)
    monkeypatch.setattr(module, "DECODER_VERSION", 0)
    build(images)
    assert len(decoded) == 28


@pytest.mark.parametrize("harm", ["cut", "empty", "other shape", "no list", "bad list"])
def test_a_damaged_cache_is_rebuilt(images: Path, harm: str) -> None:
    path = build(images).oof
    if harm == "cut":
        os.truncate(path, path.stat().st_size - 1)
    elif harm == "empty":
        os.truncate(path, 0)
    elif harm == "other shape":
        np.save(path, np.zeros((12, SIZE, SIZE, 4), np.uint8))
    elif harm == "no list":
        path.with_suffix(".json").unlink()
    else:
        path.with_suffix(".json").write_text("[1")
    assert_pixels(build(images))


# ---------------------------------------------------------------------- unreadable images


@pytest.fixture
def damaged(images: Path) -> Path:
    (images / "images/cat/1.png").write_bytes(b"")
    (images / "images/dog/0.png").write_bytes(b"no image")
    return images


def test_unreadable_images_fail_by_name_number_and_way_out(damaged: Path) -> None:
    message = r"images/cat/1\.png: is empty; 2 of 14 images cannot be read: .*data\.unreadable: skip$"
    for _ in range(2):  # decoded, then from the cache
        with pytest.raises(UnreadableImageError, match=message):
            build(damaged)


def test_unreadable_images_can_be_skipped(damaged: Path, decoded: list[str]) -> None:
    for _ in range(2):
        result = build(damaged, unreadable="skip")
        assert [image_id for image_id, _ in result.unreadable] == ["cat/1.png", "dog/0.png"]
        assert result.unreadable[0][1] == "is empty"
        assert len(result.table.oof) == 10
        assert_pixels(result)
        assert len(decoded) == 14
    for name in ("cat/1.png", "dog/0.png"):
        (damaged / "images" / name).unlink()
    assert build(damaged).table.fingerprint == result.table.fingerprint


def test_files_that_cannot_be_opened_count_as_unreadable(images: Path) -> None:
    table = table_of(images)
    (images / "images/cat/0.png").unlink()
    (images / "held/cat/0.png").unlink()
    (images / "held/dog/0.png").write_bytes(b"")
    with pytest.raises(UnreadableImageError, match=r"cat/0\.png: No such file or directory; 3 of 14"):
        build(images, table)
    result = build(images, table, unreadable="skip")
    assert len(result.table.oof) == 11
    assert result.test is None


def test_nothing_readable_at_all(images: Path) -> None:
    table = table_of(images)
    shutil.rmtree(images / "images")
    with pytest.raises(DataError, match="none of the 12 training images can be read"):
        build(images, table, unreadable="skip")


# ---------------------------------------------------------------------- disks and neighbours


def test_a_full_disk_leaves_nothing_behind(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"cache/pixels-8-.*cannot be written: No space left on device; 0 MB"):
        build(images)
    assert {path.suffix for path in (images / "cache").iterdir()} <= {".lock"}


def test_a_cache_directory_that_cannot_be_made(images: Path) -> None:
    (images / "cache").touch()
    with pytest.raises(DataError, match=r"cannot be written: .*choose another place"):
        build(images)


@pytest.mark.parametrize("harm", ["changed", "gone"])
def test_an_image_that_changes_between_hash_and_decoding(
    images: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    victim = images / "images/cat/0.png"
    harmless = module._write_header

    def meanwhile(file: object, n: int, size: int) -> None:
        victim.write_bytes(b"other") if harm == "changed" else victim.unlink()
        harmless(file, n, size)

    monkeypatch.setattr(module, "_write_header", meanwhile)
    with pytest.raises(DataError, match=r"cat/0\.png: (changed while|went away)"):
        build(images)
    assert not list((images / "cache").glob("*.npy"))


def test_builders_at_the_same_time_decode_once(images: Path, decoded: list[str]) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: build(images, workers=1), range(4)))
    assert len({result.oof for result in results}) == 1
    assert_pixels(results[0])
    assert len(decoded) == 14


@pytest.mark.shared
def test_photographs(tmp_path: Path) -> None:
    if not PHOTOGRAPHS.is_dir():
        pytest.skip(f"{PHOTOGRAPHS} is absent")
    table = load_table(str(PHOTOGRAPHS), base_dir=tmp_path, cache_dir=tmp_path)
    some = ImageTable(table.frame[::30])
    result = build_cache(some, 96, tmp_path)
    pixels = np.load(result.oof, mmap_mode="r")
    assert len(table.classes) == 10
    assert pixels.shape == (len(some), 96, 96, 3)
    np.testing.assert_array_equal(pixels[7], load_pixels(some.paths[7], 96))
    assert 60 < pixels.mean() < 220
    assert pixels.std() > 30
