"""What makes a run another one is told field by field; what does not is passed over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ensembler.changes import changes
from ensembler.store import RunStore

IDENTITY = {"fingerprint": "f", "folds": "g", "image_size": 32, "seed": 0}
SETTINGS = {
    "data": {"image_size": 32},
    "folds": {"k": 2, "seed": 0},
    "seed": 0,
    "metric": "log_loss",
    "keep": 3,
}
VERSIONS = {"torch": "2.15.0+cpu", "timm": "1.0.31", "pillow": "12.3.0", "ray": "2.60.0"}


def _table(**labels: str) -> pd.DataFrame:
    columns = {"id": list(labels), "path": list(labels), "label": list(labels.values())}
    return pd.DataFrame({**columns, "group": None, "split": "oof", "fold": 0})


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    store = RunStore(tmp_path / "run")
    store.claim(IDENTITY)
    store.write_config(SETTINGS)
    store.write_table(_table(a="ant", b="bee", c="cow"))
    store.update_manifest(metric="log_loss", machine={"versions": VERSIONS})
    return store


def _changes(store: RunStore, images: pd.DataFrame | None = None, **now: Any) -> list[str]:
    """Against what the run began with, but for what is given: parts of the identity, settings, versions."""
    identity = IDENTITY | {key: now.pop(key) for key in list(now) if key in IDENTITY}
    versions = VERSIONS | now.pop("versions", {})
    images = _table(a="ant", b="bee", c="cow") if images is None else images
    return changes(store, identity, images, SETTINGS | now, versions)


def test_nothing_has_changed(store: RunStore) -> None:
    assert _changes(store) == []


def test_a_run_that_is_still_to_begin_has_nothing_to_differ_from(tmp_path: Path) -> None:
    assert _changes(RunStore(tmp_path / "new"), fingerprint="z") == []


def test_a_run_may_grow(store: RunStore) -> None:
    assert _changes(store, keep=5) == []


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (_table(a="ant", b="bee", c="cow", d="dog"), ["images: 1 ('d') is new"]),
        (_table(a="ant"), ["images: 2 ('b', 'c') are gone"]),
        (
            _table(a="ant", b="cow", c="cow"),
            ["images: 1 ('b') is of another label (the first was 'bee', is 'cow')"],
        ),
        (_table(a="ant", b="bee", x="cow"), ["images: 1 ('x') is new", "images: 1 ('c') is gone"]),
        (
            _table(a="ant", b="bee", c="cow").assign(split=["oof", "oof", "test"]),
            ["images: 1 ('c') is of another split (the first was 'oof', is 'test')"],
        ),
        (None, ["images: the content of some files, their groups or their predefined folds are others"]),
    ],
)
def test_images(images: pd.DataFrame | None, told: list[str], store: RunStore) -> None:
    assert _changes(store, images, fingerprint="other") == told


def test_many_images_are_counted_and_the_first_of_them_named(store: RunStore) -> None:
    images = _table(**{f"n{i}": "ant" for i in range(9)}, a="ant", b="bee", c="cow")
    assert _changes(store, images, fingerprint="other") == ["images: 9 ('n0', 'n1', 'n2', ...) are new"]


def test_the_settings_of_the_folds_are_told_and_folds_alone_where_no_setting_tells(store: RunStore) -> None:
    settings = SETTINGS | {"folds": {"k": 4, "seed": 1}}
    told = changes(store, IDENTITY | {"folds": "h"}, _table(a="ant"), settings, VERSIONS)
    assert told == ["folds.k was 2, is 4", "folds.seed was 0, is 1"]
    told = changes(store, IDENTITY | {"folds": "h"}, _table(a="ant"), SETTINGS, VERSIONS)
    assert told == ["the folds are drawn otherwise than they were"]


def test_size_seed_and_metric(store: RunStore) -> None:
    told = _changes(store, image_size=64, seed=5, metric="accuracy")
    assert told == ["data.image_size was 32, is 64", "seed was 0, is 5", "metric was log_loss, is accuracy"]


def test_libraries_that_decide_the_bits_and_no_others(store: RunStore) -> None:
    assert _changes(store, versions={"ray": "3.0.0"}) == []
    assert _changes(store, versions={"torch": "2.15.0+cu130"}) == [], "a GPU's build of the same version"
    told = _changes(store, versions={"torch": "2.16.0", "pillow": "13.0.0"})
    assert told == ["torch was 2.15.0, is 2.16.0", "pillow was 12.3.0, is 13.0.0"]


def test_a_run_that_does_not_know_its_versions_goes_on(store: RunStore) -> None:
    store.update_manifest(machine={})
    assert _changes(store, versions={"torch": "9.0.0"}) == []
