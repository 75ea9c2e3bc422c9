"""What is looked at in an image: the look of its pixels, what the members answer, and how far they disagree.

The bundle's networks may be one graph whose inner layers nobody can read, so the embedding of an image is put together
from what every bundle can tell: sixteen statistics of its pixels, which see blur, noise, light and colour, and the
members' answers as log-probabilities, which see what is in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Of the pixels, in column order.
LOOKS = (
    "red",
    "green",
    "blue",
    "spread of red",
    "spread of green",
    "spread of blue",
    "saturation",
    "dark end",
    "middle",
    "light end",
    "edges",
    "fine detail",
    "coarse detail",
    "grain",
    "red against green",
    "blue against yellow",
)

#: Least probability that is told from 0: below it, answers differ in nothing that anybody would act on.
LEAST = 1e-4

_ROWS = 64


@dataclass(frozen=True, eq=False)
class Sample:
    """Some images, as far as they are looked at.

    Attributes:
        looks: float32 (images, 16), the columns of `LOOKS`.
        proba: float32 (images, classes), the mean over the members.
        disagreement: float32 (images, members), how far each member is from that mean, as KL divergence in nats.
    """

    looks: NDArray[np.float32]
    proba: NDArray[np.float32]
    disagreement: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.looks)

    @property
    def confidence(self) -> NDArray[np.float32]:
        """(images,) of the first choice."""
        found: NDArray[np.float32] = self.proba.max(1)
        return found

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(images,) first choices."""
        return np.asarray(self.proba.argmax(1), np.int64)

    @property
    def answers(self) -> NDArray[np.float32]:
        """(images, classes), log-probabilities, centred within each image."""
        logs = np.log(np.clip(self.proba, LEAST, 1))
        return np.asarray(logs - logs.mean(1, keepdims=True), np.float32)

    def select(self, rows: NDArray[np.int64]) -> Sample:
        """Some of the images."""
        return Sample(self.looks[rows], self.proba[rows], self.disagreement[rows])


def concatenate(samples: Iterable[Sample]) -> Sample:
    """All images of several samples."""
    parts = list(samples)
    return Sample(
        *(np.concatenate([getattr(p, name) for p in parts]) for name in ("looks", "proba", "disagreement"))
    )


def sample_of(pixels: NDArray[np.uint8], votes: NDArray[np.float32]) -> Sample:
    """What is looked at.

    Answers are rounded to float16, as those of the reference are in its file: two roundings of one number would look
    like two numbers.

    Args:
        pixels: uint8 (images, size, size, 3).
        votes: float32 (members, images, classes), what each member says.
    """
    said = votes.astype(np.float16).astype(np.float32)
    mean = said.mean(0)
    away = np.clip(said, LEAST, 1) * np.log(np.clip(said, LEAST, 1) / np.clip(mean, LEAST, 1))
    return Sample(
        looks_of(pixels),
        mean.astype(np.float16).astype(np.float32),
        away.sum(-1).T.astype(np.float16).astype(np.float32),
    )


def looks_of(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32 (images, 16) of uint8 (images, size, size, 3); see `LOOKS`."""
    parts = [_looks(pixels[i : i + _ROWS]) for i in range(0, len(pixels), _ROWS)]
    return np.concatenate(parts) if parts else np.empty((0, len(LOOKS)), np.float32)


def _looks(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    images = pixels.astype(np.float32) / 255
    flat = images.reshape(len(images), -1, 3)
    grey = images.mean(-1)
    saturation = (flat.max(-1) - flat.min(-1)).mean(1)
    ends = np.percentile(grey.reshape(len(grey), -1), (5, 50, 95), axis=1)
    detail = np.abs(_laplacian(grey))
    coarse = np.abs(_laplacian(_halved(grey)))
    edges = np.abs(np.diff(grey, axis=1)).mean((1, 2)) + np.abs(np.diff(grey, axis=2)).mean((1, 2))
    red, green, blue = flat.mean(1).T
    columns = [
        red,
        green,
        blue,
        *flat.std(1).T,
        saturation,
        *ends,
        _log(edges),
        _log(detail.mean((1, 2))),
        _log(coarse.mean((1, 2))),
        _log(np.median(detail.reshape(len(detail), -1), axis=1)),
        red - green,
        blue - (red + green) / 2,
    ]
    return np.stack(columns, 1).astype(np.float32)


def _laplacian(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    if min(grey.shape[1:]) < 3:
        return np.zeros((len(grey), 1, 1), np.float32)
    inner: NDArray[np.float32] = (
        4 * grey[:, 1:-1, 1:-1]
        - grey[:, :-2, 1:-1]
        - grey[:, 2:, 1:-1]
        - grey[:, 1:-1, :-2]
        - grey[:, 1:-1, 2:]
    )
    return inner


def _halved(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = (n // 2 * 2 for n in grey.shape[1:])
    even = grey[:, :height, :width]
    found: NDArray[np.float32] = even.reshape(len(even), height // 2, 2, width // 2, 2).mean((2, 4))
    return found


def _log(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logarithm with a floor of a quarter of a grey level: flat images are not infinitely far from all others."""
    return np.asarray(np.log(values + np.float32(1 / 1020)), np.float32)
