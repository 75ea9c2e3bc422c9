"""The reference of a bundle, made from its run at export; `reference` says why from these rows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...atomic import unread
from ...data.cache import pixel_folder
from ...errors import EnsemblerError
from ...store import RunStore
from ...training.candidate import COLLAPSED
from ..choose import Chosen
from ..runtime import Bundle
from .features import concatenate, sample_of
from .observe import reference_sample
from .reference import MAX_ROWS, Reference

_CHUNK = 256


def make_reference(
    store: RunStore,
    one: Chosen,
    folder: Path,
    *,
    stored: bool,
    oof_pixels: Callable[[], Path],
    test_pixels: Callable[[], Path | None],
) -> Reference | None:
    """At most `MAX_ROWS` rows, drawn the same each time; None, with a warning, where the run has no honest ones.

    Args:
        store: of the run.
        one: what is exported.
        folder: the bundle as far as it is written; asked where the run's own answers are not the bundle's.
        stored: whether the out-of-fold rows in the store are what the bundle answers (not so in low precision).
        oof_pixels, test_pixels: find the decoded images, for a run whose cache is gone.
    """
    try:
        if all(candidate.kind not in COLLAPSED for _, candidate in one.members):
            return _held_out(store, one, folder, stored, oof_pixels)
        return _tested(store, folder, test_pixels)
    except EnsemblerError as error:
        if unread(error):  # there are honest rows, and another try may find them
            raise
        print(f"warning: the bundle cannot be monitored: {error}", file=sys.stderr)
        return None


def _held_out(
    store: RunStore, one: Chosen, folder: Path, stored: bool, oof_pixels: Callable[[], Path]
) -> Reference:
    manifest, table = store.manifest(), store.table()
    table = table[table["split"] == "oof"]
    known = pixel_folder() / manifest.get("pixels", {}).get("oof", "gone")
    pixels = np.load(known if known.is_file() else oof_pixels(), mmap_mode="r")
    rows = _draw(len(table))
    fold = table["fold"].to_numpy(np.int64)[rows]
    labels = _codes(table["label"].to_numpy()[rows], manifest["classes"])
    if stored:
        votes = store.predictions().select([name for name, _ in one.members]).proba[:, rows]
        parts = [sample_of(np.array(pixels[rows[part]]), votes[:, part]) for part in _parts(len(rows))]
        sample = concatenate(parts)
    else:
        bundle = Bundle.load(folder)
        sample = reference_sample(bundle, ((np.array(pixels[rows[p]]), fold[p]) for p in _parts(len(rows))))
    return Reference(sample, labels, manifest["k"])


def _tested(store: RunStore, folder: Path, test_pixels: Callable[[], Path | None]) -> Reference | None:
    file = test_pixels()
    if file is None:
        print(
            "warning: the bundle cannot be monitored: its networks have seen every row, and there is no test split",
            file=sys.stderr,
        )
        return None
    manifest, table = store.manifest(), store.table()
    table = table[table["split"] == "test"]
    pixels = np.load(file, mmap_mode="r")
    rows = _draw(len(table))
    bundle = Bundle.load(folder)
    sample = reference_sample(bundle, ((np.array(pixels[rows[part]]), None) for part in _parts(len(rows))))
    return Reference(sample, _codes(table["label"].to_numpy()[rows], manifest["classes"]), 0)


def _draw(n: int) -> NDArray[np.int64]:
    return np.sort(np.random.default_rng(0).permutation(n)[:MAX_ROWS])


def _parts(n: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, n, _CHUNK))


def _codes(labels: NDArray[np.object_], classes: list[str]) -> NDArray[np.int64]:
    code = {name: i for i, name in enumerate(classes)}
    return np.array([code[label] for label in labels], np.int64)
