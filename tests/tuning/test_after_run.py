"""A whole run with all that may follow cross-validation: boosted, mixed, collapsed, resumed.

Real networks, the real store, in this process: what Ray is given is packed and unpacked as it would be.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensembler.bundle import Bundle
from ensembler.bundle.options import ExportOptions
from ensembler.cli import main
from ensembler.comparison import read_leaderboard
from ensembler.errors import BundleError
from ensembler.experiment import Experiment
from ensembler.metrics import METRICS
from ensembler.store import RunStore
from tests.without_ray import without_ray

CONFIG = """
name: small
data: {source: images/train, test: images/test, image_size: 32}
folds: {k: 2, seed: 0, monitor: 0.2}
backbones: [{test_resnet: {weights: weights.safetensors}}]
recipe: {batch_size: 8, flip: false}
screen: false
search: {trials: 2, epochs: 2, algorithm: random, scheduler: none}
keep: 2
boosted: {rounds: 1}
soups: true
collapse: [folds, refit, soup, distill]
ensembles: [mean]
numerics: {precision: fp32, channels_last: true}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, write_experiment: Callable[..., Path]) -> Experiment:
    home = tmp_path_factory.mktemp("after")
    experiment = Experiment.from_config(write_experiment(home, CONFIG), home / "run")
    with without_ray():
        experiment.run()
    return experiment


def _by_kind(store: RunStore) -> dict[str, list[Any]]:
    kinds: dict[str, list[Any]] = {}
    for candidate in store.candidates():
        kinds.setdefault(candidate.kind, []).append(candidate)
    return kinds


def test_boosted_candidates_and_soups_stand_on_the_leaderboard_and_say_what_they_are(run: Experiment) -> None:
    kinds = _by_kind(run.store)
    assert {kind: len(found) for kind, found in kinds.items()} == {"trained": 2, "boosted": 1, "soup": 1}
    rows = {row["name"]: row for row in read_leaderboard(run.store).to_records()}
    (boosted,), (soup,) = kinds["boosted"], kinds["soup"]
    assert rows[boosted.name]["note"].startswith("boosted: rows weigh the loss of 2 candidates")
    assert "soup" in rows[soup.name]["note"]
    assert set(soup.parts) == {c.id for c in [*kinds["trained"], boosted]}
    for candidate in (boosted, soup):
        assert rows[candidate.name]["latency_ms"] > 0
        assert rows[candidate.name]["test"] is not None
        assert rows[candidate.name]["train_s"] > 0
    predictions = run.predictions()
    assert set(predictions.members) == {c.name for found in kinds.values() for c in found}
    assert not run.store.manifest()["failed"]


def test_a_soup_is_exported_like_any_other_row(run: Experiment, tmp_path: Path) -> None:
    (soup,) = _by_kind(run.store)["soup"]
    bundle = Bundle.load(run.export(tmp_path / "bundle", soup.name))
    images = run.images()
    assert images.test is not None
    test = run.store.test_predictions()
    assert test is not None
    np.testing.assert_allclose(
        bundle.predict_pixels(np.load(images.test)), test.proba[test.index(soup.name)], atol=1e-5
    )


@pytest.mark.parametrize("way", ["refit", "soup", "distill"])
def test_what_took_the_place_of_fold_models_is_exported_and_says_what_was_measured(
    way: Any, run: Experiment, tmp_path: Path
) -> None:
    images = run.images()
    assert images.test is not None
    pixels = np.load(images.test)
    for row in (row for row in run.store.collapse()["rows"] if row["way"] == way):
        options = ExportOptions(format="both", collapse=way)
        if row["deployed"] is None:
            with pytest.raises(BundleError, match=f"has no network made by {way}: {row['note']}"):
                run.export(tmp_path / "none", row["candidate"], options)
            continue
        bundle = Bundle.load(run.export(tmp_path / row["candidate"], row["candidate"], options))
        assert (bundle.name, bundle.index["collapse"]) == (row["candidate"], way)
        assert bundle.index["graph"]["folds"] == 1
        proba = bundle.predict_pixels(pixels)
        networks = Bundle.load(tmp_path / row["candidate"], engine="torch")
        np.testing.assert_allclose(proba, networks.predict_pixels(pixels), atol=1e-5)
        assert METRICS["log_loss"](images.table.test.labels, proba) == pytest.approx(
            row["log_loss"], abs=1e-5
        )


def test_the_collapse_is_trained_after_the_verdict_and_measured_on_the_test_split(run: Experiment) -> None:
    stages = [(e["stage"], e["state"]) for e in run.store.events() if e["kind"] == "stage"]
    assert stages[4:] == [(s, t) for s in ("compare", "collapse", "test") for t in ("running", "done")]
    rows = run.store.collapse()["rows"]
    board = read_leaderboard(run.store)
    names = list(dict.fromkeys(row["candidate"] for row in rows))
    winner = next(row for row in board.to_records() if row["name"] == board.verdict.winner)
    assert names[0] == board.verdict.best_single
    assert set(names) == {board.verdict.best_single, *winner["members"]}
    test = run.store.test_predictions()
    assert test is not None
    for row in rows:
        if row["deployed"] is None:
            assert row["note"]
            continue
        assert 0 <= row["accuracy"] <= 1
        assert row["latency_ms"] > 0
        folds = next(r for r in rows if r["candidate"] == row["candidate"] and r["way"] == "folds")
        if row["way"] == "folds":
            proba = test.proba[test.index(row["candidate"])]
            assert row["log_loss"] == METRICS["log_loss"](test.labels, proba)
        else:
            assert row["bytes"] < 0.6 * folds["bytes"]  # one network instead of two


def test_the_same_command_again_trains_nothing_and_prints_the_collapse(
    run: Experiment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    before = {p: p.stat().st_mtime_ns for p in (run.store.path / "cells").rglob("*") if p.is_file()}
    rows = run.store.collapse()["rows"]
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    monkeypatch.setattr("ensembler.collapsed._answers", lambda *_: pytest.fail("measured again"))
    config = run.store.path.parent / "small.yaml"
    assert main(["run", str(config), "-o", str(run.store.path)]) == 0
    assert run.store.collapse()["rows"] == rows
    assert {p: p.stat().st_mtime_ns for p in before} == before
    out = capsys.readouterr().out
    assert "On the test split:" in out
    assert "refit" in out
    assert "distill" in out
