"""Saving an ensemble by name, and taking it off the leaderboard again.

Both hold the run's lock, so neither meets a sweep; and whatever is refused is refused before anything is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .comparison import compare, keep_fit, load_fits, make_entry, own_names
from .errors import ConfigError, did_you_mean
from .evaluation.cross_fit import cross_fit
from .evaluation.leaderboard import Leaderboard
from .frozen import Rows
from .metrics import get_metric
from .saved import KEY, checked_name, saved_entries
from .store import RunStore


def save_ensemble(
    store: RunStore,
    name: str,
    options: Mapping[str, Any],
    report: Callable[[int, int], None] | None = None,
) -> Leaderboard:
    """Puts an ensemble on the leaderboard, from where it can be exported; `combine` makes it again from now on.

    Args:
        store: of a run with a leaderboard.
        name: of the row.
        options: of a combiner, as in the config's `ensembles`; its key is the option `combiner`.
        report: is told how many fits are done, and of how many.

    Raises:
        ConfigError: no name for it; nothing is written then, nor in the cases below.
        CombinerError: options that no combiner has, or members that the run has not.
        RunLockedError: somebody is working on the run.
        StoreError: the run has no results yet.
    """
    with store.lock():
        predictions = store.predictions()
        manifest = store.manifest()
        metric = get_metric(manifest["metric"])
        saved = saved_entries(manifest)
        name = checked_name(name, [*predictions.members, *(n for n, _ in saved), *own_names(store)])
        fits = load_fits(store, predictions)
        combiner, rows = make_entry(name, options, metric), Rows(store, predictions)
        fit = cross_fit(combiner, rows.given_to(combiner), metric, name, report)
        keep_fit(store, fit)
        store.drop_leaderboard()
        source = {"features_of": rows.backbone} if rows.backbone else {}
        store.update_manifest(**{KEY: [*saved, [name, dict(options)]]}, **source)
        return compare(store, [*fits, fit])


def forget_ensemble(store: RunStore, name: str) -> Leaderboard:
    """Takes a saved ensemble off the leaderboard and deletes it; one of the config stays.

    Raises:
        ConfigError: none is saved under that name.
        RunLockedError: somebody is working on the run.
    """
    with store.lock():
        saved = saved_entries(store.manifest())
        if name not in [n for n, _ in saved]:
            raise ConfigError(f"{name!r}: no saved ensemble; {did_you_mean(name, [n for n, _ in saved])}")
        unmet = store.manifest().get("unmet_saved", [])
        store.drop_leaderboard()
        store.update_manifest(
            **{KEY: [entry for entry in saved if entry[0] != name]},
            unmet_saved=[one for one in unmet if one["name"] != name],
        )
        fits = load_fits(store, store.predictions())
        board = compare(store, fits)
        store.prune_ensembles({fit.name for fit in fits})
        return board
