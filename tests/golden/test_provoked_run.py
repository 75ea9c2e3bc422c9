"""What is said of a run's folder, its config and what became of its images."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ensembler.comparison import read_leaderboard
from ensembler.config import Config
from ensembler.draft import write_draft
from ensembler.errors import ConfigError, DataError, EnsemblerError, RunMismatchError, StoreError
from ensembler.forking import require_forkable
from ensembler.preparation import Preparation
from ensembler.propose import _k
from ensembler.store import RunStore, understood

CONFIG = "name: x\ndata: {source: images}\nbackbones: [resnet10t]\nfolds: {k: 3}\n"
IDENTITY = {"fingerprint": "f", "folds": "x", "image_size": 64, "seed": 0}


@pytest.fixture
def run(tmp_path: Path) -> RunStore:
    store = RunStore(tmp_path / "run")
    store.update_manifest(name="run")
    return store


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config.parse(CONFIG, tmp_path / "c.yaml")


# ---------------------------------------------------------------------- the folder


def test_a_leaderboard_that_lacks_what_every_row_has(run: RunStore) -> None:
    run.write_leaderboard([{"name": "mean", "kind": "ensemble", "metric": None}])
    with pytest.raises(StoreError, match=r"leaderboard\.parquet: damaged .*; delete it, it is rebuilt$"):
        read_leaderboard(run)


def test_a_file_system_that_locks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    footing = pytest.importorskip("ensembler.footing")
    monkeypatch.setattr(footing, "fcntl", SimpleNamespace(LOCK_EX=2, LOCK_NB=4, flock=lambda *_: None))
    with pytest.raises(StoreError, match=r"keeps no locks \(two processes were given the same one\), so two"):
        footing.require_locks(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="elsewhere a lock is part of the open file")
def test_a_file_system_that_knows_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    footing = pytest.importorskip("ensembler.footing")

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(footing, "fcntl", SimpleNamespace(LOCK_EX=2, LOCK_NB=4, flock=flock))
    with pytest.raises(
        StoreError,
        match=r"keeps no locks \(No locks available\), so two drivers .* on another, such as a local",
    ):
        footing.require_locks(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"classes": "cat"}, "classes is 'cat', no list; run the command that made it again"),
        ({"candidates": [7]}, "candidates holds 7, no dict; run the command that made it again"),
        (
            {"version": 99},
            "version 99, and ensembler 1.0 knows up to 1: a later one wrote this run; install that",
        ),
    ],
)
def test_a_manifest_that_is_none(
    entry: dict[str, Any], says: str, run: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ensembler.store.__version__", "1.0")
    run.update_manifest(**entry)
    with pytest.raises(StoreError) as caught:
        run.manifest()
    assert f"{run.path / 'manifest.json'}: {says}" in str(caught.value)


def test_garbage_in_a_run_names_the_run() -> None:
    with (
        pytest.raises(
            StoreError, match=r"runs/x: damaged \(KeyError: 'k'\); run the command that made it again"
        ),
        understood(Path("runs/x")),
    ):
        {}["k"]


def test_where_a_run_cannot_be_forked_to(run: RunStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="a run cannot be forked into itself; give --fork another folder"):
        require_forkable(run, RunStore(run.path))
    other = RunStore(tmp_path / "other")
    other.update_manifest(name="other")
    with pytest.raises(
        StoreError,
        match=r"other: there is a run already, which was not forked from .*run; give --fork another folder",
    ):
        require_forkable(run, other)


# ---------------------------------------------------------------------- the config against what is there


def test_a_run_that_was_made_with_another_seed(config: Config, run: RunStore) -> None:
    run.claim(IDENTITY)
    table: Any = SimpleNamespace(frame=None)
    with pytest.raises(
        RunMismatchError,
        match="made from something else: seed was 0, is 1; undo that, choose another folder with -o, or take over",
    ):
        Preparation(config, run)._refuse_changes({**IDENTITY, "seed": 1}, table)


def test_copies_that_leave_too_few_groups_for_the_folds(config: Config, run: RunStore) -> None:
    oof = SimpleNamespace(labels=np.array([0, 1] * 6), groups=None, fold=None)
    table: Any = SimpleNamespace(oof=oof, classes=("cat", "dog"))
    with pytest.raises(
        DataError,
        match=r"2 for 3 folds; .* \(copies of one picture count as one here; data.duplicates: ignore lets folds",
    ):
        Preparation(config, run)._folds(table, np.array(["a"] * 6 + ["b"] * 6))


def test_images_that_have_moved(config: Config, run: RunStore) -> None:
    with pytest.raises(
        DataError,
        match=r"images: no such folder; .*; if the images have moved, say where they are now: data.source in .*c.yaml",
    ):
        Preparation(config, run).table()


@pytest.mark.parametrize(
    ("act", "error", "says"),
    [
        (
            lambda folder: write_draft("images", folder / "run" / "manifest.json", print),
            ConfigError,
            "exists already; remove it, or name another with -o FILE",
        ),
        (
            lambda _: _k(np.array([0, 0, 1]), None, None, ("cat", "dog")),
            DataError,
            "folds: 1 images of class dog, the smallest, cannot be held out and trained on; add images of it",
        ),
    ],
)
def test_no_config_can_be_proposed(
    act: Callable[[Path], object], error: type[EnsemblerError], says: str, run: RunStore
) -> None:
    with pytest.raises(error) as caught:
        act(run.path.parent)
    assert says in str(caught.value)
