"""Whether two decoded pictures are the same one: saved again, scaled, brightened, cropped a little or mirrored.

Two steps. A hash of 64 bits, the signs of low frequencies, is held against all other hashes by matrix products, and
leaves few pairs. Those are aligned and compared pixel by pixel on small thumbnails, in colour and in detail, because
pictures of different things (two T-shirts on a white wall) may well share their low frequencies.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..atomic import write_file

#: Raise it whenever the same pixels would give other hashes.
HASH_VERSION = 1

#: Side of the thumbnails, in pixels.
SIDE = 32

#: Bits of two hashes that may differ for the pair to be looked at.
MAX_DISTANCE = 12

#: Least correlation of the aligned thumbnails: of their colours, and of what is left when blurred copies are taken off.
#: Of 3,068 photographs of clothing one pair passes, and it is the same photograph twice.
MIN_COLOUR, MIN_DETAIL = 0.97, 0.9

#: Shorter side, in pixels, below which a file holds so little that its detail has to agree better; and below which no
#: likeness proves anything: two digits of 8 x 8 pixels, written by different hands, reach 0.998 and 0.97.
SMALL_SIDE, MIN_DETAIL_SMALL, LEAST_SIDE = 64, 0.97, 16

#: Standard deviation of the grey thumbnail, of 255, below which a picture shows nothing that could be recognised.
MIN_CONTRAST = 3.0

#: How far one picture may be cropped, moved or stretched against the other, as a share of its side.
MAX_WARP = 0.12

_BLOCK = 256
_TILE = 4096


def _frequencies() -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Rows 0 to 8 of the cosine transform (9, SIDE), and positions of the 64 lowest of its 81 products but the mean."""
    x = (np.arange(SIDE) + 0.5) * np.pi / SIDE
    basis = np.cos(np.arange(9)[:, None] * x).astype(np.float32)
    u, v = np.divmod(np.arange(81), 9)
    return basis, np.sort(np.argsort(u**2 + v**2, kind="stable")[1:65])


_BASIS, _LOWEST = _frequencies()

#: +1 and -1: what mirroring a picture left to right does to the 64 coefficients.
_MIRROR = np.where(_LOWEST % 9 % 2, -1, 1).astype(np.float32)


# ---------------------------------------------------------------------- hashes


def hashes(pixels: Path, workers: int | None = None) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The hashes of the images in a pixel file; kept beside it, so that they are made once.

    Args:
        pixels: `.npy`, uint8 (n, size, size, 3).
        workers: threads; one a core by default.

    Returns:
        uint8 (n, 8), 64 bits each; and bool (n,), whether the picture has enough contrast to be recognised.
    """
    images = np.load(pixels, mmap_mode="r")
    kept = pixels.with_suffix(f".hashes{HASH_VERSION}.npy")
    try:
        found = np.load(kept)
    except (OSError, EOFError, ValueError):
        found = None
    if found is None or found.dtype != np.uint8 or found.shape != (len(images), 9):
        starts = range(0, len(images), _BLOCK)
        with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
            parts = list(pool.map(lambda start: _hash_block(images[start : start + _BLOCK]), starts))
        found = np.concatenate(parts)
        with io.BytesIO() as buffer:
            np.save(buffer, found)
            write_file(kept, lambda stream: stream.write(buffer.getvalue()))
    return found[:, :8], found[:, 8] > 0


def _hash_block(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grey = np.stack([_small(image, "L") for image in images]).astype(np.float32)
    coefficients = (_BASIS @ grey @ _BASIS.T).reshape(len(grey), 81)[:, _LOWEST]
    bits = np.packbits(coefficients > 0, axis=1)
    plain = grey.std(axis=(1, 2)) < MIN_CONTRAST
    return np.column_stack([bits, ~plain]).astype(np.uint8)


def _small(image: NDArray[np.uint8], mode: str) -> NDArray[np.uint8]:
    picture = Image.fromarray(image)
    if mode != "RGB":
        picture = picture.convert(mode)
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0))


def thumbnails(images: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """n pictures of uint8 (size, size, 3) as float32 (n, SIDE, SIDE, 3), antialiased."""
    return np.stack([_small(image, "RGB") for image in images]).astype(np.float32)


def close_pairs(bits: NDArray[np.uint8], *, mirrored: bool) -> Iterator[NDArray[np.int64]]:
    """Pairs i < j whose hashes differ in at most MAX_DISTANCE bits, found by matrix products of +1 and -1.

    Args:
        bits: uint8 (n, 8).
        mirrored: look for pairs of which one is the mirror image of the other instead.

    Yields:
        int64 (m, 2), a tile of the upper triangle at a time.
    """
    signs = np.unpackbits(bits, axis=1).astype(np.float32) * 2 - 1
    turned = signs * _MIRROR if mirrored else signs
    least = 64 - 2 * MAX_DISTANCE - 0.5
    for top in range(0, len(signs), _TILE):
        for left in range(top, len(signs), _TILE):
            product = turned[top : top + _TILE] @ signs[left : left + _TILE].T
            flat = np.flatnonzero(product > least)
            if len(flat):
                i, j = np.divmod(flat, product.shape[1])
                pairs = np.column_stack([i + top, j + left])
                yield pairs[pairs[:, 0] < pairs[:, 1]]


# ---------------------------------------------------------------------- pixel by pixel


def likeness(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much the pictures of each pair have in common, once they are aligned; whatever their brightness and contrast.

    Args:
        first, second: float32 (m, SIDE, SIDE, 3).

    Returns:
        float32 (m, 2): correlation of the colours, and of the detail; 1 is the same picture.
    """
    aligned = _aligned(first.mean(axis=3), second.mean(axis=3))
    moved = _warp(first, aligned)
    inner = slice(3, -3)  # what a crop has cut off is not held against it
    a, b = moved[:, inner, inner], second[:, inner, inner]
    grey_a, grey_b = moved.mean(axis=3), second.mean(axis=3)
    detail_a, detail_b = (
        (grey - _blurred(grey))[:, inner, inner].reshape(len(grey), -1) for grey in (grey_a, grey_b)
    )
    return np.column_stack(
        [_correlation(a.reshape(len(a), -1), b.reshape(len(b), -1)), _correlation(detail_a, detail_b)]
    )


def same(likenesses: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Bool (m,): which pairs are the same picture, if their files are large enough; `likenesses` is of `likeness`."""
    return (likenesses[:, 0] >= MIN_COLOUR) & (likenesses[:, 1] >= MIN_DETAIL)


def proves(detail: float, shorter_side: int) -> bool:
    """Whether so much common detail is enough for files of this size, in pixels."""
    if shorter_side < LEAST_SIDE:
        return False
    return shorter_side >= SMALL_SIDE or detail >= MIN_DETAIL_SMALL


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    norm = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.asarray((a * b).sum(axis=1) / np.maximum(norm, 1e-6), np.float32)


def _blurred(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each (SIDE, SIDE) picture under a binomial filter five pixels wide."""
    weights = np.array([1, 4, 6, 4, 1], np.float32) / 16
    for axis in (1, 2):
        padded: NDArray[np.float32] = np.pad(
            grey, [(0, 0)] + [(2, 2) if axis == k else (0, 0) for k in (1, 2)], mode="edge"
        )
        windows = np.lib.stride_tricks.sliding_window_view(padded, 5, axis=axis)
        grey = np.asarray(windows @ weights, np.float32)
    return grey


def _aligned(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shift and stretch of each axis that lays the first picture of each pair over the second.

    Gauss and Newton on the squared difference of standardised grey pictures (Lucas and Kanade 1981, with a stretch of
    each axis beside the shift, because a crop that is squashed to a square stretches both).

    Args:
        first, second: float32 (m, SIDE, SIDE).

    Returns:
        float32 (m, 4): shift and stretch down, shift and stretch across, in units where the picture goes from -1 to 1;
        zeros where a pair asks for more than MAX_WARP.
    """
    target = _standardised(_blurred(second))
    moving = _standardised(_blurred(first))
    place = np.linspace(-1, 1, SIDE, dtype=np.float32)
    warp = np.zeros((len(first), 4), np.float32)
    for _ in range(4):
        now = _warp(moving[..., None], warp)[..., 0]
        down, across = np.gradient(now, place, axis=1), np.gradient(now, place, axis=2)
        slopes = np.stack([down, down * place[:, None], across, across * place], axis=1)
        slopes = slopes[:, :, 2:-2, 2:-2].reshape(len(now), 4, -1)
        rest = (target - now)[:, 2:-2, 2:-2].reshape(len(now), -1, 1)
        normal = slopes @ slopes.transpose(0, 2, 1) + 1e-2 * np.eye(4, dtype=np.float32)
        warp += np.linalg.solve(normal, slopes @ rest)[..., 0]
        warp = np.clip(warp, -2 * MAX_WARP, 2 * MAX_WARP)
    warp[np.abs(warp).max(axis=1) >= 2 * MAX_WARP] = 0
    return warp


def _standardised(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = grey - grey.mean(axis=(1, 2), keepdims=True)
    return np.asarray(centred / np.maximum(centred.std(axis=(1, 2), keepdims=True), 1e-3), np.float32)


def _warp(pictures: NDArray[np.float32], warp: NDArray[np.float32]) -> NDArray[np.float32]:
    """Float32 (m, SIDE, SIDE, c), each sampled where its warp (m, 4) says, linearly between pixels."""
    place = np.linspace(-1, 1, SIDE, dtype=np.float32)
    scale = (SIDE - 1) / 2
    matrices = []
    for shift, stretch in ((warp[:, 0], warp[:, 1]), (warp[:, 2], warp[:, 3])):
        at = place * (1 + stretch[:, None]) + shift[:, None]
        at = np.clip((at + 1) * scale, 0, SIDE - 1)
        matrices.append(np.maximum(1 - np.abs(at[:, :, None] - np.arange(SIDE, dtype=np.float32)), 0))
    down, across = matrices
    moved = down @ pictures.reshape(len(pictures), SIDE, -1)
    moved = moved.reshape(pictures.shape).transpose(0, 2, 1, 3).reshape(len(pictures), SIDE, -1)
    moved = across @ moved
    shape = (len(pictures), SIDE, SIDE, pictures.shape[3])
    return np.asarray(moved.reshape(shape).transpose(0, 2, 1, 3), np.float32)
