"""The run directory: whole or absent, one driver at a time, never of something else."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ensembler.combiners import make_combiner
from ensembler.errors import PredictionsError, RunLockedError, RunMismatchError, StoreError
from ensembler.predictions import Predictions
from ensembler.store import RunStore, find_runs, machine
from ensembler.training.candidate import Candidate, CellJob, CellResult, Epoch
from ensembler.training.recipe import Recipe

FINGERPRINT = "f" * 8
CANDIDATES = [Candidate("test_resnet", "random", "full", Recipe(lr=lr)) for lr in (1e-3, 2e-3)]


def _result(candidate: Candidate, fold: int, rows: int = 4, seed: int = 0) -> CellResult:
    rng = np.random.default_rng([seed, fold, int(candidate.recipe.lr * 1e6)])
    proba = rng.dirichlet([1, 1, 1], rows).astype(np.float32)
    return CellResult(
        job=CellJob(candidate, fold, seed),
        proba=proba,
        weights={"fc.weight": rng.normal(size=(3, 5)).astype(np.float32)},
        temperature=1.25,
        score=0.5,
        best_epoch=2,
        history=(
            Epoch(1, 1e-3, 1.0, 0.9, 0.5, 0.9, 0.1, 10.0),
            Epoch(2, 1e-4, 0.8, 0.7, 0.6, 0.7, 0.1, 10.0),
        ),
        train_s=1.5,
        params=20,
        notes=("a note",),
    )


def _tree(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "run")


@pytest.fixture
def swept(store: RunStore) -> RunStore:
    """A run of two candidates and three folds of four rows."""
    labels = ["ant", "bee", "cow"] * 4
    store.write_table(
        pd.DataFrame(
            {
                "id": [f"i{i}" for i in range(14)],
                "path": [f"/x/{i}" for i in range(14)],
                "label": [*labels, "ant", "bee"],
                "group": None,
                "split": ["oof"] * 12 + ["test"] * 2,
                "fold": [*np.arange(12) % 3, -1, -1],
            }
        )
    )
    store.update_manifest(classes=["ant", "bee", "cow"], candidates=[c.to_dict() for c in CANDIDATES], k=3)
    for candidate in CANDIDATES:
        for fold in range(3):
            assert store.commit_cell(_result(candidate, fold), FINGERPRINT)
    return store


# ---------------------------------------------------------------------- cells


def test_a_cell_comes_back_as_it_went_in(store: RunStore) -> None:
    result = _result(CANDIDATES[0], 1)
    assert store.commit_cell(result, FINGERPRINT)
    cell = store.cell(CANDIDATES[0].id, 1)
    np.testing.assert_array_equal(cell.proba, result.proba)
    np.testing.assert_array_equal(cell.weights()["fc.weight"], result.weights["fc.weight"])
    assert (cell.candidate, cell.fold, cell.temperature, cell.score) == (CANDIDATES[0], 1, 1.25, 0.5)
    assert (cell.best_epoch, cell.train_s, cell.params, cell.notes) == (2, 1.5, 20, ("a note",))
    assert cell.history()["monitor_loss"].tolist() == [0.9, 0.7]
    assert {p.name for p in cell.path.iterdir()} == {
        "result.json",
        "proba.npy",
        "history.parquet",
        "model.safetensors",
    }


def test_a_second_commit_of_the_same_cell_changes_no_byte(store: RunStore) -> None:
    store.commit_cell(_result(CANDIDATES[0], 0), FINGERPRINT)
    inodes = {p: p.stat().st_ino for p in store.path.rglob("*")}
    assert not store.commit_cell(_result(CANDIDATES[0], 0, seed=0), FINGERPRINT)
    assert {p: p.stat().st_ino for p in store.path.rglob("*")} == inodes


def test_a_changed_image_seed_fold_or_recipe_is_another_cell(store: RunStore) -> None:
    store.commit_cell(_result(CANDIDATES[0], 0), FINGERPRINT)
    assert store.has_cell(CellJob(CANDIDATES[0], 0), FINGERPRINT)
    assert not store.has_cell(CellJob(CANDIDATES[0], 0), "other images")
    assert not store.has_cell(CellJob(CANDIDATES[0], 0, seed=1), FINGERPRINT)
    assert not store.has_cell(CellJob(CANDIDATES[0], 1), FINGERPRINT)
    assert not store.has_cell(CellJob(CANDIDATES[1], 0), FINGERPRINT)
    assert store.has_cell(CellJob(CANDIDATES[0], 0, threads=7), FINGERPRINT)


def test_a_stale_cell_is_replaced_whole(store: RunStore) -> None:
    store.commit_cell(_result(CANDIDATES[0], 0), "old images")
    fresh = _result(CANDIDATES[0], 0, rows=6)
    assert store.commit_cell(fresh, FINGERPRINT)
    np.testing.assert_array_equal(store.cell(CANDIDATES[0].id, 0).proba, fresh.proba)
    assert not store.has_cell(CellJob(CANDIDATES[0], 0), "old images")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"{}"])
def test_a_damaged_result_is_no_cell_and_is_trained_again(content: bytes, store: RunStore) -> None:
    store.commit_cell(_result(CANDIDATES[0], 0), FINGERPRINT)
    file = store.path / "cells" / CANDIDATES[0].id / "0" / "result.json"
    file.write_bytes(content)
    assert not store.has_cell(CellJob(CANDIDATES[0], 0), FINGERPRINT)
    with pytest.raises(StoreError) as caught:
        store.cell(CANDIDATES[0].id, 0)
    assert str(file.parent) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert store.commit_cell(_result(CANDIDATES[0], 0), FINGERPRINT)
    assert store.cell(CANDIDATES[0].id, 0).score == 0.5


def test_a_result_that_the_disk_does_not_give_is_not_trained_again(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.commit_cell(_result(CANDIDATES[0], 0), FINGERPRINT)

    def broken(*_: object, **__: object) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", broken)
        for ask in (
            lambda: store.has_cell(CellJob(CANDIDATES[0], 0), FINGERPRINT),
            lambda: store.commit_cell(_result(CANDIDATES[0], 0), "other images"),
        ):
            with pytest.raises(
                StoreError, match=r"result\.json: cannot be read \(Input/output error\); see to the disk"
            ):
                ask()
    assert store.has_cell(CellJob(CANDIDATES[0], 0), FINGERPRINT)


@pytest.mark.parametrize("name", ["proba.npy", "model.safetensors", "history.parquet"])
@pytest.mark.parametrize("content", [b"", b"\x80\x04cposix\nsystem\n", b"garbage" * 9])
def test_a_damaged_array_is_named_and_never_unpickled(name: str, content: bytes, store: RunStore) -> None:
    store.commit_cell(_result(CANDIDATES[0], 0), FINGERPRINT)
    folder = store.path / "cells" / CANDIDATES[0].id / "0"
    (folder / name).write_bytes(content)

    def read() -> None:
        cell = store.cell(CANDIDATES[0].id, 0)
        cell.weights()
        cell.history()

    with pytest.raises(StoreError, match=r"no readable Cell .*; delete the folder and run again") as caught:
        read()
    assert str(folder) in str(caught.value)


def test_an_absent_cell_is_named(store: RunStore) -> None:
    with pytest.raises(StoreError, match="cells/abc/2"):
        store.cell("abc", 2)


@pytest.mark.parametrize("step", ["fsync", "rename", "mkdir", "open"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_while_a_cell_is_committed_leaves_the_run_as_it_was(
    step: str, code: int, swept: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _tree(swept.path)

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    target = {
        "fsync": (os, "fsync"),
        "rename": (Path, "rename"),
        "mkdir": (Path, "mkdir"),
        "open": (Path, "write_text"),
    }
    with monkeypatch.context() as patch:
        patch.setattr(*target[step], fail)
        with pytest.raises(StoreError, match=os.strerror(code)) as caught:
            swept.commit_cell(_result(CANDIDATES[0], 7), FINGERPRINT)
    assert f"cells/{CANDIDATES[0].id}/7" in str(caught.value)
    assert _tree(swept.path) == before
    assert not swept.has_cell(CellJob(CANDIDATES[0], 7), FINGERPRINT)


# ---------------------------------------------------------------------- predictions


def test_predictions_are_what_was_committed(swept: RunStore) -> None:
    predictions = swept.predictions()
    assert predictions.members == tuple(c.name for c in CANDIDATES)
    assert predictions.fold.tolist() == [0, 1, 2] * 4
    assert predictions.labels.tolist() == [0, 1, 2] * 4
    assert predictions.sample_ids.tolist() == [f"i{i}" for i in range(12)]
    for m, candidate in enumerate(CANDIDATES):
        for fold in range(3):
            np.testing.assert_array_equal(
                predictions.proba[m, predictions.fold == fold], _result(candidate, fold).proba
            )


def test_each_missing_fold_is_named(swept: RunStore) -> None:
    shutil.rmtree(swept.path / "cells" / CANDIDATES[0].id / "1")
    shutil.rmtree(swept.path / "cells" / CANDIDATES[1].id / "2")
    with pytest.raises(PredictionsError) as caught:
        swept.predictions()
    assert f"({CANDIDATES[0].name}, fold 1)" in str(caught.value)
    assert f"({CANDIDATES[1].name}, fold 2)" in str(caught.value)


def test_a_sweep_that_has_not_come_that_far_is_told(store: RunStore) -> None:
    store.update_manifest(classes=["a", "b"])
    with pytest.raises(StoreError, match="no candidate is trained on every fold yet"):
        store.predictions()


def _test_split() -> Predictions:
    proba = np.random.default_rng(0).dirichlet([1, 1], (1, 5)).astype(np.float32)
    return Predictions.from_arrays(proba, [0, 1, 0, 1, 0], members=["a"], classes=["x", "y"], split="test")


def test_test_predictions_survive_the_disk_and_damage_is_named(store: RunStore) -> None:
    assert store.test_predictions() is None
    test = _test_split()
    by_fold = np.stack([test.proba] * 3, axis=1)
    store.write_test(test, by_fold)
    np.testing.assert_array_equal(store.test_by_fold(), by_fold)
    again = store.test_predictions()
    assert again is not None
    np.testing.assert_array_equal(again.proba, test.proba)
    assert (again.members, again.classes, again.split) == (("a",), ("x", "y"), "test")
    (store.path / "test.npz").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(StoreError, match=r"test\.npz: cannot be read"):
        store.test_predictions()


def test_predictions_from_elsewhere_come_back_with_their_test_split(store: RunStore) -> None:
    proba = np.random.default_rng(0).dirichlet([1, 1], (1, 4)).astype(np.float32)
    oof = Predictions.from_arrays(proba, [0, 1, 0, 1], [0, 0, 1, 1], members=["a"], classes=["x", "y"])
    store.write_predictions(oof, _test_split())
    np.testing.assert_array_equal(store.predictions().proba, oof.proba)
    test = store.test_predictions()
    assert test is not None
    np.testing.assert_array_equal(test.proba, _test_split().proba)


# ---------------------------------------------------------------------- one driver at a time


HOLD = """
import sys, time
from ensembler.store import RunStore
with RunStore(sys.argv[1]).lock():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(store: RunStore) -> Any:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store.path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_driver_is_refused_naming_the_first_and_takes_over_when_it_is_killed(
    store: RunStore, holder: subprocess.Popen[str]
) -> None:
    with (
        pytest.raises(RunLockedError, match=f"already being worked on by process {holder.pid} on ") as caught,
        store.lock(),
    ):
        pytest.fail("two drivers at once")
    assert str(store.path) in str(caught.value)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with store.lock():
        assert json.loads((store.path / ".driver.json").read_text())["pid"] == os.getpid()


def test_the_same_process_cannot_hold_a_run_twice(store: RunStore) -> None:
    with (
        store.lock(),
        pytest.raises(RunLockedError, match=f"process {os.getpid()} "),
        RunStore(store.path).lock(),
    ):
        pytest.fail("two drivers at once")


def test_a_refusal_does_not_need_the_holder_s_note(store: RunStore, holder: subprocess.Popen[str]) -> None:
    (store.path / ".driver.json").write_text("{")
    with pytest.raises(RunLockedError, match="process unknown"), store.lock():
        pytest.fail("two drivers at once")


def test_the_lock_is_released_after_an_error(store: RunStore) -> None:
    store.update_manifest(name="x")
    with pytest.raises(ZeroDivisionError), store.lock():
        raise ZeroDivisionError
    with store.lock():
        pass
    assert {p.name for p in store.path.iterdir()} <= {"manifest.json", ".lock"}


def test_a_run_refused_before_anything_was_written_leaves_no_folder(store: RunStore) -> None:
    with pytest.raises(StoreError), store.lock():
        raise StoreError("no such backbone")
    assert not store.path.exists()


def test_where_locks_do_not_lock_no_new_folder_is_left(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise StoreError(f"{path}: keeps no locks")

    monkeypatch.setattr("ensembler.store.require_locks", refuse)
    for there in (False, True):
        with pytest.raises(StoreError, match="run: keeps no locks"), store.lock():
            pytest.fail("locked nothing")
        assert store.path.exists() is there
        store.path.mkdir(parents=True, exist_ok=True)


def test_a_driver_that_clears_up_is_no_fault_of_the_file_system(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may take away what another one, who is about to be refused, has just made to try the locks with."""
    real = os.open

    def cleared(path: Any, flags: int, *mode: int, **options: Any) -> int:
        handle = real(path, flags, *mode, **options)
        if ".tmp-" in str(path) and flags & os.O_CREAT and str(path).endswith("-lock"):
            Path(path).unlink()
        return handle

    with store.lock():
        monkeypatch.setattr(os, "open", cleared)
        with pytest.raises(RunLockedError, match=f"process {os.getpid()} "), RunStore(store.path).lock():
            pytest.fail("two drivers at once")


def test_a_folder_that_was_there_stays(store: RunStore) -> None:
    store.path.mkdir(parents=True)
    with store.lock():
        pass
    assert store.path.is_dir()


def test_what_a_killed_writer_left_is_swept_by_the_next_driver(swept: RunStore) -> None:
    before = _tree(swept.path)
    for folder in (".", "cells", f"cells/{CANDIDATES[0].id}", "search", "features", "ensembles"):
        (swept.path / folder).mkdir(exist_ok=True)
        (swept.path / folder / ".tmp-abc-x").mkdir()
        (swept.path / folder / ".tmp-abc-x" / "half").touch()
        (swept.path / folder / ".tmp-def-y.npy").touch()
    with swept.lock():
        assert not list(swept.path.rglob(".tmp-*"))
    after = _tree(swept.path)
    after.pop(".lock")
    assert after == before


def test_a_run_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(StoreError, match=r"run: cannot be written: Not a directory"),
        RunStore(tmp_path / "file" / "run").lock(),
    ):
        pytest.fail("locked nothing")


# ---------------------------------------------------------------------- manifest, events, stages


def test_a_run_is_bound_to_what_it_was_made_from(store: RunStore) -> None:
    store.claim({"fingerprint": "a", "folds": "b", "seed": 0})
    store.claim({"fingerprint": "a", "folds": "b", "seed": 0})
    with pytest.raises(RunMismatchError) as caught:
        store.claim({"fingerprint": "z", "folds": "b", "seed": 1})
    message = str(caught.value)
    assert "fingerprint was 'a', is 'z'; seed was 0, is 1" in message
    assert "folds" not in message
    assert str(store.path) in message


def test_the_manifest_keeps_what_is_not_changed(store: RunStore) -> None:
    store.update_manifest(a=1, b=2)
    created = store.manifest()["created"]
    store.update_manifest(b=3)
    assert store.manifest() == {"a": 1, "b": 3, "version": 1, "created": created}


def test_a_folder_without_a_manifest_is_no_run(tmp_path: Path) -> None:
    assert not RunStore(tmp_path).exists()
    with pytest.raises(StoreError, match=r"no run here \(manifest.json is missing\)"):
        RunStore(tmp_path).require()
    assert RunStore(tmp_path).config() == {}
    assert RunStore(tmp_path).manifest() == {}
    assert RunStore(tmp_path).events() == []
    assert RunStore(tmp_path).ensembles() == []
    assert RunStore(tmp_path).leaderboard() is None


def test_events_survive_a_line_torn_by_a_crash_also_when_others_follow(store: RunStore) -> None:
    store.path.mkdir(parents=True)
    store.event("one", value=1)
    with (store.path / "events.jsonl").open("a") as stream:
        stream.write('{"t": 1, "kind": "to')
    assert [e["kind"] for e in store.events()] == ["one"]
    store.event("lost")  # its line begins in the torn one
    store.event("two")
    with (store.path / "events.jsonl").open("ab") as stream:
        stream.write(b'{"kind": "\xff\xfe\n"}\n3\n')
    assert [e["kind"] for e in store.events()] == ["one", "two"]


def test_a_driver_ends_the_line_that_another_left_torn(store: RunStore) -> None:
    store.path.mkdir(parents=True)
    store.event("one")
    with (store.path / "events.jsonl").open("a") as stream:
        stream.write('{"t": 1, "kind": "to')
    with store.lock():
        store.event("two")
    assert [e["kind"] for e in store.events()] == ["one", "two"]


def test_an_event_that_the_disk_takes_half_of_is_told(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.path.mkdir(parents=True)
    store.event("one")
    write = os.write
    monkeypatch.setattr("ensembler.store.os.write", lambda handle, line: write(handle, line[:9]))
    with pytest.raises(
        StoreError, match=r"events\.jsonl: cannot be written: No space left on device; free space"
    ):
        store.event("two")
    assert [e["kind"] for e in store.events()] == ["one"]


def test_a_stage_is_timed_and_its_failure_told(store: RunStore) -> None:
    store.path.mkdir(parents=True)
    with store.stage("sweep"):
        pass
    with pytest.raises(ValueError, match="why"), store.stage("combine"):
        raise ValueError("why")
    assert list(store.manifest()["stages"]) == ["sweep"]
    states = [(e["stage"], e["state"], e.get("reason")) for e in store.events()]
    assert states == [
        ("sweep", "running", None),
        ("sweep", "done", None),
        ("combine", "running", None),
        ("combine", "failed", "ValueError: why"),
    ]


def test_trials_come_back_by_number(store: RunStore) -> None:
    for number in (11, 2, 100_000):
        store.write_trial(number, {"status": "finished"})
    assert sorted(t["number"] for t in store.trials()) == [2, 11, 100_000]
    (store.path / "search" / "00002.json").write_text("{")
    with pytest.raises(StoreError, match=r"00002\.json: cannot be read"):
        store.trials()


# ---------------------------------------------------------------------- ensembles, leaderboard, listing


def test_an_ensemble_comes_back_and_damage_is_named(swept: RunStore) -> None:
    predictions = swept.predictions()
    combiner = make_combiner("greedy").fit(predictions)
    state, arrays = combiner.get_state()
    for name in ("greedy", "other"):
        swept.write_ensemble(name, state, arrays, combiner.predict(predictions))
    assert swept.ensembles() == ["greedy", "other"]
    found, found_arrays, proba = swept.ensemble("greedy")
    assert found == json.loads(json.dumps(state))
    np.testing.assert_array_equal(found_arrays["weights_"], arrays["weights_"])
    np.testing.assert_array_equal(proba, combiner.predict(predictions).proba[0])
    swept.prune_ensembles({"greedy"})
    assert swept.ensembles() == ["greedy"]
    (swept.path / "ensembles" / "greedy" / "proba.npy").write_bytes(b"")
    with pytest.raises(StoreError, match=r"no readable ensemble .* run `ensembler combine` again"):
        swept.ensemble("greedy")


def test_the_leaderboard_keeps_lists_and_what_is_missing(store: RunStore) -> None:
    rows = [{"name": "a", "members": ["a", "b"], "fold_scores": [0.1, 0.2], "test": None, "params": 3}]
    store.path.mkdir(parents=True)
    store.write_leaderboard(rows)
    assert store.leaderboard() == rows
    (store.path / "leaderboard.parquet").write_bytes(b"no parquet")
    with pytest.raises(StoreError, match=r"leaderboard\.parquet: cannot be read .*delete it, it is rebuilt"):
        store.leaderboard()


def test_runs_are_found_newest_first(tmp_path: Path) -> None:
    for i, name in enumerate(("a", "b", ".hidden")):
        RunStore(tmp_path / name).update_manifest(name=name)
        os.utime(tmp_path / name / "manifest.json", (i, i))
    (tmp_path / "empty").mkdir()
    assert [run.name for run in find_runs(tmp_path)] == ["b", "a"]
    assert [run.name for run in find_runs(tmp_path / "a")] == ["a"]
    assert find_runs(tmp_path / "nowhere") == []


def test_the_machine_is_described_without_importing_torch() -> None:
    found = machine()
    assert found["cpus"] == os.cpu_count()
    assert found["versions"]["numpy"] == np.__version__
    assert found["versions"]["torch"] != "absent"


def test_nothing_in_a_run_is_a_pickle(swept: RunStore) -> None:
    for file in swept.path.rglob("*"):
        if file.is_file():
            assert file.suffix in (".json", ".npy", ".parquet", ".safetensors"), file
            if file.suffix == ".npy":
                np.load(file, allow_pickle=False)
