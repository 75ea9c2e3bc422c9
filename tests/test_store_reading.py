"""What the run directory tells those who only read it."""

from __future__ import annotations

import platform
import re
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from ensembler.errors import StoreError
from ensembler.store import RunStore, machine
from ensembler.training.candidate import Candidate, CellJob, CellResult, Epoch
from ensembler.training.recipe import Recipe

TRAINED = Candidate("test_resnet", "random", "full", Recipe())
FROZEN = Candidate("test_resnet", "random", "probe", Recipe())


def cell(candidate: Candidate, fold: int) -> CellResult:
    return CellResult(
        job=CellJob(candidate, fold, 0),
        proba=np.full((2, 2), 0.5, np.float32),
        weights={"w": np.zeros(1, np.float32)},
        temperature=1.0,
        score=0.5,
        best_epoch=1,
        history=(Epoch(1, 1e-3, 1.0, 0.9 + fold, 0.5, 0.9, 0.1, 10.0),),
        train_s=1.0,
        params=1,
        notes=(),
    )


def test_learning_curves_are_those_of_what_was_trained(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    with store.lock():
        store.claim({"data": "f" * 8})
        for fold in (0, 1):
            for candidate in (TRAINED, FROZEN):
                store.commit_cell(cell(candidate, fold), "f" * 8)
        store.update_manifest(k=2, candidates=[])
        assert store.histories().empty
        store.update_manifest(candidates=[TRAINED.to_dict(), FROZEN.to_dict()])
    curves = store.histories()
    assert curves["candidate"].tolist() == [TRAINED.name] * 2
    assert curves["fold"].tolist() == [0, 1]
    assert curves["epoch"].tolist() == [1, 1]


def test_a_run_is_claimed_while_a_driver_holds_it(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    assert not store.claimed
    with store.lock():
        assert store.claimed
    assert not store.claimed


def test_how_fold_models_collapse_is_kept(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    with store.lock():
        store.claim({"data": "f" * 8})
        assert store.collapse() == {}
        store.write_collapse({"rows": [{"way": "soup"}]})
    assert RunStore(tmp_path / "run").collapse() == {"rows": [{"way": "soup"}]}


def test_where_the_probabilities_of_an_ensemble_lie(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    assert store.ensemble_file("mean") == tmp_path / "run" / "ensembles" / "mean" / "proba.npy"
    assert store.ensembles() == []


def test_a_library_that_is_not_installed_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(package: str) -> str:
        if package == "xgboost":
            raise metadata.PackageNotFoundError(package)
        return real(package)

    monkeypatch.setattr(metadata, "version", version)
    versions = machine()["versions"]
    assert versions["xgboost"] == "absent"
    assert versions["numpy"] == np.__version__
    assert versions["python"] == platform.python_version()
    libraries = {"ensembler", "torch", "timm", "ray", "scikit-learn", "xgboost", "numpy", "pillow"}
    assert versions.keys() == {"python", *libraries}
    assert [name for name in libraries if versions[name] == "absent"] == ["xgboost"]


def test_no_state_of_an_ensemble_holds_what_json_does_not(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    with store.lock(), pytest.raises(ValueError, match="not JSON compliant"):
        store.write_ensemble("mean", {"weight": float("nan")}, {}, np.zeros((2, 2), np.float32))
    assert store.ensembles() == []


def test_whoever_reads_makes_a_board_that_is_gone(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    with store.lock():
        store.write_leaderboard([{"name": "mean", "cv": 0.5}])
        assert [row["name"] for row in store.leaderboard() or ()] == ["mean"]
        store.drop_leaderboard()
        store.drop_leaderboard()  # there need not be one
    assert store.leaderboard() is None


def test_what_cells_in_training_left_is_deleted(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    (store.unfinished / "cell").mkdir(parents=True)
    store.discard_unfinished()
    assert not store.unfinished.exists()
    store.discard_unfinished()


def test_a_config_comes_back_in_its_order_and_its_letters(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    assert store.config() == {}
    config = {"name": "Käfer", "folds": {"k": 3, "a": 1}, "backbones": ["x"]}
    store.write_config(config)
    assert list(store.config()) == ["name", "folds", "backbones"]
    assert store.config() == config
    assert "name: Käfer\n" in (store.path / "config.yaml").read_text(encoding="utf-8")


def test_a_config_that_is_no_yaml_is_named_with_the_way_out(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    store.path.mkdir()
    (store.path / "config.yaml").write_text("name: [")
    with pytest.raises(StoreError, match=r"config\.yaml: .*run the command that made it again$"):
        store.config()


@pytest.mark.parametrize("file", ["config.yaml", "events.jsonl"])
def test_a_file_that_cannot_be_read_is_named(file: str, tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    (store.path / file).mkdir(parents=True)
    with pytest.raises(StoreError, match=re.escape(str(store.path / file)) + ": cannot be read"):
        store.config() if file == "config.yaml" else store.events()
