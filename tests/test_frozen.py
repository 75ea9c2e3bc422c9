"""Combiners that look at images get the run's frozen features, and what needs them is not shipped without."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ensembler.combiners import COMBINERS, make_combiner
from ensembler.comparison import combine, compare, exportable_combiner, load_fits, start_bare_run
from ensembler.config import Config
from ensembler.errors import BundleError, CombinerError, ConfigError, PredictionsError, StoreError
from ensembler.evaluation.cross_fit import cross_fit
from ensembler.experiment import Experiment
from ensembler.frozen import Rows, best_frozen
from ensembler.metrics import get_metric
from ensembler.predictions import Predictions
from ensembler.saving import save_ensemble
from ensembler.store import RunStore
from ensembler.training.candidate import Candidate, CellJob, CellResult

N, K = 90, 3
LABELS = np.arange(N) % 3
FOLD = np.arange(N) // 3 % K
NEAR = {"combiner": "knora_u", "space": "features", "k": 5}
SEEN = {"combiner": "stacking_ridge", "passthrough": True}


def _proba(seed: int) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=(N, 3)) + 1.5 * np.eye(3)[LABELS]
    return np.asarray(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), np.float32)


#: Candidate -> its score on monitor rows.
SCORES = {
    Candidate("test_resnet", "w", "probe"): 0.9,
    Candidate("test_convnext", "w", "probe"): 0.7,
    Candidate("test_resnet", "w", "lp-ft"): 0.2,
}


def _run(path: Path, scores: dict[Candidate, float], metric: str = "log_loss") -> RunStore:
    """A run of these candidates, each backbone with features of its own."""
    store = RunStore(path)
    store.claim({"fingerprint": "f"})
    table = {"id": [f"i{i}" for i in range(N)], "path": "x", "label": np.array(["a", "b", "c"])[LABELS]}
    store.write_table(pd.DataFrame(table | {"group": None, "split": "oof", "fold": FOLD}))
    for i, (candidate, score) in enumerate(scores.items()):
        for fold in range(K):
            proba = _proba(i)[fold == FOLD]
            result = CellResult(
                CellJob(candidate, fold), proba, {"w": np.zeros(1)}, 1.0, score, 0, (), 1.0, 9
            )
            store.commit_cell(result, "f")
        store.features.mkdir(exist_ok=True)
        rng = np.random.default_rng(len(candidate.backbone))
        features = rng.normal(size=(N, 4)) + 2 * np.eye(4)[LABELS]
        np.save(store.features_file(candidate), features.astype(np.float32))
    store.update_manifest(
        metric=metric,
        classes=["a", "b", "c"],
        k=K,
        candidates=[c.to_dict() for c in scores],
        ensembles=[["mean", {}], ["near", NEAR], ["seen", SEEN]],
    )
    return store


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return _run(tmp_path / "run", SCORES)


def _features(store: RunStore, candidate: Candidate) -> np.ndarray:
    return np.asarray(np.load(store.features_file(candidate)))


def test_heads_on_frozen_features_tell_which_backbone_has_the_best(store: RunStore, tmp_path: Path) -> None:
    resnet, convnext, fine_tuned = SCORES
    assert best_frozen(store) == convnext, "the lower log loss; what was fine-tuned is not asked"
    store.update_manifest(metric="accuracy")
    assert best_frozen(store) == resnet
    store.features_file(resnet).unlink()
    assert best_frozen(store) == convnext
    assert best_frozen(_run(tmp_path / "other", {fine_tuned: float("nan")})) == fine_tuned


def test_combiners_that_need_features_are_fitted_with_them_and_others_are_not(store: RunStore) -> None:
    fits = {fit.name: fit for fit in combine(store)}
    rows = store.predictions().with_features(_features(store, list(SCORES)[1]))
    for name, options in (("near", NEAR), ("seen", SEEN)):
        params = {key: value for key, value in options.items() if key != "combiner"}
        expected = cross_fit(make_combiner(options["combiner"], **params), rows, get_metric("log_loss"))
        np.testing.assert_array_equal(fits[name].predictions.proba, expected.predictions.proba)
    assert fits["mean"].predictions.features is None
    board = compare(store)
    records = {row["name"]: row for row in board.to_records()}
    assert "reads frozen features of test_convnext" in records["near"]["note"]
    assert records["mean"]["note"] is None
    assert [fit.score for fit in load_fits(store, store.predictions())] == [f.score for f in fits.values()]


def test_no_label_of_a_fold_has_an_influence_on_its_rows(store: RunStore) -> None:
    rows = Rows(store, store.predictions()).given_to(make_combiner("knora_u", space="features"))
    labels = rows.labels.copy()
    labels[rows.fold == 0] = (labels[rows.fold == 0] + 1) % 3
    flipped = Predictions.from_arrays(
        rows.proba, labels, rows.fold, members=rows.members, classes=rows.classes, features=rows.features
    )
    for options in ({"space": "features"}, {"space": "predictions"}):
        fits = [
            cross_fit(make_combiner("competence", **options), p, get_metric("brier")) for p in (rows, flipped)
        ]
        one, two = (fit.predictions.proba[0][rows.fold == 0] for fit in fits)
        np.testing.assert_array_equal(one, two)


def test_a_run_without_features_says_so(store: RunStore) -> None:
    shutil.rmtree(store.features)
    with pytest.raises(CombinerError, match="knora_u: needs frozen features, and this run has none"):
        combine(store)
    store.update_manifest(ensembles=[["mean", {}]])
    compare(store, combine(store))
    with pytest.raises(CombinerError, match="subset: needs frozen features"):
        save_ensemble(
            store, "mine", {"combiner": "subset", "base": "knora_e", "base_params": {"space": "features"}}
        )
    assert store.ensembles() == ["mean"]


@pytest.mark.parametrize("content", [b"bad", None])
def test_damaged_features_are_told(store: RunStore, content: bytes | None) -> None:
    file = store.features_file(list(SCORES)[1])
    if content is None:
        np.save(file, np.zeros((5, 2), np.float32))
    else:
        file.write_bytes(content)
    with pytest.raises(StoreError, match=r"\.npy: .*delete it and run the same command again"):
        combine(store)


def test_saved_ensembles_may_need_features_too(store: RunStore) -> None:
    store.update_manifest(ensembles=[["mean", {}]])
    compare(store, combine(store))
    options = {"combiner": "subset", "members": [], "base": "knora_u", "base_params": {"space": "features"}}
    board = save_ensemble(store, "mine", options)
    (row,) = [r for r in board.to_records() if r["name"] == "mine"]
    assert "by hand" in row["note"]
    assert "reads frozen features of test_convnext" in row["note"]
    assert {fit.name for fit in combine(store)} == {"mean", "mine"}


@pytest.mark.parametrize(
    ("key", "params"),
    [
        ("knora_e", {"space": "features"}),
        ("stacking", {"passthrough": True}),
        ("calibrated", {"base": "competence", "base_params": {"space": "features"}}),
        ("levels", {"levels": [["mean", {"stacking_knn": {"space": "features"}}], ["greedy"]]}),
        (
            "subset",
            {
                "base": "bagged",
                "base_params": {"base": "stacking_ridge", "base_params": {"passthrough": True}},
            },
        ),
    ],
)
def test_who_needs_features_says_so_however_deep(key: str, params: dict[str, Any]) -> None:
    assert make_combiner(key, **params).needs_features


@pytest.mark.parametrize("key", COMBINERS)
def test_nobody_needs_features_without_being_told(key: str) -> None:
    assert not make_combiner(key).needs_features


def test_predictions_from_elsewhere_bring_features_for_the_test_split_too(tmp_path: Path) -> None:
    def rows(split: Any) -> Predictions:
        rng = np.random.default_rng(split == "test")
        proba = np.stack([_proba(0), _proba(1)])
        fold = FOLD if split == "oof" else None
        features = rng.normal(size=(N, 3)).astype(np.float32)
        return Predictions.from_arrays(proba, LABELS, fold, split=split, features=features)

    rows("oof").save(tmp_path / "p.npz", rows("test"))
    store = RunStore(tmp_path / "run")
    start_bare_run(store, tmp_path / "p.npz", "log_loss", [("near", NEAR)])
    fits = combine(store)
    (row,) = [r for r in compare(store, fits).to_records() if r["name"] == "near"]
    tested = fits[0].combiner.predict(rows("test")).proba[0]
    assert row["test"] == pytest.approx(get_metric("log_loss")(LABELS, tested))


def test_features_are_a_row_an_image_and_finite() -> None:
    rows = Predictions.from_arrays(_proba(0), LABELS, FOLD)
    assert rows.with_features(np.ones((N, 2))).features is not None
    with pytest.raises(PredictionsError, match="features: 5 rows; proba has 90"):
        rows.with_features(np.ones((5, 2)))
    with pytest.raises(PredictionsError, match="is not finite"):
        rows.with_features(np.full((N, 2), np.nan))


def test_a_config_that_makes_no_features_is_refused(tmp_path: Path) -> None:
    text = """
name: pets
data: {source: digits}
backbones: [test_resnet]
strategies: [full]
screen: false
ensembles: [mean, {near: {combiner: knora_u, space: features}}]
"""
    with pytest.raises(ConfigError, match=r":7 ensembles.*: reads frozen features, which nothing makes here"):
        Config.parse(text, tmp_path / "pets.yaml")
    assert Config.parse(text.replace("screen: false", "screen: true"), tmp_path / "pets.yaml").ensembles


def test_on_a_run_that_was_trained_it_stands_on_the_leaderboard_and_is_not_exported(
    finished_run: Any, tmp_path: Path
) -> None:
    store = RunStore(shutil.copytree(finished_run.run, tmp_path / "run"))
    store.update_manifest(ensembles=[["mean", {}], ["near", NEAR], ["seen", SEEN]])
    board = compare(store, combine(store))
    rows = {row["name"]: row for row in board.to_records()}
    assert "reads frozen features of test_resnet" in rows["near"]["note"]
    assert rows["near"]["test"] is None
    assert rows["mean"]["test"] is not None
    with pytest.raises(
        BundleError, match="'near': cannot be exported, because its knora_u reads frozen features"
    ):
        Experiment.from_run(store.path).export(tmp_path / "bundle", "near")
    assert not (tmp_path / "bundle").exists()
    assert exportable_combiner(store, "mean").name == "mean"
