"""Screening: scores of frozen features equal to scikit-learn's, and ranks that trust no single score."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from ensembler.training import screening
from ensembler.training.screening import FeatureScore, knn_score, linear_score, rank_backbones

TRAIN, MONITOR = np.arange(90), np.arange(90, 150)


def _rows(signal: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """150 rows of 3 classes, of which 30 at the end are neither train nor monitor rows."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, 180)
    centres = np.random.default_rng(7).normal(size=(3, 8))
    return (signal * centres[y] + rng.normal(size=(180, 8)) + 3).astype(np.float32), y


def test_neighbours_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = _rows(1.0)
    centred = x - x[TRAIN].mean(0)
    for k in (1, 5, 20):
        peer = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(centred[TRAIN], y[TRAIN])
        proba = (peer.predict_proba(centred[MONITOR]) * k + 1 / 3) / (k + 1)
        expected = FeatureScore(
            float((proba.argmax(1) == y[MONITOR]).mean()),
            float(-np.log(proba[np.arange(60), y[MONITOR]]).mean()),
        )
        monkeypatch.setattr(screening, "NEIGHBOURS", (k,))
        found = knn_score(x, y, TRAIN, MONITOR, 3)
        assert found.log_loss == pytest.approx(expected.log_loss, rel=1e-6)
        assert found.accuracy == pytest.approx(expected.accuracy, abs=1e-9)


@pytest.mark.parametrize("score", [knn_score, linear_score])
def test_clearer_features_score_higher_and_noise_is_chance(score: type[FeatureScore]) -> None:
    noise, weak, strong = (score(*_rows(signal), TRAIN, MONITOR, 3) for signal in (0.0, 0.7, 3.0))
    assert noise.accuracy < weak.accuracy < strong.accuracy
    assert noise.log_loss > weak.log_loss > strong.log_loss
    assert noise.log_loss == pytest.approx(np.log(3), abs=0.2)
    assert strong.accuracy > 0.95


@pytest.mark.parametrize("score", [knn_score, linear_score])
def test_other_rows_are_not_looked_at(score: type[FeatureScore]) -> None:
    x, y = _rows(1.0)
    before = score(x, y, TRAIN, MONITOR, 3)
    x[150:], y[150:] = np.nan, 0
    assert score(x, y, TRAIN, MONITOR, 3) == before


def test_few_rows_and_missing_classes_are_scored() -> None:
    x, y = _rows(3.0)
    few = np.concatenate([np.flatnonzero(y[:90] == c)[:1] for c in range(3)])
    for score in (knn_score, linear_score):
        found = score(x, y, few, MONITOR, 6)
        assert 0 <= found.accuracy <= 1
        assert np.isfinite(found.log_loss)


# ---------------------------------------------------------------------- ranks


def test_neither_features_nor_imagenet_decide_alone() -> None:
    features = {"easy": 0.9, "even": 0.8, "poor": 0.7, "odd": 0.3}
    imagenet = {"easy": 60.0, "even": 80.0, "poor": 61.0, "odd": 81.0}
    families = dict.fromkeys(features, "cnn")
    assert rank_backbones(features, features, imagenet, families, 1) == ["even"]


def test_the_best_of_each_family_comes_before_the_second_of_any() -> None:
    score = {"cnn-1": 0.9, "cnn-2": 0.8, "cnn-3": 0.7, "vit-1": 0.6, "vit-2": 0.5, "own": 0.1}
    families = {name: name.split("-")[0] for name in score if "-" in name}
    ranked = ["cnn-1", "vit-1", "own", "cnn-2", "vit-2", "cnn-3"]
    assert rank_backbones(score, score, score, families, 9) == ranked
    assert rank_backbones(score, score, score, families, 2) == ranked[:2]


def test_an_unknown_imagenet_accuracy_is_neither_praise_nor_blame() -> None:
    score = {"a": 0.9, "b": 0.9, "c": 0.9}
    imagenet = {"a": 80.0, "c": 70.0}
    assert rank_backbones(score, score, imagenet, dict.fromkeys(score, "x"), 3) == ["a", "b", "c"]
    assert rank_backbones(score, score, {"z": 99.0}, {}, 3) == ["a", "b", "c"]  # known of others only


def test_order_of_the_input_does_not_matter_and_it_is_left_alone() -> None:
    rng = np.random.default_rng(3)
    names = [f"m{i}" for i in range(8)]
    knn, linear, top1 = ({n: float(rng.integers(0, 4)) for n in names} for _ in range(3))
    families = {n: "ab"[i % 2] for i, n in enumerate(names)}
    first = rank_backbones(knn, linear, top1, families, 8)
    turned = [dict(reversed(d.items())) for d in (knn, linear, top1)]
    assert rank_backbones(*turned, families, 8) == first
    assert sorted(first) == names
    assert list(knn) == names


def test_scores_of_different_backbones_are_refused() -> None:
    with pytest.raises(ValueError, match="different backbones: b, c"):
        rank_backbones({"a": 1, "b": 1}, {"a": 1, "c": 1}, {}, {}, 1)
    assert rank_backbones({}, {}, {}, {}, 3) == []
