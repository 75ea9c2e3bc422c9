"""An ensemble that somebody saved is a row like any other, and stays one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensembler.bundle import Bundle
from ensembler.cli import main
from ensembler.combiners import make_combiner
from ensembler.comparison import (
    combine,
    compare,
    load_fits,
    read_leaderboard,
    restored_combiner,
    start_bare_run,
)
from ensembler.errors import CombinerError, ConfigError, RunLockedError, StoreError
from ensembler.experiment import Experiment
from ensembler.metrics import get_metric
from ensembler.predictions import Predictions
from ensembler.saved import checked_name, saved_entries
from ensembler.saving import forget_ensemble, save_ensemble
from ensembler.store import RunStore

#: Entries as the lab makes them.
HAND = {"combiner": "weighted", "weights": {"m0": 1.0, "m2": 3.0}}
PAIR = {"combiner": "subset", "members": ["m0", "m1"], "base": "greedy"}


def _predictions(members: int = 3, seed: int = 0, split: Any = "oof") -> Predictions:
    rng = np.random.default_rng(seed)
    labels = np.arange(90) % 3
    logits = (
        rng.normal(size=(members, 90, 3)) + np.linspace(1.6, 2, members)[:, None, None] * np.eye(3)[labels]
    )
    proba = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    fold = np.arange(90) // 3 % 3 if split == "oof" else None
    return Predictions.from_arrays(proba, labels, fold, split=split)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    _predictions().save(tmp_path / "p.npz", _predictions(seed=1, split="test"))
    store = RunStore(tmp_path / "run")
    start_bare_run(store, tmp_path / "p.npz", "log_loss", [("mean", {}), ("greedy", {})])
    compare(store, combine(store))
    return store


def _rows(store: RunStore) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in store.leaderboard() or []}


def test_it_stands_on_the_leaderboard_with_its_members_its_score_and_a_note(store: RunStore) -> None:
    save_ensemble(store, "pair", PAIR)
    board = save_ensemble(store, " hand ", HAND)
    predictions = store.predictions()
    rows = _rows(store)
    expected = 0.25 * predictions.proba[0] + 0.75 * predictions.proba[2]
    assert rows["hand"]["cv"] == pytest.approx(get_metric("log_loss")(predictions.labels, expected), abs=1e-6)
    assert rows["hand"]["members"] == ["m0", "m2"]
    assert set(rows["pair"]["members"]) <= {"m0", "m1"}
    assert rows["hand"]["note"] == "weights set by hand: the score is not cross-fitted, and may flatter"
    assert rows["pair"]["note"] == "members chosen by hand: the score may flatter"
    assert rows["mean"]["note"] is None
    test = store.test_predictions()
    assert test is not None
    tested = restored_combiner(store, "hand").predict(test).proba[0]
    assert rows["hand"]["test"] == pytest.approx(get_metric("log_loss")(test.labels, tested))
    assert read_leaderboard(store).to_json() == board.to_json()


def test_the_verdict_does_not_count_what_was_made_looking_at_the_scores(store: RunStore) -> None:
    before = read_leaderboard(store).verdict
    best = make_combiner("convex").fit(store.predictions())
    assert best.weights_ is not None
    weights = dict(zip(best.members_, best.weights_.tolist(), strict=True))
    save_ensemble(store, "flattered", {"combiner": "weighted", "weights": weights})
    board = read_leaderboard(store)
    assert board.frame.iloc[0]["name"] == "flattered", "else this shows nothing"
    assert board.verdict.best_ensemble == before.best_ensemble
    assert board.verdict.winner == before.winner
    assert compare(store).verdict.best_ensemble == before.best_ensemble


def test_it_survives_another_combine_and_the_command_line(
    store: RunStore, tmp_path: Path, capsys: Any
) -> None:
    save_ensemble(store, "hand", HAND)
    before = _rows(store)["hand"]
    combine(store)
    compare(store)
    assert _rows(store)["hand"] == before
    store.update_manifest(ensembles=[["mean", {}]])
    assert main(["combine", str(store.path)]) == 0
    capsys.readouterr()
    assert store.ensembles() == ["hand", "mean"]
    assert "hand" in _rows(store)
    assert main(["combine", "--predictions", str(tmp_path / "p.npz"), "-o", str(store.path)]) == 0
    assert "hand" in _rows(store)


def test_it_is_what_was_fitted_to_the_bit(store: RunStore) -> None:
    save_ensemble(store, "pair", PAIR)
    predictions = store.predictions()
    (fit,) = [f for f in load_fits(store, predictions) if f.name == "pair"]
    again = {f.name: f for f in combine(store)}["pair"]
    np.testing.assert_array_equal(fit.predictions.proba, again.predictions.proba)
    np.testing.assert_array_equal(
        fit.combiner.predict(predictions).proba, again.combiner.predict(predictions).proba
    )


def test_an_entry_can_be_written_into_a_config_as_it_stands(store: RunStore) -> None:
    save_ensemble(store, "pair", PAIR)
    before = _rows(store)["pair"]
    (entry,) = json.loads((store.path / "manifest.json").read_text())["saved_ensembles"]
    store.update_manifest(ensembles=[["mean", {}], entry], saved_ensembles=[])
    compare(store, combine(store))
    after = _rows(store)["pair"]
    assert (after["members"], after["note"]) == (before["members"], None)
    assert after["cv"] == pytest.approx(before["cv"])


def test_removed_it_is_gone_and_only_a_saved_one_can_be_removed(store: RunStore) -> None:
    before = _rows(store)
    save_ensemble(store, "hand", HAND)
    with pytest.raises(ConfigError, match="'mean': no saved ensemble; did you mean 'hand'"):
        forget_ensemble(store, "mean")
    forget_ensemble(store, "hand")
    assert store.ensembles() == ["greedy", "mean"]
    assert _rows(store) == before
    assert saved_entries(store.manifest()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "expected up to 100 letters"),
        ("../../up", "expected up to 100 letters"),
        (".hidden", "expected up to 100 letters"),
        ("a/b", "expected up to 100 letters"),
        ("<script>", "expected up to 100 letters"),
        ("x" * 101, "expected up to 100 letters"),
        ("a\nb", "expected up to 100 letters"),
        ("stacking", "is a combiner's; choose one of its own, such as 'my-stacking'"),
        ("Greedy", "is a combiner's"),
        ("max-20ms", "is kept for ensembles under a limit"),
        ("M1", "'m1' stands on the leaderboard already"),
        ("Short", "'short' stands on the leaderboard already"),
    ],
)
def test_a_name_that_is_none_is_refused_and_nothing_is_written(
    store: RunStore, name: str, message: str
) -> None:
    store.update_manifest(ensembles=[["mean", {}], ["short", {"combiner": "greedy", "rounds": 2}]])
    combine(store)
    before = store.manifest(), store.ensembles(), _rows(store)
    with pytest.raises(ConfigError, match=message):
        save_ensemble(store, name, HAND)
    assert (store.manifest(), store.ensembles(), _rows(store)) == before


def test_a_name_is_taken_once(store: RunStore) -> None:
    save_ensemble(store, "hand", HAND)
    with pytest.raises(ConfigError, match="'hand' stands on the leaderboard already; choose another"):
        save_ensemble(store, "Hand", PAIR)
    assert checked_name(" fine-1.0_b ", ["hand"]) == "fine-1.0_b"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"combiner": "weighted", "weights": {"x": 1.0}}, "weights names 'x'"),
        ({"combiner": "subset", "members": ["m0", "x"]}, "members names 'x'"),
        ({"combiner": "voodoo"}, "unknown combiner 'voodoo'"),
        ({"combiner": "greedy", "round": 3}, "unknown parameter 'round'"),
    ],
)
def test_what_cannot_be_made_is_refused_and_nothing_is_written(
    store: RunStore, options: dict[str, Any], message: str
) -> None:
    before = store.manifest(), store.ensembles()
    with pytest.raises(CombinerError, match=message):
        save_ensemble(store, "mine", options)
    assert (store.manifest(), store.ensembles()) == before


def test_while_somebody_works_on_the_run_nothing_is_changed(store: RunStore) -> None:
    save_ensemble(store, "hand", HAND)
    before = store.manifest()
    with store.lock():
        with pytest.raises(RunLockedError, match="already being worked on by process"):
            save_ensemble(store, "pair", PAIR)
        with pytest.raises(RunLockedError):
            forget_ensemble(store, "hand")
    assert store.manifest() == before


def test_one_whose_members_are_gone_or_whose_name_was_taken_is_told_and_comes_back(store: RunStore) -> None:
    save_ensemble(store, "hand", HAND)
    save_ensemble(store, "pair", PAIR)
    whole = store.predictions()
    store.write_predictions(whole.select(["m0", "m1"]), None)
    store.update_manifest(ensembles=[["mean", {}], ["pair", {"combiner": "greedy"}]])
    combine(store)
    board = compare(store)
    assert {row["name"] for row in board.to_records()} == {"m0", "m1", "mean", "pair"}
    assert _rows(store)["pair"]["note"] is None
    reasons = {entry["name"]: entry["reason"] for entry in board.failed}
    assert "weights names 'm2'" in reasons["hand"]
    assert "another row bears its name" in reasons["pair"]
    assert read_leaderboard(store).failed == board.failed
    store.write_predictions(whole, None)
    store.update_manifest(ensembles=[["mean", {}]])
    combine(store)
    assert {"hand", "pair"} <= {row["name"] for row in compare(store).to_records()}


def test_a_manifest_that_holds_something_else_there_is_told(store: RunStore) -> None:
    store.update_manifest(saved_ensembles=["hand"])
    with pytest.raises(StoreError, match="saved_ensembles holds 'hand'; expected a name and options"):
        combine(store)


# ---------------------------------------------------------------------- of a run that was trained


@pytest.mark.parametrize("kind", ["hand", "subset"])
def test_exported_it_predicts_what_the_leaderboard_scored(
    kind: str, finished_run: Any, tmp_path: Path
) -> None:
    home = shutil.copytree(finished_run.home, tmp_path / "home")
    config = home / "run" / "config.yaml"
    config.write_text(config.read_text().replace(str(finished_run.home), str(home)))
    store = RunStore(home / "run")
    members = list(store.predictions().members)
    entries: dict[str, dict[str, Any]] = {
        "hand": {"combiner": "weighted", "weights": {members[0]: 1.0, members[1]: 2.0}},
        "subset": {"combiner": "subset", "members": members[:2], "base": "stacking"},
    }
    save_ensemble(store, "mine", entries[kind])
    row = _rows(store)["mine"]
    assert row["test"] is not None
    costs = store.manifest()["costs"]
    assert row["latency_ms"] == pytest.approx(sum(costs[m]["latency_ms"] for m in members[:2]))
    bundle = Bundle.load(Experiment.from_run(store.path).export(tmp_path / "bundle", "mine"))
    assert list(bundle.members) == sorted(members[:2], key=row["members"].index)
    table = store.table()
    table = table[table["split"] == "test"]
    classes = store.manifest()["classes"]
    labels = np.array([classes.index(label) for label in table["label"]])
    proba = bundle.predict([Path(p.replace(str(finished_run.home), str(home))) for p in table["path"]])
    assert get_metric("log_loss")(labels, proba) == pytest.approx(row["test"], abs=1e-5)
