"""What the report says of how a run was made: ensembles, candidates, search, failures, versions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..comparison import load_fits
from ..forking import told
from ..predictions import Predictions
from ..store import RunStore
from ..training.candidate import Candidate
from .markup import number, table

#: What the strategies without a recipe learn.
FROZEN_HEADS = {"probe": "logistic head on frozen features", "ridge": "ridge head on frozen features"}


def ensembles_section(store: RunStore, predictions: Predictions) -> str:
    """What each ensemble is made of."""
    rows = []
    for fit in load_fits(store, predictions):
        weights = fit.combiner.weights_
        if weights is None:
            made = f"all {len(fit.combiner.members_)} members"
        else:
            pairs = sorted(zip(weights, fit.combiner.members_, strict=True), reverse=True)
            made = ", ".join(f"{name} {weight:.2f}" for weight, name in pairs if weight > 0)
        rows.append([fit.name, f"{fit.score:.4f}", f"{fit.in_sample:.4f}", f"{fit.optimism:+.4f}", made])
    return table(["ensemble", "cross-fitted", "in sample", "optimism", "members and weights"], rows)


def candidates_section(manifest: Mapping[str, Any]) -> str:
    """The recipe of each candidate."""
    rows = []
    for values in manifest["candidates"]:
        candidate = Candidate.from_dict(values)
        recipe = {} if candidate.frozen_body else candidate.recipe.identity()
        shown = ", ".join(
            f"{key} {value}" if isinstance(value, bool | str) else f"{key} {value:g}"
            for key, value in recipe.items()
        )
        note = manifest["details"][candidate.name]["note"]
        rows.append([candidate.name, candidate.weights, shown or FROZEN_HEADS[candidate.strategy], note])
    return table(["candidate", "weights", "recipe", "note"], rows)


def search_section(store: RunStore) -> str:
    """Every trial of the search."""
    rows = [
        [
            t["number"],
            t["name"],
            t["status"],
            t["epochs"],
            number(t["score"], 4),
            number(t["seconds"], 0),
            t["reason"],
        ]
        for t in store.trials()
    ]
    return table(["trial", "candidate", "status", "epochs", "monitor score", "seconds", "reason"], rows)


def failures_section(failed: Sequence[Mapping[str, Any]]) -> str:
    """What has no row, and why."""
    rows = [[f["name"], "" if f.get("fold") is None else f["fold"], f["reason"]] for f in failed]
    return table(["candidate", "fold", "reason"], rows)


def _copies(copies: dict[str, Any] | None) -> str:
    """What the run knows of pictures that are there more than once; "" where it did not look."""
    if copies is None:
        return ""
    n = len(copies["sets"])
    kept = "kept in one fold each" if copies["duplicates"] == "group" else "not kept together"
    said = f"{n} pictures are there more than once, {kept}" if n else "none"
    leaked, moved = len(copies["leaked"]), len(copies["out_of_test"])
    if leaked:
        said += f"; {leaked} test images are training images too: the test column is too good"
    return (
        f"{said}; {moved} test images were copies of training images and left the test split"
        if moved
        else said
    )


def _origin(forked: dict[str, Any] | None) -> str:
    """The run that trainings were taken over from; "" where all were made here."""
    return "" if forked is None else told(forked, forked["changed"])


def provenance_section(store: RunStore, predictions: Predictions) -> str:
    """Command, commit, data, machine and versions."""
    manifest = store.manifest()
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in manifest.get("stages", {}).items())
    machine = manifest.get("machine", {})
    rows = [
        [
            "command",
            f"`ensembler run {manifest['config_file']}`"
            if "config_file" in manifest
            else "`ensembler combine`",
        ],
        ["commit", manifest.get("commit") or "not in a repository"],
        ["images", f"{predictions.n_samples} out of fold, {manifest.get('test_images', 0)} test"],
        ["classes", ", ".join(predictions.classes)],
        ["folds", len(predictions.folds)],
        ["skipped images", len(manifest.get("unreadable", []))],
        ["copies", _copies(manifest.get("copies"))],
        ["forked from", _origin(manifest.get("forked"))],
        ["stages of the last command", stages],
        ["machine", f"{machine.get('cpus', '?')} CPUs, {machine.get('system', 'unknown')}"],
        ["versions", ", ".join(f"{k} {v}" for k, v in machine.get("versions", {}).items())],
        ["arithmetic", json.dumps(manifest.get("numerics", {}))],
        ["fingerprint", json.dumps(manifest.get("identity", {}))],
    ]
    return table(["", ""], [row for row in rows if row[1] != ""])
