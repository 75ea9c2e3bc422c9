"""The comparison alone: combiners over out-of-fold predictions, and the leaderboard that comes of them.

It needs a store and Predictions, whoever made them; neither torch nor Ray.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .combiners import COMBINERS, Combiner, from_state, make_combiner
from .combiners.cascade import Cascade
from .combiners.fold_models import combine_folds
from .errors import BundleError, CombinerError, PredictionsError, StoreError
from .evaluation.constrained import best_under, limit_name
from .evaluation.cost import Cost
from .evaluation.cross_fit import CrossFit, cross_fit, require_folds
from .evaluation.leaderboard import Leaderboard, build_leaderboard
from .frozen import Rows
from .metrics import Metric, get_metric
from .predictions import Predictions
from .saved import row_notes, saved_entries
from .store import RunStore

#: What is combined when nobody says otherwise.
DEFAULT_ENSEMBLES: tuple[tuple[str, dict[str, Any]], ...] = tuple(
    (name, {}) for name in ("mean", "greedy", "bagging", "boosting", "stacking")
)

Entries = Sequence[tuple[str, Mapping[str, Any]]]

#: Keys of the manifest under which ensembles stand that could not be made.
_UNMET = ("unmet_limits", "unmet_saved")


def start_bare_run(
    store: RunStore, source: Path, metric: str, entries: Entries = DEFAULT_ENSEMBLES
) -> Predictions:
    """Fills a new run from predictions that came from elsewhere.

    Raises:
        PredictionsError: naming the file and what is wrong in it; nothing is written then.
        ConfigError: an unknown metric, or costs of other classes; nothing is written then.
        RunMismatchError: the run holds other predictions.
    """
    oof, test = Predictions.load(source)
    try:
        _require_comparable(oof, get_metric(metric))
    except PredictionsError as error:
        raise PredictionsError(f"{source}: {error}") from error
    fingerprint = _fingerprint(oof)
    with store.lock():
        store.claim({"predictions": fingerprint})
        store.update_manifest(
            name=store.name,
            metric=metric,
            ensembles=[[name, dict(options)] for name, options in entries],
            classes=list(oof.classes),
            source=source.name,
        )
        store.write_predictions(oof, test)
    return oof


def _require_comparable(predictions: Predictions, metric: Metric) -> None:
    """Refuses rows that cannot be cross-fitted, or that the metric cannot score."""
    metric.require_classes(predictions.classes)
    require_folds(predictions)
    if metric.per_row is not None:  # a mean over rows, which is always defined
        return
    for name, slab in zip(predictions.members, predictions.proba, strict=True):
        if np.isnan(metric(predictions.labels, slab)):
            found = ", ".join(repr(predictions.classes[k]) for k in np.unique(predictions.labels)[:6])
            raise PredictionsError(
                f"labels: {metric.title} of member {name!r} is undefined on {predictions.n_samples} rows of class "
                f"{found}; give rows of more classes, or another metric such as log_loss"
            )


def combine(store: RunStore) -> list[CrossFit]:
    """Cross-fits every combiner of the run and stores the fitted ones.

    Raises:
        StoreError, PredictionsError: the sweep is not complete.
        PredictionsError: fewer than two folds, or labels for which the metric is undefined.
    """
    predictions = store.predictions()
    metric = get_metric(store.manifest()["metric"])
    _require_comparable(predictions, metric)
    rows, fits = Rows(store, predictions), []
    for fit in chain(
        _own(store, rows, metric), _saved(store, rows, metric), _limited(store, predictions, metric)
    ):
        keep_fit(store, fit)
        fits.append(fit)
    store.update_manifest(features_of=rows.backbone)
    store.prune_ensembles({fit.name for fit in fits})
    return fits


def keep_fit(store: RunStore, fit: CrossFit) -> None:
    """Stores a fitted combiner with its scores and its cross-fitted predictions."""
    state, arrays = fit.combiner.get_state()
    scores = {"in_sample": fit.in_sample, "score": fit.score, "optimism": fit.optimism}
    store.write_ensemble(fit.name, {**state, "scores": scores}, arrays, fit.predictions)
    store.event("ensemble", name=fit.name, **scores)


def _limited(store: RunStore, predictions: Predictions, metric: Metric) -> Iterator[CrossFit]:
    """The best ensemble within each limit of the run, searched under it; a limit that nothing meets is noted."""
    costs, unmet = _costs(store), []
    for key, value in store.manifest().get("limits", {}).items():
        try:
            yield best_under(predictions, metric, costs, **{key: value})
        except CombinerError as error:
            unmet.append({"name": limit_name(**{key: value}), "stage": "combine", "reason": str(error)})
    store.update_manifest(unmet_limits=unmet)


def _own(store: RunStore, rows: Rows, metric: Metric) -> Iterator[CrossFit]:
    """The ensembles of the config."""
    costs = {name: cost.latency_ms for name, cost in _costs(store).items() if cost.latency_ms is not None}
    for name, options in _entries(store):
        combiner = make_entry(name, options, metric)
        if isinstance(combiner, Cascade) and not combiner.costs and set(rows.plain.members) <= set(costs):
            known = {member: costs[member] for member in rows.plain.members}
            combiner = Cascade(**(combiner.get_params() | {"costs": known}))
        yield cross_fit(combiner, rows.given_to(combiner), metric, name)


def _saved(store: RunStore, rows: Rows, metric: Metric) -> Iterator[CrossFit]:
    """The ensembles that somebody saved; one that cannot be made of today's members is noted."""
    taken, unmet = {*rows.plain.members, *(name for name, _ in _entries(store))}, []
    for name, options in saved_entries(store.manifest()):
        try:
            if name in taken:
                raise CombinerError(
                    "another row bears its name; rename that one, or remove this one in the app"
                )
            combiner = make_entry(name, options, metric)
            yield cross_fit(combiner, rows.given_to(combiner), metric, name)
        except CombinerError as error:
            unmet.append({"name": name, "stage": "combine", "reason": str(error)})
    store.update_manifest(unmet_saved=unmet)


def _failed(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [entry for key in ("failed", *_UNMET) for entry in manifest.get(key, [])]


def load_fits(store: RunStore, predictions: Predictions) -> list[CrossFit]:
    """The stored results of `combine`.

    Raises:
        StoreError: an ensemble of the config is missing, or was made from other members.
    """
    fits = []
    manifest = store.manifest()
    unmet = {key: {one["name"] for one in manifest.get(key, [])} for key in _UNMET}
    limits = [limit_name(**{key: value}) for key, value in manifest.get("limits", {}).items()]
    names = [name for name, _ in _entries(store)]
    names += [name for name, _ in saved_entries(manifest) if name not in unmet["unmet_saved"]]
    names += [name for name in limits if name not in unmet["unmet_limits"]]
    for name in names:
        state, arrays, proba = store.ensemble(name)
        combiner = _restore(state, arrays)
        if set(combiner.members_) != set(predictions.members) or proba.shape != predictions.proba.shape[1:]:
            raise StoreError(
                f"{store.path}: ensemble {name!r} is of other members; run `ensembler combine` again"
            )
        fits.append(
            CrossFit(
                name=name,
                predictions=predictions.with_proba(proba, [name]),
                combiner=combiner,
                **state["scores"],
            )
        )
    return fits


def compare(store: RunStore, fits: Sequence[CrossFit] | None = None) -> Leaderboard:
    """Builds the leaderboard from what the run holds, and stores it; for who holds the run's lock."""
    board = build(store, fits)
    store.write_leaderboard(board.to_records())
    return board


def build(store: RunStore, fits: Sequence[CrossFit] | None = None) -> Leaderboard:
    """The leaderboard of what the run holds; nothing is written.

    Test scores are filled in where test predictions have been made; no row's place depends on them.
    """
    manifest = store.manifest()
    predictions = store.predictions()
    metric = get_metric(manifest["metric"])
    if fits is None:
        fits = load_fits(store, predictions)
    return build_leaderboard(
        predictions,
        fits,
        metric,
        costs=_costs(store),
        groups=read_groups(store),
        test=_test_scores(store, fits, metric),
        details=manifest.get("details", {}) | row_notes(manifest, fits),
        failed=_failed(manifest),
    )


def read_leaderboard(store: RunStore) -> Leaderboard:
    """The stored leaderboard; made anew while there is none. Who reads writes nothing: a sweep may be at it."""
    records = store.require().leaderboard()
    if records is None:
        return build(store)
    try:
        return Leaderboard.from_records(records, failed=_failed(store.manifest()))
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"{store.path / 'leaderboard.parquet'}: damaged ({error}); delete it, it is rebuilt"
        ) from error


def exportable_combiner(store: RunStore, name: str) -> Combiner:
    """The fitted combiner of a stored ensemble, over the members that it uses: what a bundle ships.

    Raises:
        BundleError: it reads features of the images, which a bundle does not have.
    """
    combiner = restored_combiner(store, name)
    if combiner.needs_features:
        raise BundleError(
            f"{name!r}: cannot be exported, because its {combiner.name} reads frozen features of the images, and a "
            "bundle has its members' probabilities alone; export another row, or combine without features"
        )
    return combiner.pruned()


def restored_combiner(store: RunStore, name: str) -> Combiner:
    """The fitted combiner of a stored ensemble."""
    state, arrays, _ = store.ensemble(name)
    return _restore(state, arrays)


def copy_tables(store: RunStore, board: Leaderboard, folder: Path) -> None:
    """Writes the leaderboard as CSV and JSON into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "leaderboard.csv").write_text(board.to_csv(), encoding="utf-8")
    (folder / "leaderboard.json").write_text(board.to_json() + "\n", encoding="utf-8")
    if (store.path / "config.yaml").exists():
        shutil.copyfile(store.path / "config.yaml", folder / "config.yaml")


def _costs(store: RunStore) -> dict[str, Cost]:
    return {name: Cost(**cost) for name, cost in store.manifest().get("costs", {}).items()}


def _entries(store: RunStore) -> list[tuple[str, dict[str, Any]]]:
    return [(name, options) for name, options in store.manifest()["ensembles"]]


def own_names(store: RunStore) -> list[str]:
    """What the ensembles of the config are called, those under its limits included."""
    limits = store.manifest().get("limits", {})
    return [*(name for name, _ in _entries(store)), *(limit_name(**{k: v}) for k, v in limits.items())]


def needs_costs(store: RunStore) -> bool:
    """Whether an ensemble of the run goes by what its members cost to run."""
    return any(options.get("combiner", name) == Cascade.name for name, options in _entries(store))


def make_entry(name: str, options: Mapping[str, Any], metric: Metric) -> Combiner:
    """A combiner that optimises the run's metric, where it optimises one and the config does not say which."""
    key = str(options.get("combiner", name))
    params = {option: value for option, value in options.items() if option != "combiner"}
    if key in COMBINERS:  # else `make_combiner` says what is wrong
        params = COMBINERS[key].tuned_for(metric.name, params)
    return make_combiner(key, **params)


def _restore(state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Combiner:
    try:
        return from_state(state, arrays)
    except CombinerError as error:
        raise StoreError(f"stored ensemble: {error}; run `ensembler combine` again") from error


def _test_scores(store: RunStore, fits: Sequence[CrossFit], metric: Metric) -> dict[str, float] | None:
    test = store.test_predictions()
    if test is None:
        return None
    scores = {name: metric(test.labels, test.proba[i]) for i, name in enumerate(test.members)}
    by_fold = store.test_by_fold()
    if by_fold is None:
        by_fold = test.proba[:, None]  # from elsewhere: averaged already
    for fit in fits:
        members = fit.combiner.members_
        blind = fit.combiner.needs_features and test.features is None
        if set(members) <= set(test.members) and not blind:
            rows = by_fold[[test.index(name) for name in members]]
            proba = combine_folds(fit.combiner, rows, members, test.classes, test.features)
            scores[fit.name] = metric(test.labels, proba)
    return scores


def read_groups(store: RunStore) -> NDArray[Any] | None:
    """What is resampled together: the group of each out-of-fold row, where the images have any."""
    if store.bare_predictions() is not None:
        return None
    table = store.table()
    table = table[table["split"] == "oof"]
    if table["group"].isna().all():
        return None
    # Where only copies have a group, every other image is one of its own.
    return table["group"].where(table["group"].notna(), table["id"]).to_numpy(str)


def _fingerprint(predictions: Predictions) -> str:
    import hashlib

    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays := predictions.arrays()):
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
