"""True classes of new images, where somebody knows them."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, did_you_mean

#: In place of a file: the folder of an image is named after its class.
FOLDERS = "folders"


def read_labels(source: str, paths: Sequence[Path], classes: Sequence[str]) -> NDArray[np.int64]:
    """The class of each image, -1 where it is not known.

    Args:
        source: a CSV with the columns `path` and `label`, or "folders". A path in it may be absolute, relative to the
            working directory or to the CSV, or the end of a path, as long as it fits one image alone.
        paths: of the images.
        classes: of the bundle.

    Raises:
        DataError: no such file or columns, an unknown class, or not one label that fits an image.
    """
    code = {name: i for i, name in enumerate(classes)}
    named = source == FOLDERS
    given = {path: path.parent.name for path in paths} if named else _from_csv(Path(source), paths)
    for path, label in given.items():
        if label not in code:
            where = f"{source}: {path}" if not named else f"{path}: its folder"
            raise DataError(
                f"{where}: label {label!r} is no class of the bundle; {did_you_mean(label, classes)}"
            )
    if not given:
        raise DataError(
            f"{source}: no path fits any of the {len(paths)} images, such as {paths[0]}; give paths that end like those"
        )
    return np.array([code[given[path]] if path in given else -1 for path in paths], np.int64)


def _from_csv(file: Path, paths: Sequence[Path]) -> dict[Path, str]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            columns = reader.fieldnames or []
            if not {"path", "label"} <= set(columns):
                raise DataError(f"{file}: columns {', '.join(columns) or 'none'}; expected path and label")
            rows = [(row["path"], row["label"]) for row in reader if row["path"] and row["label"]]
            return _matched(rows, file.parent, paths)
    except (
        OSError,
        RuntimeError,
        ValueError,
        csv.Error,
    ) as error:  # codecs; paths that are none; links in circles
        raise DataError(
            f"{file}: cannot be read ({error}); give a CSV with the columns path and label"
        ) from error


def _matched(rows: Sequence[tuple[str, str]], home: Path, paths: Sequence[Path]) -> dict[Path, str]:
    whole = {path.resolve(): path for path in paths}
    ends = _ends(whole)
    given: dict[Path, str] = {}
    for text, label in rows:
        image = whole.get(Path(text).resolve()) or whole.get((home / text).resolve()) or ends.get(text)
        if image is not None:
            given[image] = label
    return given


def _ends(whole: Mapping[Path, Path]) -> dict[str, Path]:
    """Every end of a path that fits one image alone: `c.png`, `b/c.png`, `a/b/c.png`."""
    found: list[tuple[str, Path]] = [
        ("/".join(full.parts[i:]), path) for full, path in whole.items() for i in range(1, len(full.parts))
    ]
    counts = Counter(end for end, _ in found)
    return {end: path for end, path in found if counts[end] == 1}
