"""New images through a bundle, looked at as the rows of its reference were."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ..images import decoded, find_images
from ..progress import Progress
from ..runtime import CHUNK, Bundle
from .features import Sample, concatenate, sample_of

#: Fewer images say nothing.
MIN_IMAGES = 20


@dataclass(frozen=True, eq=False)
class Batch:
    """New images.

    Attributes:
        paths: of those that could be read.
        sample: what is looked at.
        proba: float32 (images, classes), the bundle's answers.
        unreadable: path and reason of the others.
    """

    paths: list[Path]
    sample: Sample
    proba: NDArray[np.float32]
    unreadable: list[tuple[Path, str]]


def observe_files(bundle: Bundle, paths: list[Path], folds: int) -> Batch:
    """Decodes images and asks the bundle; of an image no more is kept than what is looked at.

    Args:
        bundle: loaded.
        paths: images and folders of images.
        folds: of the reference.

    Raises:
        DataError: too few can be read.
    """
    kept: list[Path] = []
    unreadable: list[tuple[Path, str]] = []
    parts: list[tuple[Sample, NDArray[np.float32]]] = []
    with Progress(None) as progress:
        for chunk in decoded(find_images(paths), bundle.image_size, chunk=CHUNK):
            unreadable += chunk.unreadable
            kept += chunk.paths
            if len(chunk.pixels):
                parts.append(observe(bundle, chunk.pixels, folds))
            progress.add(len(chunk.paths) + len(chunk.unreadable))
    if len(kept) < MIN_IMAGES:
        raise DataError(
            f"{', '.join(map(str, paths))}: {len(kept)} images can be read; give {MIN_IMAGES} or more, fewer do not "
            "tell drift from chance"
        )
    return Batch(kept, concatenate(s for s, _ in parts), np.concatenate([p for _, p in parts]), unreadable)


def observe(bundle: Bundle, pixels: NDArray[np.uint8], folds: int) -> tuple[Sample, NDArray[np.float32]]:
    """What is looked at, and the bundle's answers float32 (images, classes).

    Args:
        bundle: loaded.
        pixels: uint8 (images, size, size, 3).
        folds: of the reference; each image is looked at through the models of one fold, or, where it is 0, of all.
    """
    said = bundle.fold_probabilities(pixels)
    votes = bundle.votes(said) if folds == 0 else one_fold(said, fold_of(pixels, said.shape[1]))
    return sample_of(pixels, votes), bundle.combine(said)


def one_fold(said: NDArray[np.float32], fold: NDArray[np.int64]) -> NDArray[np.float32]:
    """(members, folds, images, classes) to (members, images, classes): of each image its own fold's answer."""
    return said[:, fold, np.arange(said.shape[2])]


def fold_of(pixels: NDArray[np.uint8], n_folds: int) -> NDArray[np.int64]:
    """A fold for each image, drawn by its pixels: the same whatever comes before it."""
    return np.array([_number(image) % n_folds for image in pixels], np.int64)


def _number(image: NDArray[np.uint8]) -> int:
    return int.from_bytes(hashlib.blake2b(image.tobytes(), digest_size=8).digest(), "big")


def reference_sample(
    bundle: Bundle, chunks: Iterable[tuple[NDArray[np.uint8], NDArray[np.int64] | None]]
) -> Sample:
    """Rows of a reference as the bundle itself answers.

    Args:
        bundle: loaded.
        chunks: pixels, and of each image the fold that holds it out; None where all models answer together.
    """
    parts = []
    for pixels, fold in chunks:
        said = bundle.fold_probabilities(pixels)
        parts.append(sample_of(pixels, bundle.votes(said) if fold is None else one_fold(said, fold)))
    return concatenate(parts)
