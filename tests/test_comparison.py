"""The comparison alone: what is stored is what was fitted, and stale results are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ensembler import comparison
from ensembler.combiners import COMBINERS
from ensembler.comparison import (
    combine,
    compare,
    load_fits,
    read_leaderboard,
    restored_combiner,
    start_bare_run,
)
from ensembler.errors import PredictionsError, RunLockedError, RunMismatchError, StoreError
from ensembler.metrics import get_metric
from ensembler.predictions import Predictions
from ensembler.store import RunStore


def _predictions(
    members: int = 3, seed: int = 0, n: int = 60, labels: np.ndarray | None = None
) -> Predictions:
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet([1, 1, 1], (members, n))
    truth = np.arange(n) % 3 if labels is None else labels
    proba[:, np.arange(n), truth] += np.linspace(0.3, 1, members)[:, None]
    return Predictions.from_arrays(proba / proba.sum(-1, keepdims=True), truth, np.arange(n) % 4)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    test = Predictions.from_arrays(rng.dirichlet([1, 1, 1], (3, 12)), np.arange(12) % 3, split="test")
    _predictions().save(tmp_path / "p.npz", test)
    return tmp_path / "p.npz"


#: Enough for what is not about the combiners.
FEW = ("mean", "greedy", "boosting", "stacking", "calibrated")


@pytest.fixture
def store(tmp_path: Path, file: Path) -> RunStore:
    store = RunStore(tmp_path / "run")
    start_bare_run(store, file, "log_loss", [(name, {}) for name in FEW])
    return store


def test_stored_ensembles_are_the_fitted_ones_to_the_bit(tmp_path: Path, file: Path) -> None:
    store = RunStore(tmp_path / "run")
    start_bare_run(store, file, "log_loss", [(name, {}) for name in COMBINERS])
    fits = combine(store)
    predictions = store.predictions()
    again = load_fits(store, predictions)
    assert [f.name for f in again] == [f.name for f in fits] == list(COMBINERS)
    for one, two in zip(fits, again, strict=True):
        np.testing.assert_array_equal(one.predictions.proba, two.predictions.proba)
        assert (one.in_sample, one.score, one.optimism) == (two.in_sample, two.score, two.optimism)
        np.testing.assert_array_equal(
            one.combiner.predict(predictions).proba, two.combiner.predict(predictions).proba
        )
    direct, reread = compare(store, fits), compare(store)
    assert direct.to_json() == reread.to_json()


def test_the_test_column_is_the_fitted_combiner_on_the_test_split(store: RunStore) -> None:
    combine(store)
    test = store.test_predictions()
    assert test is not None
    for row in compare(store).to_records():
        if row["kind"] == "ensemble":
            proba = restored_combiner(store, row["name"]).predict(test).proba[0]
        else:
            proba = test.select([row["name"]]).proba[0]
        assert row["test"] == pytest.approx(get_metric("log_loss")(test.labels, proba))


def test_no_place_on_the_board_depends_on_the_test_split(store: RunStore) -> None:
    fits = combine(store)
    before = [row["name"] for row in compare(store, fits).to_records()]
    test = store.test_predictions()
    assert test is not None
    flipped = Predictions.from_arrays(test.proba, (test.labels + 1) % 3, split="test")
    store.write_predictions(store.predictions(), flipped)
    after = compare(store, fits)
    assert [row["name"] for row in after.to_records()] == before


def test_ensembles_of_other_members_are_refused(store: RunStore) -> None:
    combine(store)
    fewer = _predictions(2)
    with pytest.raises(
        StoreError, match="ensemble 'mean' is of other members; run `ensembler combine` again"
    ):
        load_fits(store, fewer)


def test_an_ensemble_taken_from_the_list_is_deleted(store: RunStore) -> None:
    combine(store)
    store.update_manifest(ensembles=[["mean", {}]])
    combine(store)
    assert store.ensembles() == ["mean"]


def test_a_stored_combiner_that_is_unknown_here_is_told(store: RunStore) -> None:
    combine(store)
    file = store.path / "ensembles" / "mean" / "state.json"
    file.write_text(file.read_text().replace('"combiner": "mean"', '"combiner": "evil"'))
    with pytest.raises(StoreError, match=r"unknown combiner 'evil'.*; run `ensembler combine` again"):
        compare(store)


def test_a_combiner_optimises_the_metric_of_the_run_unless_told_otherwise(tmp_path: Path, file: Path) -> None:
    store = RunStore(tmp_path / "run")
    start_bare_run(store, file, "accuracy", [("greedy", {}), ("bagging", {"metric": "log_loss"})])
    by_name = {fit.name: fit for fit in combine(store)}
    assert by_name["greedy"].combiner.get_params()["metric"] == "accuracy"
    assert by_name["bagging"].combiner.get_params()["metric"] == "log_loss"


def test_one_combiner_in_several_ensembles_is_told_apart_by_name(tmp_path: Path, file: Path) -> None:
    store = RunStore(tmp_path / "run")
    entries = [
        ("greedy", {}),
        ("greedy-1", {"combiner": "greedy", "rounds": 1}),
        ("calm", {"combiner": "calibrated", "base": "greedy", "base_params": {"rounds": 2}}),
    ]
    start_bare_run(store, file, "accuracy", entries)
    fits = {fit.name: fit for fit in combine(store)}
    assert store.ensembles() == ["calm", "greedy", "greedy-1"]
    assert fits["greedy-1"].combiner.get_params()["rounds"] == 1
    assert fits["calm"].combiner.get_params()["base_params"] == {"metric": "accuracy", "rounds": 2}
    rows = {row["name"]: row for row in compare(store).to_records()}
    assert rows["greedy-1"]["kind"] == rows["calm"]["kind"] == "ensemble"
    assert restored_combiner(store, "calm").name == "calibrated"


def test_other_predictions_are_another_run(store: RunStore, tmp_path: Path) -> None:
    _predictions(seed=5).save(tmp_path / "q.npz")
    before = (store.path / "oof.npz").read_bytes()
    with pytest.raises(RunMismatchError, match="predictions was"):
        start_bare_run(store, tmp_path / "q.npz", "log_loss")
    assert (store.path / "oof.npz").read_bytes() == before


def test_a_run_that_somebody_works_on_is_not_touched(store: RunStore, file: Path) -> None:
    before = store.manifest()
    with store.lock(), pytest.raises(RunLockedError):
        start_bare_run(store, file, "accuracy")
    assert store.manifest() == before


def test_bad_predictions_write_nothing(tmp_path: Path) -> None:
    (tmp_path / "p.npz").write_bytes(b"bad")
    with pytest.raises(PredictionsError):
        start_bare_run(RunStore(tmp_path / "run"), tmp_path / "p.npz", "log_loss")
    assert not (tmp_path / "run").exists()


def test_a_missing_leaderboard_is_rebuilt_and_a_missing_ensemble_is_told(store: RunStore) -> None:
    with pytest.raises(StoreError, match=r"no readable ensemble .*run `ensembler combine` again"):
        read_leaderboard(store)
    combine(store)
    assert len(read_leaderboard(store).frame) == 3 + len(FEW)
    assert store.leaderboard() is None, "who reads writes nothing"


def test_a_run_killed_before_it_had_predictions_is_told(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    store.claim({"predictions": "x"})
    for stage in (combine, compare):
        with pytest.raises(StoreError, match="no candidate is trained on every fold yet"):
            stage(store)


def test_shuffled_labels_leave_every_ensemble_at_chance(tmp_path: Path) -> None:
    labels = np.random.default_rng(3).permutation(np.arange(240) % 3)
    rng = np.random.default_rng(4)
    noise = Predictions.from_arrays(rng.dirichlet([1, 1, 1], (6, 240)), labels, np.arange(240) % 4)
    noise.save(tmp_path / "p.npz")
    store = RunStore(tmp_path / "run")
    start_bare_run(store, tmp_path / "p.npz", "accuracy", [(name, {}) for name in COMBINERS])
    spread = np.sqrt(1 / 3 * 2 / 3 / 240)
    for row in compare(store, combine(store)).to_records():
        if row["kind"] == "ensemble":  # one in 1,000 is further off by chance, and there are many
            assert abs(row["cv"] - 1 / 3) <= 3.3 * spread, row["name"]


def test_tables_are_copied_beside_a_report(store: RunStore, tmp_path: Path) -> None:
    combine(store)
    board = compare(store)
    comparison.copy_tables(store, board, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "leaderboard.json").read_text()) == json.loads(board.to_json())


def test_the_best_ensemble_within_a_limit_is_a_row_and_a_limit_that_nothing_meets_is_told(
    store: RunStore,
) -> None:
    members = store.predictions().members
    costs = {name: {"latency_ms": 10.0 * (i + 1), "weights_bytes": 1000} for i, name in enumerate(members)}
    store.update_manifest(costs=costs, limits={"max_latency_ms": 10, "max_members": 2, "max_bytes": 10})
    combine(store)
    board = compare(store)
    rows = {row["name"]: row for row in board.to_records()}
    assert rows["max-10ms"]["members"] == [members[0]]
    assert rows["max-10ms"]["latency_ms"] == 10
    assert 1 <= len(rows["max-2members"]["members"]) <= 2
    assert [f["name"] for f in board.failed] == ["max-1e-05MB"]
    assert "no member costs 10 or less" in board.failed[0]["reason"]
    assert read_leaderboard(store).failed == board.failed
    store.update_manifest(limits={})
    combine(store)
    assert {row["name"] for row in compare(store).to_records()} == rows.keys() - {"max-10ms", "max-2members"}
