"""Copies: the same picture saved otherwise is found, another picture is not; folds and splits keep copies together."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from ensembler.data import load_table
from ensembler.data.cache import build_cache
from ensembler.data.decode import load_pixels
from ensembler.data.duplicates import Duplicates, Sets, find_duplicates
from ensembler.data.likeness import close_pairs, hashes
from ensembler.errors import DataError
from ensembler.folds import make_folds

CLOTHING = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "clothing" / "train"


def scene(seed: int, size: int = 160) -> Image.Image:
    """A made photograph: soft ground, a dozen shapes, a little noise."""
    draw = np.random.default_rng(seed)
    ground = draw.integers(0, 256, (4, 4, 3), np.uint8)
    picture = Image.fromarray(ground).resize((size, size), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for _ in range(12):
        x, y, w, h = (int(v) for v in draw.integers(0, size, 4) // np.array([1, 1, 3, 3]))
        box, colour = (x, y, x + w + 4, y + h + 4), tuple(draw.integers(0, 256, 3).tolist())
        (pen.ellipse if draw.random() < 0.5 else pen.rectangle)(box, fill=colour)
    noisy = np.asarray(picture, np.int16) + draw.normal(0, 4, (size, size, 3)).astype(np.int16)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def saved_as_jpeg(picture: Image.Image, quality: int = 40) -> Image.Image:
    with io.BytesIO() as buffer:
        picture.save(buffer, "JPEG", quality=quality)
        return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def cropped(picture: Image.Image, share: float) -> Image.Image:
    w, h = picture.size
    return picture.crop((int(w * share), int(h * share / 2), w, h))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg": saved_as_jpeg,
    "smaller": lambda p: p.resize((p.width // 2, p.height // 2), Image.Resampling.BILINEAR),
    "stretched": lambda p: p.resize((p.width * 2, p.height)),
    "brighter": lambda p: ImageEnhance.Brightness(p).enhance(1.25),
    "darker": lambda p: ImageEnhance.Brightness(p).enhance(0.7),
    "flatter": lambda p: ImageEnhance.Contrast(p).enhance(0.7),
    "cropped": lambda p: cropped(p, 0.01),
    "mirrored": ImageOps.mirror,
    "blurred": lambda p: p.filter(ImageFilter.GaussianBlur(1)),
}


def save(root: Path, name: str, picture: Image.Image, **options: int) -> None:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file, **options)


def copies_in(root: Path, test: str | float | None = None, size: int = 64) -> Duplicates:
    table = load_table("images", test=test, base_dir=root, cache_dir=root / "cache")
    return find_duplicates(build_cache(table, size, root / "cache"))


def named(copies: Duplicates) -> list[set[str]]:
    ids = copies.table.ids
    return [{str(ids[row]) for row in found} for found in copies.sets]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for i in range(24):
        save(tmp_path / "images", f"{'ab'[i % 2]}/{i:02d}.png", scene(i))
    return tmp_path


def test_different_pictures_are_not_copies(root: Path) -> None:
    assert not copies_in(root).sets


@pytest.mark.parametrize("change", CHANGES)
def test_a_picture_that_was_saved_otherwise_is_found(root: Path, change: str) -> None:
    for i in range(0, 24, 4):
        save(root / "images", f"a/{i:02d}-again.png", CHANGES[change](scene(i)))
    assert named(copies_in(root)) == [{f"a/{i:02d}.png", f"a/{i:02d}-again.png"} for i in range(0, 24, 4)]


@pytest.mark.parametrize("size", [32, 224])
def test_whatever_the_size_that_networks_see(root: Path, size: int) -> None:
    save(root / "images", "b/again.jpg", scene(3), quality=50)
    assert named(copies_in(root, size=size)) == [{"b/03.png", "b/again.jpg"}]


def test_plain_pictures_are_not_copies_of_each_other_unless_their_bytes_are(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for i in range(12):
        shade = np.full((40, 40, 3), 20 * i, np.uint8) + draw.integers(0, 3, (40, 40, 3), np.uint8)
        save(tmp_path / "images", f"{'ab'[i % 2]}/{i:02d}.png", Image.fromarray(shade))
    save(tmp_path / "images", "a/white.png", Image.new("RGB", (40, 40), "white"))
    save(tmp_path / "images", "b/white.png", Image.new("RGB", (40, 40), "white"))
    assert named(copies_in(tmp_path)) == [{"a/white.png", "b/white.png"}]


def test_the_same_shape_in_another_colour_is_another_picture(tmp_path: Path) -> None:
    for i, colour in enumerate(("red", "green", "blue", "black", "orange", "gray")):
        picture = Image.new("RGB", (80, 80), "white")
        ImageDraw.Draw(picture).polygon([(10, 70), (40, 10), (70, 70)], fill=colour)
        save(tmp_path / "images", f"{'ab'[i % 2]}/{i}.png", picture)
    pairs = {frozenset(found) for found in named(copies_in(tmp_path))}
    assert not any({"a/0.png", "b/1.png"} <= pair or {"b/1.png", "a/2.png"} <= pair for pair in pairs)


def test_no_two_digits_are_copies(tmp_path: Path) -> None:
    table = load_table("digits", base_dir=tmp_path, cache_dir=tmp_path)
    for size in (32, 64):
        assert not find_duplicates(build_cache(table, size, tmp_path)).sets


@pytest.mark.skipif(not CLOTHING.is_dir(), reason="no ../shared/data/clothing")
@pytest.mark.parametrize("change", CHANGES)
def test_photographs_that_were_saved_otherwise_are_found(tmp_path: Path, change: str) -> None:
    files = sorted(CLOTHING.glob("*/*"))[::60]
    for i, file in enumerate(files):
        with Image.open(file) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
        save(tmp_path / "images", f"{'ab'[i % 2]}/{i}.jpg", picture, quality=95)
        save(tmp_path / "images", f"{'ab'[i % 2]}/{i}-again.jpg", CHANGES[change](picture), quality=85)
    found = named(copies_in(tmp_path, size=96))
    right = [{f"{'ab'[i % 2]}/{i}.jpg", f"{'ab'[i % 2]}/{i}-again.jpg"} for i in range(len(files))]
    assert not [pair for pair in found if pair not in right], "two photographs are not the same"
    assert len(found) >= 0.9 * len(right)


# ---------------------------------------------------------------------- hashes


def test_pairs_by_matrix_product_are_those_of_counting_bits() -> None:
    draw = np.random.default_rng(0)
    bits = draw.integers(0, 256, (300, 8), np.uint8)
    bits[200:] = bits[:100] ^ np.packbits(draw.random((100, 64)) < 0.1, axis=1)
    apart = np.unpackbits(bits[:, None] ^ bits[None], axis=2).sum(axis=2)
    expected = {(i, j) for i in range(300) for j in range(i + 1, 300) if apart[i, j] <= 12}
    found = {tuple(pair) for tile in close_pairs(bits, mirrored=False) for pair in tile.tolist()}
    assert found == expected
    assert len(found) > 50


def test_hashes_are_made_once_and_kept_beside_the_pixels(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = load_table("images", base_dir=root, cache_dir=root / "cache")
    pixels = build_cache(table, 64, root / "cache").oof
    bits, known = hashes(pixels)
    assert bits.shape == (24, 8)
    assert known.all()
    monkeypatch.setattr("ensembler.data.likeness._hash_block", None)
    assert (hashes(pixels)[0] == bits).all()


def test_a_damaged_file_of_hashes_is_made_anew(root: Path) -> None:
    table = load_table("images", base_dir=root, cache_dir=root / "cache")
    pixels = build_cache(table, 64, root / "cache").oof
    bits = hashes(pixels)[0].copy()
    (kept,) = root.glob("cache/*.hashes*.npy")
    for damage in (b"", b"no array", kept.read_bytes()[:100]):
        kept.write_bytes(damage)
        assert (hashes(pixels)[0] == bits).all()


def test_a_mirrored_picture_has_the_hash_that_the_search_expects(tmp_path: Path) -> None:
    pixels = np.stack([load_pixels(scene(i), 64) for i in range(8)])
    np.save(tmp_path / "one.npy", np.concatenate([pixels, pixels[:, :, ::-1]]))
    bits = hashes(tmp_path / "one.npy")[0]
    found = {tuple(pair) for tile in close_pairs(bits, mirrored=True) for pair in tile.tolist()}
    assert {(i, i + 8) for i in range(8)} <= found


# ---------------------------------------------------------------------- sets, groups, folds


def test_sets_are_connected_components() -> None:
    sets = Sets(8)
    sets.join([(5, 6), (0, 2), (2, 7), (6, 5)])
    assert sets.members() == ((0, 2, 7), (5, 6))
    assert sets.roots().tolist() == [0, 1, 0, 3, 4, 5, 5, 0]


def test_copies_are_in_one_fold_and_the_folds_stay_even(root: Path) -> None:
    for i in range(8):
        save(root / "images", f"{'ab'[i % 2]}/{i:02d}-again.jpg", scene(i), quality=60)
    copies = copies_in(root)
    groups = copies.groups()
    assert groups is not None
    oof = copies.table.oof
    for seed in range(5):
        folds = make_folds(oof.labels, 4, seed, groups=groups)
        for found in copies.within_training:
            rows = list(found)
            assert len(set(folds.assignment[rows])) == 1
            for fold in folds:
                parts = (fold.train, fold.monitor, fold.holdout)
                assert sum(bool(np.isin(rows, part).any()) for part in parts) == 1
        _, first = np.unique(np.where(groups == "", oof.ids.astype(object), groups), return_index=True)
        counts = np.bincount(folds.assignment[first], minlength=4)
        assert counts.max() - counts.min() <= 2


def test_without_copies_the_folds_are_what_they_were(root: Path) -> None:
    copies = copies_in(root)
    assert copies.groups() is None
    copies = with_groups(root, [f"g{i // 2}" for i in range(24)])
    assert copies.groups() is not None
    assert list(map(str, copies.groups())) == copies.table.oof.groups.tolist()  # type: ignore[arg-type, union-attr]


def with_groups(root: Path, groups: list[str], fold: NDArray[np.int64] | None = None) -> Duplicates:
    names = sorted(str(p.relative_to(root)) for p in (root / "images").rglob("*.*"))
    rows = ["path,label,group" + (",fold" if fold is not None else "")]
    for i, name in enumerate(names):
        given = groups[i] if i < len(groups) else f"last {i}"
        rows.append(f"{name},{name.split('/')[1]},{given}" + (f",{fold[i]}" if fold is not None else ""))
    (root / "list.csv").write_text("\n".join(rows))
    table = load_table("list.csv", base_dir=root, cache_dir=root / "cache")
    return find_duplicates(build_cache(table, 64, root / "cache"))


def test_copies_join_the_groups_that_there_are(root: Path) -> None:
    for name, seed in (("a/00-again.png", 2), ("a/02-again.png", 4)):
        save(root / "images", name, scene(seed).resize((90, 90)))
    copies = with_groups(root, [f"g{i}" for i in range(26)])
    groups = dict(zip(copies.table.oof.ids.tolist(), copies.groups().tolist(), strict=True))  # type: ignore[union-attr]
    own = dict(zip(copies.table.oof.ids.tolist(), copies.table.oof.groups.tolist(), strict=True))  # type: ignore[union-attr]
    together = [{"00-again", "02"}, {"02-again", "04"}]
    for pair in together:
        assert len({groups[i] for i in groups if Path(i).stem in pair}) == 1
    others = [i for i in groups if not any(Path(i).stem in pair for pair in together)]
    assert all(groups[i] == own[i] for i in others)
    assert set(groups.values()) <= set(own.values())


def test_given_folds_are_kept_and_copies_across_them_counted(root: Path) -> None:
    save(root / "images", "b/01-again.png", scene(1).resize((90, 90)))
    copies = with_groups(root, [f"g{i}" for i in range(25)], np.arange(25) % 3)
    ids = [Path(i).stem for i in copies.table.ids.tolist()]
    apart = (ids.index("01") % 3) != (ids.index("01-again") % 3)
    assert copies.separated() == apart
    make_folds(
        copies.table.oof.labels, 3, groups=copies.groups(), predefined=copies.table.oof.fold
    )  # what the user gave is not refused


def test_a_leak_is_refused_with_names_and_ways_out(root: Path) -> None:
    save(root / "held", "a/kept.jpg", scene(4), quality=50)
    save(root / "held", "b/new.png", scene(100))
    copies = copies_in(root, test="held")
    assert copies.leaked == ["a/kept.jpg"]
    with pytest.raises(DataError) as caught:
        copies.refuse_leaks()
    message = str(caught.value)
    assert "1 of 2 test images" in message
    assert "a/kept.jpg = a/04.png (same picture)" in message
    assert "data.leaks: drop" in message
    assert "data.leaks: allow" in message


def test_no_leak_is_no_error(root: Path) -> None:
    save(root / "held", "a/new.png", scene(100))
    copies = copies_in(root, test="held")
    copies.refuse_leaks()
    assert copies.leaked == []
