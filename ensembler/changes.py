"""What makes a run another one: its images, folds, settings and the libraries that train, told field by field.

A run may grow: more trials, one more backbone, other ensembles. What is here must stay, because Cells are of these
very rows, their scores of this metric, and their last bits of these versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from .store import RunStore

#: Libraries whose version decides the bits of a Cell.
DECISIVE = ("torch", "timm", "pillow")

#: Settings that decide the folds beside the images.
_OF_FOLDS = ("folds.", "data.duplicates", "data.group", "data.leaks")

#: Names of images that a difference shows.
_SHOWN = 3


def changes(
    store: RunStore,
    identity: Mapping[str, Any],
    images: pd.DataFrame,
    settings: Mapping[str, Any],
    versions: Mapping[str, str],
) -> list[str]:
    """What is not as it was when the run began, one entry a field; nothing of a run that is still to begin.

    Args:
        store: of the run.
        identity: as the run would have it now: fingerprint, folds, image_size, seed.
        images: the table as it is now, see `data.table.ImageTable.frame`.
        settings: the resolved config.
        versions: of the installed libraries, by name.
    """
    manifest = store.manifest()
    known = manifest.get("identity")
    if known is None:
        return []
    before = {key: str(value) for key, value in _flat(store.config())}
    now = {key: str(value) for key, value in _flat(settings)}
    found = []
    if known.get("fingerprint") != identity["fingerprint"]:
        found += _of_images(store.table(), images)
    for key, name in (("image_size", "data.image_size"), ("seed", "seed")):
        if known.get(key) != identity[key]:
            found.append(f"{name} was {known.get(key)}, is {identity[key]}")
    if known.get("folds") != identity["folds"]:
        other = [key for key in now if key.startswith(_OF_FOLDS) and before.get(key) != now[key]]
        found += [f"{key} was {before.get(key)}, is {now[key]}" for key in other]
        if not found:
            found.append("the folds are drawn otherwise than they were")
    if "metric" in manifest and manifest["metric"] != settings["metric"]:
        found.append(f"metric was {manifest['metric']}, is {settings['metric']}")
    trained = manifest.get("machine", {}).get("versions", {})
    for library in DECISIVE:
        was, now_is = (_public(of.get(library, "")) for of in (trained, versions))
        if was and was != now_is:
            found.append(f"{library} was {was}, is {now_is}")
    return found


def _of_images(before: pd.DataFrame, now: pd.DataFrame) -> list[str]:
    """What became of the images; their content is known by its hash alone, so it is what is left."""
    ids = [set(table["id"].astype(str)) for table in (before, now)]
    found = [
        f"{_images(sorted(names))} {what}"
        for what, names in (("new", ids[1] - ids[0]), ("gone", ids[0] - ids[1]))
        if names
    ]
    for column in ("label", "split"):
        was, is_now = (
            dict(zip(table["id"].astype(str), table[column].astype(str), strict=True))
            for table in (before, now)
        )
        moved = [name for name in is_now if name in was and was[name] != is_now[name]]
        if moved:
            first = f"the first was {was[moved[0]]!r}, is {is_now[moved[0]]!r}"
            found.append(f"{_images(moved)} of another {column} ({first})")
    return found or ["images: the content of some files, their groups or their predefined folds are others"]


def _images(names: Sequence[str]) -> str:
    listed = ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
    return f"images: {len(names)} ({listed}) {'is' if len(names) == 1 else 'are'}"


def _flat(values: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _public(version: str) -> str:
    """A version without what it was built for: a CPU's torch and a GPU's are one version."""
    return version.partition("+")[0]
