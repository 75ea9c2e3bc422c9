"""scikit-learn's digits: 1,797 handwritten digits of 8 x 8 pixels that need no network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .folder import read_class_folders, write_class_folders
from .source import Request, Row, Source


class Digits(Source):
    """The word `digits`. A folder of that name is written `./digits`."""

    def recognises(self, source: str) -> bool:
        """The word alone."""
        return source == "digits"

    def rows(self, request: Request) -> list[Row]:
        """The digits as PNG files in class folders below the cache, made on first use.

        Raises:
            DataError: the cache cannot be written.
        """
        root: Path = request.cache_dir.resolve() / "digits"
        if not root.is_dir():
            try:
                write_class_folders(root, _images())
            except OSError as error:
                raise DataError(
                    f"{root}: the digits cannot be written: {error.strerror}; "
                    "free some space or choose another cache directory"
                ) from error
        return read_class_folders(root)


def _images() -> Iterator[tuple[str, str, NDArray[np.uint8]]]:
    from sklearn.datasets import load_digits

    data = load_digits()
    grey = np.rint(data.images * (255 / 16)).astype(np.uint8)
    for i, (pixels, digit) in enumerate(zip(grey, data.target, strict=True)):
        yield str(digit), f"{i:04d}", pixels
