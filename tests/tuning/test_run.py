"""Whole runs on Ray: complete, resumed, extended, with failures on record."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

from ensembler.cli import main
from ensembler.config import Config
from ensembler.errors import RunMismatchError
from ensembler.experiment import Experiment
from ensembler.store import RunStore
from ensembler.training.candidate import Candidate
from tests.without_ray import without_ray


@pytest.fixture
def copied(finished_run: Any, tmp_path: Path) -> Any:
    """The finished run, the config and the images, to change at will; copies keep inode-free facts only."""
    home = tmp_path / "home"
    shutil.copytree(finished_run.home, home)
    return dataclasses.replace(
        finished_run, home=home, config=home / "small.yaml", run=home / "run", images=home / "images"
    )


def _stamps(run: Path) -> dict[Path, tuple[int, int]]:
    return {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in (run / "cells").rglob("*") if p.is_file()}


def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))


def _ray_processes() -> list[str]:
    """Commands of Ray's processes below this one; those that end while they are looked at are none."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found.append(" ".join(process.cmdline()[:3]))
    return [command for command in found if "ray" in command]


def test_a_run_fills_its_folder(finished_run: Any) -> None:
    store = RunStore(finished_run.run)
    manifest = store.manifest()
    names = [c["backbone"] + "/" + c["strategy"] for c in manifest["candidates"]]
    assert names[0] == "test_resnet/probe"
    assert sorted(names[1:]) == ["test_efficientnet/full", "test_resnet/lp-ft"]
    assert set(manifest["stages"]) == {"sweep", "combine", "compare", "test"}
    assert (manifest["k"], manifest["images"], manifest["test_images"]) == (2, 60, 18)
    assert set(store.ensembles()) == {"mean", "greedy", "boosting", "stacking"}
    predictions = store.predictions()
    assert predictions.proba.shape == (3, 60, 3)
    table = store.table()
    assert sorted(table[table["split"] == "oof"]["fold"].unique()) == [0, 1]
    assert (table[table["split"] == "test"]["fold"] == -1).all()
    assert not list(finished_run.run.rglob(".tmp-*"))
    assert not list(finished_run.run.rglob("*.pkl"))


def test_the_leaderboard_has_every_candidate_and_ensemble_with_its_costs(finished_run: Any) -> None:
    board = Experiment.from_run(finished_run.run).leaderboard()
    assert len(board) == 3 + 4
    assert board["cv"].is_monotonic_increasing
    assert board["test"].notna().all()
    assert (board["latency_ms"] > 0).all()
    assert (board["params"] > 0).all()
    singles = board[board["kind"] == "single"]
    assert (singles["train_s"] > 0).all()
    assert singles["optimism"].isna().all()
    assert singles["backbone"].notna().all()


def test_trials_that_cannot_be_trained_are_recorded_and_the_others_go_on(finished_run: Any) -> None:
    store = RunStore(finished_run.run)
    trials = store.trials()
    assert [t["status"] for t in trials] == ["finished", "finished", "failed", "failed"]
    assert [t["candidate"]["backbone"] for t in trials] == ["test_resnet", "test_efficientnet"] * 2
    for trial in trials[2:]:
        assert "lower lr (1e+30)" in trial["reason"]
        assert trial["candidate"]["recipe"]["lr"] == 1e30
    failed = store.manifest()["failed"]
    assert {f["name"] for f in failed} == {t["name"] for t in trials[2:]}
    from ensembler.comparison import read_leaderboard

    board = read_leaderboard(store)
    assert {f["name"] for f in board.failed} == {t["name"] for t in trials[2:]}
    assert board.verdict.failed


def test_the_events_tell_the_whole_story(finished_run: Any) -> None:
    events = RunStore(finished_run.run).events()
    kinds = {e["kind"] for e in events}
    assert kinds - {"load"} == {"stage", "trial", "epoch", "ensemble"}
    started = [e for e in events if e["kind"] == "trial" and e["state"] == "started"]
    ended = [e for e in events if e["kind"] == "trial" and e["state"] != "started"]
    assert len(started) == len(ended) == 2 + 4 + 2
    assert [e["state"] for e in events if e["kind"] == "stage"] == ["running", "done"] * 4


def test_predictions_are_the_stored_cells_in_the_order_of_the_table(finished_run: Any) -> None:
    store = RunStore(finished_run.run)
    predictions = store.predictions()
    table = store.table()
    table = table[table["split"] == "oof"].reset_index(drop=True)
    assert predictions.sample_ids.tolist() == table["id"].tolist()
    assert [predictions.classes[i] for i in predictions.labels] == table["label"].tolist()
    for m, raw in enumerate(store.manifest()["candidates"]):
        for fold in range(2):
            rows = np.flatnonzero(table["fold"] == fold)
            proba = store.cell(Candidate.from_dict(raw).id, fold).proba
            np.testing.assert_array_equal(predictions.proba[m, rows], proba)


def test_ray_is_gone_when_the_run_is_over(finished_run: Any) -> None:
    end = time.monotonic() + 120  # what was told to end may still be at it
    while _ray_processes() and time.monotonic() < end:
        time.sleep(0.1)
    assert _ray_processes() == []


def test_the_same_command_again_trains_nothing_that_is_done(
    finished_run: Any, copied: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the search's failed trials are known; but a person may have mended the cause, so they are tried again."""
    pinned = copied.config.read_text().replace("trials: 4", "trials: 2")
    copied.config.write_text(pinned)
    before, board = _stamps(copied.run), (copied.run / "leaderboard.parquet").read_bytes()
    _no_ray(monkeypatch)
    Experiment.from_config(copied.config, copied.run).run()
    assert _stamps(copied.run) == before
    old = pd.read_parquet(finished_run.run / "leaderboard.parquet")
    new = pd.read_parquet(copied.run / "leaderboard.parquet")
    pd.testing.assert_series_equal(old["cv"], new["cv"])
    assert board


def test_the_run_and_its_config_say_the_same_from_anywhere(
    finished_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    again = Config.load(finished_run.run / "config.yaml")
    assert again.data.source == str(finished_run.images / "train")
    assert again.resolved() == Config.load(finished_run.config).resolved()


def test_a_further_backbone_trains_only_its_own_cells(copied: Any) -> None:
    text = copied.config.read_text().replace("trials: 4", "trials: 2")
    copied.config.write_text(
        text.replace("backbones:\n", "backbones:\n  - test_byobnet: {weights: random}\n")
    )
    before = _stamps(copied.run)
    trials = {t["number"]: t for t in RunStore(copied.run).trials()}
    with without_ray():
        assert main(["run", str(copied.config), "-o", str(copied.run)]) == 0
    after = _stamps(copied.run)
    assert {p: s for p, s in after.items() if p in before} == before
    added = {p.parent.parent.name for p in after if p not in before}
    store = RunStore(copied.run)
    new = [c for c in store.manifest()["candidates"] if c["backbone"] == "test_byobnet"]
    assert added == {Candidate.from_dict(new[0]).id}
    assert len(store.predictions().members) == 4
    assert all(t == trials[t["number"]] for t in store.trials() if t["number"] in trials)
    assert len(store.leaderboard() or []) == 8


def test_a_backbone_that_is_taken_away_leaves_the_leaderboard(
    copied: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        copied.config.read_text()
        .replace("trials: 4", "trials: 1")
        .replace("  - test_efficientnet: {weights: random}\n", "")
    )
    copied.config.write_text(text)
    _no_ray(monkeypatch)
    Experiment.from_config(copied.config, copied.run).run()
    store = RunStore(copied.run)
    assert {c["backbone"] for c in store.manifest()["candidates"]} == {"test_resnet"}
    assert all("efficientnet" not in row["name"] for row in store.leaderboard() or [])


def test_a_changed_image_is_another_run(copied: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _no_ray(monkeypatch)
    file = next((copied.images / "train" / "ant").iterdir())
    Image.fromarray(np.full((24, 24, 3), 7, np.uint8)).save(file)
    before = {p: p.read_bytes() for p in copied.run.rglob("*") if p.is_file()}
    with pytest.raises(RunMismatchError, match="made from something else: images: the content of some files"):
        Experiment.from_config(copied.config, copied.run).run()
    assert {p: p.read_bytes() for p in copied.run.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("folds: {k: 2, seed: 0", "folds: {k: 2, seed: 1", "folds.seed was 0, is 1"),
        ("image_size: 32", "image_size: 24", "image_size was 32, is 24"),
        ("keep: 3", "keep: 3\nseed: 5", "seed was 0, is 5"),
    ],
)
def test_other_folds_size_or_seed_are_another_run(
    old: str, new: str, names: str, copied: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _no_ray(monkeypatch)
    copied.config.write_text(copied.config.read_text().replace(old, new))
    with pytest.raises(RunMismatchError, match=names):
        Experiment.from_config(copied.config, copied.run).run()


def test_moved_images_and_weights_are_the_same_run(copied: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _no_ray(monkeypatch)
    text = copied.config.read_text().replace("trials: 4", "trials: 2")
    copied.config.write_text(text.replace("images/", "moved/").replace("weights.saf", "moved/weights.saf"))
    copied.images.rename(copied.home / "moved")
    (copied.home / "weights.safetensors").rename(copied.home / "moved" / "weights.safetensors")
    Experiment.from_config(copied.config, copied.run).run()


# ---------------------------------------------------------------------- GPUs, ASHA, Optuna


LEARNING = """
name: learning
data: {source: images/train, image_size: 32}
folds: {k: 2}
metric: accuracy
backbones: [{test_resnet: {weights: random}}]
recipe: {batch_size: 8, flip: false}
search: {trials: 5, epochs: 4, algorithm: optuna, scheduler: asha}
keep: 1
ensembles: [mean]
resources: {gpus: 0.5}
"""


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, write_experiment: Callable[..., Path]) -> Any:
    """A sweep of Optuna and ASHA on two logical GPUs; each Cell notes which it was given."""
    from ensembler.tuning.events import EventWriter
    from ensembler.tuning.sweep import Sweep

    home = tmp_path_factory.mktemp("learning")
    experiment = Experiment.from_config(write_experiment(home, LEARNING, 36), home / "run")

    class NotingStore(RunStore):
        def commit_cell(self, result: Any, fingerprint: str) -> bool:
            import ray

            ids = ray.get_gpu_ids()
            (self.path / f"gpu-{result.job.candidate.id}-{result.job.fold}").write_text(json.dumps(ids))
            return super().commit_cell(result, fingerprint)

    backbones = experiment.preparation.backbones()
    images, folds = experiment.preparation.prepare(backbones)
    from ensembler.training.candidate import TrainingData

    data = TrainingData(
        images.oof,
        images.table.oof.labels,
        images.table.classes,
        tuple((f.train, f.monitor, f.holdout) for f in folds),
        images.table.fingerprint,
        {},
        home / "features",
        "accuracy",
    )
    store = NotingStore(home / "run")
    sweep = Sweep(experiment.config, data, backbones, store, EventWriter(store))
    result = sweep.run(gpus=2)
    return sweep, result, store


def test_trials_run_on_shares_of_logical_gpus(learned: Any) -> None:
    sweep, _, store = learned
    assert (sweep.resources.cpus, sweep.resources.gpus) == (1, 0.5)
    notes = list(store.path.glob("gpu-*"))
    assert notes
    assert all(len(json.loads(note.read_text())) == 1 for note in notes)


def test_the_arithmetic_is_measured_once_and_remembered(learned: Any) -> None:
    _, _, store = learned
    numerics = store.manifest()["numerics"]
    assert set(numerics) == {"test_resnet"}
    assert numerics["test_resnet"]["precision"] in ("fp32", "bf16")


def test_under_asha_a_trial_at_its_last_epoch_is_finished_and_none_other_is_called_so(learned: Any) -> None:
    _, _, store = learned
    trials = store.trials()
    assert len(trials) == 5
    assert [t["number"] for t in trials] == [0, 1, 2, 3, 4]
    for trial in trials:
        if trial["epochs"] == 4:
            assert trial["status"] == "finished"
        assert trial["status"] in ("finished", "stopped")
        assert 1 <= trial["epochs"] <= 4
        assert [h["epoch"] for h in trial["history"]] == list(range(1, trial["epochs"] + 1))
        assert math.isfinite(trial["score"])
    assert trials[0]["candidate"]["recipe"]["lr"] == learned[0].arms[0].default.recipe.lr


def test_the_kept_candidate_is_the_best_that_finished(learned: Any) -> None:
    _, result, store = learned
    finished = [t for t in store.trials() if t["status"] == "finished"]
    best = max(t["score"] for t in finished)
    assert next(c.to_dict() for c in result.candidates) in [
        t["candidate"] for t in finished if t["score"] == best
    ]
    assert len(result.candidates) == 1


def test_a_sweep_that_is_done_starts_no_ray(learned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ensembler.tuning.sweep import Sweep

    sweep, result, store = learned
    _no_ray(monkeypatch)
    again = Sweep(sweep.config, sweep.data, sweep.backbones, RunStore(store.path), sweep.observer)
    assert again.run().candidates == result.candidates
