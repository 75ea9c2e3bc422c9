"""Data sets that torchvision can download: `torchvision:OxfordIIITPet`.

This is the one module of the folder that imports torchvision (and so torch), and only to download.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, did_you_mean
from .decode import decode
from .folder import read_class_folders, write_class_folders
from .source import Request, Row, Source

_PREFIX = "torchvision:"

#: Seconds without a byte after which a download fails; torchvision itself would wait for ever.
STALL_S = 20

#: What the data sets call their parts, the first that exists is taken.
_SPLIT_NAMES = {"train": ("trainval", "train"), "test": ("test", "val", "valid")}


class Torchvision(Source):
    """`torchvision:<Dataset>`, any classification set of `torchvision.datasets`.

    Its training part becomes the rows; its own test part is read only when the test split is "official".
    """

    def recognises(self, source: str) -> bool:
        """By the prefix `torchvision:`."""
        return source.startswith(_PREFIX)

    def rows(self, request: Request) -> list[Row]:
        """The training images as PNG files in class folders below the cache, downloaded on first use.

        Raises:
            DataError: no such data set, no labels in it, or a download that failed.
        """
        return _part(request, "train")

    def official_test(self, request: Request) -> list[Row]:
        """The same for the data set's own test part."""
        return _part(request, "test")


def _part(request: Request, part: str) -> list[Row]:
    name = request.source.removeprefix(_PREFIX)
    if not re.fullmatch(r"\w+", name):
        raise DataError(
            f"{request.source}: expected torchvision:<Dataset>, such as torchvision:OxfordIIITPet"
        )
    return read_class_folders(_materialised(name, request.cache_dir.resolve() / "torchvision" / name, part))


def _materialised(name: str, home: Path, part: str) -> Path:
    folder = home / part
    if not folder.is_dir():
        data = _download(name, home / "download", part)
        try:
            write_class_folders(folder, _images(name, data))
        except OSError as error:
            raise DataError(
                f"{folder}: the images of {name} cannot be written: {error.strerror or error}; "
                "free some space or choose another cache directory"
            ) from error
    return folder


def _download(name: str, root: Path, part: str) -> Any:
    from torchvision import datasets

    kind = getattr(datasets, name, None)
    if not isinstance(kind, type):
        way_out = did_you_mean(name, datasets.__all__, n=3)
        raise DataError(f"{_PREFIX}{name}: torchvision has no such data set; {way_out}")
    try:
        root.mkdir(parents=True, exist_ok=True)
        # torchvision prints; stdout is for results.
        with contextlib.redirect_stdout(sys.stderr), _impatient():
            return _construct(kind, root, part)
    # RuntimeError: what torchvision makes of a failed mirror, or of a damaged archive.
    except (OSError, RuntimeError) as error:
        cause = " ".join(str(error).split())
        raise DataError(
            f"{_PREFIX}{name}: the download failed: {cause}; "
            "without a network, make class folders of it elsewhere and give their folder as the source"
        ) from error


def _construct(kind: type, root: Path, part: str) -> Any:
    parameters = inspect.signature(kind).parameters
    if "download" not in parameters:
        raise DataError(
            f"{_PREFIX}{kind.__name__}: torchvision cannot download it; give a folder of your own"
        )
    if "train" in parameters:
        return kind(str(root), train=part == "train", download=True)
    if "split" in parameters:
        for split in _SPLIT_NAMES[part]:
            # A ValueError is how torchvision refuses an unknown split, before it downloads anything.
            with contextlib.suppress(ValueError):
                return kind(str(root), split=split, download=True)
    elif part == "train":
        return kind(str(root), download=True)
    raise DataError(
        f"{_PREFIX}{kind.__name__}: has no {part} part that is known here; give test as a share or a path"
    )


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _images(name: str, data: Any) -> Iterator[tuple[str, str, NDArray[np.uint8]]]:
    classes = getattr(data, "classes", None)
    for i in range(len(data)):
        image, target = data[i]
        if isinstance(target, bool) or not isinstance(target, int | np.integer):
            raise DataError(
                f"{_PREFIX}{name}: the target of image {i} is a {type(target).__name__}; "
                "only data sets with one class an image can be used"
            )
        yield (
            _folder_name(classes[target] if classes else target),
            f"{i:06d}",
            decode(image, name=f"{name}[{i}]"),
        )


def _folder_name(class_name: Any) -> str:
    """A class name fit for a folder: ImageNet's are tuples of synonyms, Fashion-MNIST has `T-shirt/top`."""
    first = class_name[0] if isinstance(class_name, tuple | list) else class_name
    return str(first).replace("/", "-").lstrip(".")
