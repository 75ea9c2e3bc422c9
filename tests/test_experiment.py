"""An experiment as Python calls it; and random labels through the whole road."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensembler.comparison import read_leaderboard
from ensembler.data.cache import cache_dir
from ensembler.errors import ConfigError, RunLockedError, StoreError, TrainingError
from ensembler.experiment import Experiment
from ensembler.store import RunStore
from tests.without_ray import without_ray


def test_the_same_in_python(finished_run: Any) -> None:
    experiment = Experiment.from_run(finished_run.run)
    board = experiment.leaderboard()
    predictions = experiment.predictions()
    singles = set(board[board["kind"] == "single"]["name"])
    assert singles == set(predictions.members)
    assert read_leaderboard(experiment.store).verdict.sentence


def test_a_run_has_a_default_place(
    finished_run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Experiment.from_config(finished_run.config).store.path == tmp_path / "runs" / "small"


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no run here"):
        Experiment.from_run(tmp_path)
    RunStore(tmp_path / "bare").update_manifest(name="bare")
    with pytest.raises(ConfigError, match="made from bare predictions"):
        Experiment.from_run(tmp_path / "bare")


def test_a_second_driver_is_refused(finished_run: Any) -> None:
    with RunStore(finished_run.run).lock(), pytest.raises(RunLockedError, match="already being worked on"):
        Experiment.from_config(finished_run.config, finished_run.run).run()


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ENSEMBLER_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("ENSEMBLER_CACHE")
    assert cache_dir() == Path.home() / ".cache" / "ensembler"


def test_the_test_split_is_not_read_before_the_winner_is_chosen(
    finished_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep is given the out-of-fold pixels alone."""
    seen: dict[str, Any] = {}

    class Spy:
        def __init__(self, config: Any, data: Any, *_: Any) -> None:
            seen["data"] = data

        def run(self) -> Any:
            raise TrainingError("enough")

    monkeypatch.setattr("ensembler.tuning.sweep.Sweep", Spy)
    with pytest.raises(TrainingError, match="enough"):
        Experiment.from_config(finished_run.config, tmp_path / "run").run()
    data = seen["data"]
    assert len(np.load(data.pixels, mmap_mode="r")) == 60 == len(data.labels)
    assert sorted(np.concatenate([f[2] for f in data.folds]).tolist()) == list(range(60))


def test_skipped_images_are_listed_and_the_run_goes_on(
    tmp_path: Path, write_images: Callable[..., Path], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    write_images(tmp_path / "images")
    (tmp_path / "images" / "ant" / "bad.png").write_bytes(b"no image")
    (tmp_path / "x.yaml").write_text(
        "name: x\ndata: {source: images, image_size: 32, unreadable: skip}\nfolds: {k: 2}\n"
        "backbones: [{test_resnet: {weights: random}}]\n"
    )
    experiment = Experiment.from_config(tmp_path / "x.yaml", tmp_path / "run")
    preparation = experiment.preparation
    images, folds = preparation.prepare(preparation.backbones())
    assert len(images.table.oof) == 60
    assert "warning: skipped ant/bad.png: " in capsys.readouterr().err
    assert [row[0] for row in experiment.store.manifest()["unreadable"]] == ["ant/bad.png"]
    assert experiment.store.manifest()["pixels"] == {"oof": images.oof.name}, (
        "the app finds the decoded copies by it"
    )
    assert len(folds) == 2


RANDOM = """
name: random
data: {source: images, image_size: 32}
folds: {k: 3}
metric: accuracy
backbones: [{test_resnet: {weights: random}}, {test_efficientnet: {weights: random}}]
recipe: {batch_size: 16}
search: {trials: 2, epochs: 3, algorithm: random, scheduler: none}
ensembles: [mean, geometric, greedy, bagging, boosting, samme, stacking]
numerics: {precision: fp32, channels_last: true}
"""


def test_with_random_labels_no_ensemble_is_better_than_chance(
    tmp_path: Path, draw_images: Callable[..., Any]
) -> None:
    """Real images, real training, labels drawn by lot: what leaks anywhere shows here."""
    from PIL import Image

    images, _ = draw_images(120)
    labels = np.random.default_rng(7).permutation(np.arange(120) % 3)
    for i, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        folder = tmp_path / "images" / "abc"[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    (tmp_path / "random.yaml").write_text(RANDOM)
    with without_ray():
        board = Experiment.from_config(tmp_path / "random.yaml", tmp_path / "run").run()
    rows = board.to_records()
    assert len(rows) == 2 + 7
    for row in rows:
        assert row["metric"] == "accuracy"
        assert row["cv_low"] <= 1 / 3 <= row["cv_high"], row["name"]
    assert not board.verdict.better


def test_a_sweep_in_which_nothing_can_be_trained_says_why(
    tmp_path: Path, write_images: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Probing random weights is asked for, which means nothing: there is no candidate at all."""
    write_images(tmp_path / "images")
    (tmp_path / "x.yaml").write_text(
        "name: x\ndata: {source: images, image_size: 32}\nfolds: {k: 2}\nstrategies: [probe]\n"
        "backbones: [{test_resnet: {weights: random}}]\n"
    )
    import ray

    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started for nothing"))
    with pytest.raises(TrainingError, match="no candidate could be trained on every fold: no trial ended"):
        Experiment.from_config(tmp_path / "x.yaml", tmp_path / "run").run()
