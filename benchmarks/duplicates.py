"""How many changed copies of photographs are found, how many pairs of different ones, and what the search costs.

    python benchmarks/duplicates.py FOLDER           a folder of class folders; some minutes
    python benchmarks/duplicates.py FOLDER --every 40

Every so-many-th photograph is changed in each of the ways below and decoded as a run would; a copy is found if it lands
in one set with its original. Whatever else is found among the originals is listed for a person to look at: nobody has
said that no picture is in the folder twice.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from ensembler.data import load_table
from ensembler.data.cache import build_cache
from ensembler.data.decode import decode, load_pixels
from ensembler.data.duplicates import find_duplicates
from ensembler.data.likeness import close_pairs, hashes, likeness, same, thumbnails

Change = Callable[[Image.Image], Image.Image]


def _jpeg(quality: int) -> Change:
    def change(picture: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")

    return change


def _crop(left: float, top: float, right: float, bottom: float) -> Change:
    return lambda p: p.crop(
        (int(p.width * left), int(p.height * top), int(p.width * (1 - right)), int(p.height * (1 - bottom)))
    )


CHANGES: dict[str, Change] = {
    "JPEG, quality 70": _jpeg(70),
    "JPEG, quality 30": _jpeg(30),
    "half the size": lambda p: p.resize((p.width // 2, p.height // 2), Image.Resampling.BILINEAR),
    "another aspect ratio": lambda p: p.resize((p.width, p.width)),
    "brightness x 1.3": lambda p: ImageEnhance.Brightness(p).enhance(1.3),
    "brightness x 0.6": lambda p: ImageEnhance.Brightness(p).enhance(0.6),
    "contrast x 0.7": lambda p: ImageEnhance.Contrast(p).enhance(0.7),
    "saturation x 0.5": lambda p: ImageEnhance.Color(p).enhance(0.5),
    "cropped by 2 % a side": _crop(0.02, 0.02, 0.02, 0.02),
    "cropped by 5 % a side": _crop(0.05, 0.05, 0.05, 0.05),
    "cropped by 10 % at one side": _crop(0.1, 0, 0, 0),
    "mirrored": ImageOps.mirror,
    "mirrored, JPEG, quality 50": lambda p: ImageOps.mirror(_jpeg(50)(p)),
    "turned by 3 degrees": lambda p: p.rotate(3, Image.Resampling.BICUBIC, fillcolor="white"),
}


def main() -> None:
    """Prints the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--every", type=int, default=10)
    arguments.add_argument("--size", type=int, default=96)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        cost(given.folder, given.size, Path(scratch))
        found(given.folder, given.size, given.every, Path(scratch))


def cost(folder: Path, size: int, scratch: Path) -> None:
    """Time to decode, to hash and to compare; and what is found among the originals."""
    table = load_table(str(folder.resolve()), base_dir=Path.cwd(), cache_dir=scratch)
    began = time.perf_counter()
    images = build_cache(table, size, scratch)
    decoded = time.perf_counter()
    hashes(images.oof)
    hashed = time.perf_counter()
    copies = find_duplicates(images)
    compared = time.perf_counter()
    print(
        f"{len(table):,} images at {size} px: decoded in {decoded - began:.1f} s, hashed in {hashed - decoded:.2f} s"
    )
    print(f"compared in {compared - hashed:.2f} s; {len(copies.sets)} sets of copies among them:")
    for pair in copies.pairs:
        print(f"  {table.ids[pair.first]} = {table.ids[pair.second]} ({pair.kind})")
    draw = np.random.default_rng(0)
    began = time.perf_counter()
    close = sum(
        len(tile) for tile in close_pairs(draw.integers(0, 256, (60_000, 8), np.uint8), mirrored=False)
    )
    print(
        f"60,000 random hashes against each other: {time.perf_counter() - began:.1f} s, {close} pairs to look at"
    )


def found(folder: Path, size: int, every: int, scratch: Path) -> None:
    """Share of the copies that are found after each change, and by which of the two steps the others are lost."""
    files = sorted(file for file in folder.glob("*/*") if file.is_file())[::every]
    originals = [Image.fromarray(decode(file)) for file in files]
    n = len(originals)
    plain = np.stack([load_pixels(picture, size) for picture in originals])
    print(f"\n| change of {n} photographs | found | lost by the hash | by the thumbnail |")
    print("|---|---|---|---|")
    for name, change in CHANGES.items():
        changed = np.stack([load_pixels(change(picture), size) for picture in originals])
        file = scratch / "changed.npy"
        np.save(file, np.concatenate([plain, changed]))
        (scratch / "changed.hashes1.npy").unlink(missing_ok=True)
        bits = hashes(file)[0]
        small = thumbnails(np.concatenate([plain, changed]))
        close, alike = set[int](), set[int]()
        for mirrored in (False, True):
            for tile in close_pairs(bits, mirrored=mirrored):
                pairs = tile[tile[:, 1] - tile[:, 0] == n]
                if not len(pairs):
                    continue
                close |= set(pairs[:, 0].tolist())
                first = small[pairs[:, 0]]
                is_same = same(likeness(first[:, :, ::-1] if mirrored else first, small[pairs[:, 1]]))
                alike |= set(pairs[is_same, 0].tolist())
        print(f"| {name} | {len(alike) / n:.1%} | {1 - len(close) / n:.1%} | {len(close - alike) / n:.1%} |")


if __name__ == "__main__":
    main()
