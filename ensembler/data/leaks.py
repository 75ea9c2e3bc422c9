"""A test split without what the training images show too."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from ..errors import DataError
from .cache import DecodedImages, build_cache
from .duplicates import find_duplicates


def without_leaks(
    images: DecodedImages, image_size: int, cache_dir: Path, *, give_back: bool
) -> tuple[DecodedImages, list[str]]:
    """The images, and the ids of those that left the test split because training images show the same.

    Args:
        images: of `build_cache`, with test rows.
        image_size, cache_dir: as they were decoded.
        give_back: make training images of them, as is right for a share that was drawn from the same source; where
            there are groups or given folds, which know nothing of them there, they are left out all the same.

    Raises:
        DataError: no test image is left.
    """
    table = images.table
    leaked = find_duplicates(images).leaked
    if not leaked:
        return images, []
    if len(leaked) == len(table.test):
        raise DataError(
            f"data.test: all {len(leaked)} test images are training images too; give others, or set data.leaks: allow"
        )
    if give_back and table.oof.fold is None and table.groups is None:
        frame = table.frame.copy()
        frame.loc[frame["id"].isin(leaked), "split"] = "oof"
        kept, place = replace(table, frame=frame, fingerprint=""), "are training images instead"
    else:
        kept, place = table.drop(leaked), "are left out"
    print(f"warning: {len(leaked)} test images show what training images show, and {place}", file=sys.stderr)
    decoded = build_cache(kept, image_size, cache_dir)
    return replace(decoded, unreadable=images.unreadable), leaked
