"""Ensembles that somebody saved by name: entries of the manifest beside those of the config.

An entry is what the config's `ensembles` hold, a name and the options of a combiner, so a saved ensemble can be written
into a config as it stands. It lives in the manifest, because a run that goes on writes its config anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .errors import ConfigError, StoreError
from .evaluation.cross_fit import CrossFit

#: Key of the manifest.
KEY = "saved_ensembles"

#: What limits of a config are called; a later limit must not meet a saved name.
_LIMITS = "max-"

Entry = tuple[str, dict[str, Any]]


def saved_entries(manifest: Mapping[str, Any]) -> list[Entry]:
    """The saved ensembles of a run, oldest first.

    Raises:
        StoreError: the manifest holds something else there.
    """
    found: list[Entry] = []
    for entry in manifest.get(KEY, []):
        if not (isinstance(entry, Sequence) and len(entry) == 2 and isinstance(entry[1], Mapping)):
            raise StoreError(
                f"manifest.json: {KEY} holds {entry!r}; expected a name and options; take it out, and save the "
                "ensemble again"
            )
        found.append((str(entry[0]), dict(entry[1])))
    return found


def checked_name(name: str, taken: Iterable[str]) -> str:
    """The name, without the blanks around it, if an ensemble may be saved under it.

    It becomes the name of a folder, so capitals make no difference.

    Args:
        name: as somebody typed it.
        taken: names of the rows that there are.

    Raises:
        ConfigError: empty, with characters that a name has not, a combiner's, a limit's, or taken.
    """
    from .combiners import COMBINERS
    from .config_settings import NAME  # brings pydantic, which nobody needs who only reads

    name = name.strip()
    if not re.fullmatch(NAME, name):
        raise ConfigError(
            f"name {name[:60]!r}: expected up to 100 letters, digits, '.', '_' and '-', a letter or digit first"
        )
    if name.lower() in COMBINERS or name.lower().startswith(_LIMITS):
        kind = "a combiner's" if name.lower() in COMBINERS else "kept for ensembles under a limit"
        raise ConfigError(f"name {name!r}: is {kind}; choose one of its own, such as 'my-{name[:60]}'")
    known = {other.lower(): other for other in taken}
    if name.lower() in known:
        raise ConfigError(
            f"name {name!r}: {known[name.lower()]!r} stands on the leaderboard already; choose another, or remove "
            "that one first"
        )
    return name


def note(options: Mapping[str, Any]) -> str:
    """What a reader of the leaderboard has to know of a saved ensemble."""
    if options.get("combiner") == "weighted":
        return "weights set by hand: the score is not cross-fitted, and may flatter"
    return "members chosen by hand: the score may flatter"


def row_notes(manifest: Mapping[str, Any], fits: Sequence[CrossFit]) -> dict[str, dict[str, Any]]:
    """Columns of ensembles of which a reader has to know more: those saved by hand, and those that read features."""
    unmet = {one["name"] for one in manifest.get("unmet_saved", [])}
    by_hand = {name: options for name, options in saved_entries(manifest) if name not in unmet}
    source = manifest.get("features_of")
    columns: dict[str, dict[str, Any]] = {}
    for fit in fits:
        notes = [note(by_hand[fit.name])] if fit.name in by_hand else []
        if source and fit.combiner.needs_features:
            notes.append(f"reads frozen features of {source}: no test score, and it cannot be exported")
        if notes:
            columns[fit.name] = {"note": "; ".join(notes)}
        if fit.name in by_hand:
            columns[fit.name]["by_hand"] = True
    return columns
