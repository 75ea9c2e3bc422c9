"""Files that are not what they seem, or not like the others: by their bytes and headers, without decoding."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ...errors import UnreadableImageError
from ..decode import Header, header, read_plain
from ..folder import EXTENSIONS
from .findings import Finding

#: Extensions of each format.
NAMES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}

_FORMAT = {extension: kind for kind, extensions in NAMES.items() for extension in extensions}

#: Longer side over shorter side beyond which squashing to a square distorts what is seen.
MAX_ASPECT = 4.0

#: A picture that is enlarged by more than this has less to show than the network could see.
MAX_ENLARGED = 4.0

#: Pixels beyond which one file slows the decoding of all.
MAX_PIXELS = 50_000_000


class Look(NamedTuple):
    """What a file is: its length and what its header says."""

    n_bytes: int
    header: Header


def look_at(paths: Sequence[Path], progress: Callable[[int, int], None] | None = None) -> list[Look | None]:
    """The length and header of each file; None where it does not open.

    Args:
        paths: read once each, in threads.
        progress: called in this thread with the number of files read and of all.
    """
    looks: list[Look | None] = []
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for found in pool.map(_look, paths):
            looks.append(found)
            if progress is not None:
                progress(len(looks), len(paths))
    return looks


def _look(path: Path) -> Look | None:
    try:
        data = read_plain(path)
        return Look(len(data), header(data, name=str(path)))
    except (OSError, UnreadableImageError):
        return None  # `build_cache` has listed it with its reason


def odd_files(ids: Sequence[str], looks: Sequence[Look | None], image_size: int) -> list[Finding]:
    """Findings on names, formats and sizes.

    Args:
        ids: of the images.
        looks: of `look_at`, in the same order.
        image_size: side to which images are decoded.
    """
    named, moving, colours, deep, small, narrow, large = [list[str]() for _ in range(7)]
    for image_id, found in zip(ids, looks, strict=True):
        if found is None:
            continue
        about = found.header
        width, height = about.width, about.height
        meant = _FORMAT.get(Path(image_id).suffix.lower())
        if meant is not None and meant != about.format:
            named.append(f"{image_id}: is a {about.format} file")
        if about.animated:
            moving.append(f"{image_id}: {about.format}")
        if about.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
            colours.append(f"{image_id}: {about.mode}")
        if about.bits > 8:
            deep.append(f"{image_id}: {about.bits} bits")
        if min(width, height) * MAX_ENLARGED < image_size:
            small.append(f"{image_id}: {width} x {height}")
        if max(width, height) > MAX_ASPECT * min(width, height):
            narrow.append(f"{image_id}: {width} x {height}")
        if width * height > MAX_PIXELS:
            large.append(f"{image_id}: {width} x {height}")
    n = len(ids)
    possible = (
        Finding("warning", "extension", f"{len(named)} of {n} files are named like another format", tuple(named),
                "they are read by their content; rename them, and ask where they come from"),
        Finding("warning", "animated", f"{len(moving)} of {n} files are animations", tuple(moving),
                "only the first frame is seen; save the right frame, or leave them out"),
        Finding("note", "colours", f"{len(colours)} of {n} files are not RGB or grey", tuple(colours),
                "they are converted without a colour profile; convert them yourself where colours matter"),
        Finding("note", "deep", f"{len(deep)} of {n} files have more than 8 bits a channel", tuple(deep),
                "they are scaled to 8 bits by their full scale; where dark detail matters, stretch them first"),
        Finding("warning", "small", f"{len(small)} of {n} images are enlarged more than {MAX_ENLARGED:.0f} times",
                tuple(small), "lower data.image_size, or look whether they are thumbnails by mistake"),
        Finding("note", "narrow", f"{len(narrow)} of {n} images are over {MAX_ASPECT:.0f} times longer than wide",
                tuple(narrow), "they are squashed to a square; crop them to what matters"),
        Finding("note", "large", f"{len(large)} of {n} images have over {MAX_PIXELS // 10**6} million pixels",
                tuple(large), "decoding takes long and much memory; scale them once"),
    )  # fmt: skip
    return [finding for finding in possible if finding.items]


def passed_over(folder: Path, taken: Sequence[str]) -> list[Finding]:
    """Files below a folder of classes that no source has read, by their extension.

    Args:
        folder: where the class folders are.
        taken: absolute paths of the images that were read.
    """
    known, left = set(taken), list[str]()
    for parent, children, files in os.walk(folder):
        children[:] = sorted(name for name in children if not name.startswith("."))
        for name in sorted(files):
            path = Path(parent, name)
            if str(path) not in known and not name.startswith("."):
                left.append(path.relative_to(folder).as_posix())
    if not left:
        return []
    return [
        Finding(
            "note",
            "passed over",
            f"{len(left)} files below {folder.name} are not read",
            tuple(left),
            f"if they are images, convert them: {', '.join(EXTENSIONS)} are read",
        )
    ]
