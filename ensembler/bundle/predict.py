"""`ensembler predict`: files and folders in, a table out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..atomic import write_file
from ..data.decode import load_pixels
from ..data.folder import EXTENSIONS
from ..errors import DataError, UnreadableImageError
from .runtime import CHUNK, Bundle


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The files named, and every image file below the folders named, sorted.

    Raises:
        DataError: a path does not exist, or there is no image at all.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{path}: no such file or folder; give images or folders of images")
    if not found:
        raise DataError(
            f"{', '.join(map(str, paths))}: no image files; expected {', '.join(sorted(EXTENSIONS))}"
        )
    return found


def predict_files(bundle_path: Path, paths: Sequence[Path], output: Path | None) -> None:
    """Writes path, label, confidence and one column a class as CSV, an image a row.

    Unreadable images are named on standard error and left out.

    Raises:
        DataError: not one image could be read.
        BundleError: see `Bundle.load`.
    """
    files = find_images(paths)
    bundle = Bundle.load(bundle_path)
    kept: list[Path] = []
    parts = []
    for start in range(0, len(files), CHUNK):
        pixels = []
        for file in files[start : start + CHUNK]:
            try:
                pixels.append(load_pixels(file, bundle.image_size))
                kept.append(file)
            except UnreadableImageError as error:
                print(f"warning: left out: {error}", file=sys.stderr)
        if pixels:
            parts.append(bundle.predict_pixels(np.stack(pixels)))
    if not parts:
        raise DataError(f"none of {len(files)} images can be read; see the warnings above")
    text = bundle.frame(kept, np.concatenate(parts)).to_csv(index=False, float_format="%.7f")
    if output is None:
        sys.stdout.write(text)
    else:
        write_file(output, lambda stream: stream.write(text.encode()))
        print(f"{len(kept)} images: {output}", file=sys.stderr)
