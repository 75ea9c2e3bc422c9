"""Heads on frozen features: equal to scikit-learn's, blind to the holdout rows, solved once a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from ensembler.errors import NonFiniteLossError, StoreError
from ensembler.folds import make_folds
from ensembler.probability import fit_temperature, log_softmax, softmax
from ensembler.training import head_cache, logistic
from ensembler.training.candidate import FROZEN_BODY, CellJob, TrainingData
from ensembler.training.features import ensure_features
from ensembler.training.gram import normal_equations
from ensembler.training.head_cache import ensure_head, heads_file
from ensembler.training.heads import PENALTIES, fit_head, fit_heads
from ensembler.training.logistic import fit_logistic
from ensembler.training.loop import train_cell


def _blobs(n: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int64) % 3
    centres = np.random.default_rng(9).normal(size=(3, 6)) * [1, 10, 0.1, 1, 1, 1]
    return (centres[labels] + rng.normal(0, noise, (n, 6))).astype(np.float32), labels


def _folds(n: int, k: int = 5) -> list[tuple[np.ndarray, np.ndarray]]:
    """(train, monitor) of each fold; what is in neither is its holdout."""
    return [(f.train, f.monitor) for f in make_folds(np.arange(n) % 3, k, 0)]


def test_it_is_the_logistic_regression_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = _blobs(120, 1.5, 0)
    monitor = _blobs(60, 1.5, 1)
    scaled = (x - x.mean(0)) / x.std(0)
    for penalty in (1e-1, 1e-2):
        monkeypatch.setitem(PENALTIES, "logistic", (penalty,))
        monkeypatch.setattr(logistic, "TOLERANCE", 1e-8)
        head = fit_head(x, y, *monitor, 3)
        assert head.penalty == penalty
        # scikit-learn sums the loss and halves the penalty: C = 1 / (n * penalty)
        peer = LogisticRegression(C=1 / (len(x) * penalty), tol=1e-8, max_iter=5000).fit(scaled, y)
        expected = peer.predict_proba((monitor[0] - x.mean(0)) / x.std(0))
        np.testing.assert_allclose(softmax(head.logits(monitor[0])), expected, atol=2e-3)


@pytest.mark.parametrize(("width", "n_classes"), [(5, 2), (40, 4), (150, 3)])
def test_every_penalty_has_the_loss_of_scikit_learn(width: int, n_classes: int) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, n_classes, 100)
    mixed = rng.normal(size=(width, width)) * np.logspace(0, -2, width)
    x = (rng.normal(size=(100, width)) @ mixed + 0.2 * rng.normal(size=(n_classes, width))[y]).astype(
        np.float32
    )
    (normal,) = normal_equations(torch.from_numpy(x), torch.from_numpy(y), [np.arange(100)], n_classes)
    spectrum = normal.spectrum()
    rows = spectrum.project(torch.from_numpy(x))
    penalties = torch.logspace(0, -4, 5)
    found = fit_logistic(rows, torch.from_numpy(y), spectrum.values, penalties, n_classes)
    for penalty, coefficients, bias in zip(penalties.tolist(), *found, strict=True):
        peer = LogisticRegression(C=1 / (100 * penalty), tol=1e-8, max_iter=5000).fit(rows.numpy(), y)
        weight, shift = peer.coef_.T, peer.intercept_
        if n_classes == 2:  # one column of differences there, two of half as much each here
            weight, shift = weight * [[-0.5, 0.5]], shift * [-0.5, 0.5]
            peer = LogisticRegression(C=2 / (100 * penalty), tol=1e-8, max_iter=5000).fit(rows.numpy(), y)
            weight, shift = peer.coef_.T * [[-0.5, 0.5]], peer.intercept_ * [-0.5, 0.5]
        ours = _objective(rows, y, coefficients.double().numpy(), bias.double().numpy(), penalty)
        assert ours == pytest.approx(_objective(rows, y, weight, shift, penalty), abs=1e-4)


def _objective(
    rows: torch.Tensor, y: np.ndarray, weight: np.ndarray, bias: np.ndarray, penalty: float
) -> float:
    likelihood = log_softmax(rows.double().numpy() @ weight + bias)[np.arange(len(y)), y].mean()
    return float(-likelihood + penalty / 2 * (weight**2).sum())


def test_penalties_in_parts_have_the_same_solutions(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = _blobs(60, 1, 0)
    rows, labels = torch.from_numpy(x - x.mean(0)), torch.from_numpy(y)
    values = torch.linalg.svdvals(rows).square()
    penalties = torch.logspace(0, -3, 4)
    whole = fit_logistic(rows, labels, values, penalties, 3)
    monkeypatch.setattr(logistic, "MAX_LOGITS", 2 * 60 * 3)
    parts = fit_logistic(rows, labels, values, penalties, 3)
    for penalty, one in zip(penalties.tolist(), zip(*whole, *parts, strict=True), strict=True):
        losses = [
            _objective(rows, y, w.double().numpy(), b.double().numpy(), penalty)
            for w, b in (one[:2], one[2:])
        ]
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_noise_wants_a_strong_penalty_and_clear_classes_a_weak_one() -> None:
    rng = np.random.default_rng(0)
    noise = fit_head(
        rng.normal(size=(30, 6)).astype(np.float32), rng.integers(0, 3, 30), *_blobs(60, 1, 1), 3
    )
    clear = fit_head(*_blobs(120, 0.3, 0), *_blobs(60, 0.3, 1), 3)
    assert noise.penalty == max(PENALTIES["logistic"])
    assert clear.penalty < noise.penalty


@pytest.mark.parametrize("kind", PENALTIES)
def test_a_class_without_images_has_a_column_and_a_constant_feature_does_no_harm(kind: str) -> None:
    x, y = _blobs(60, 1, 0)
    x[:, 2] = 7
    every = np.arange(60)
    (head,) = fit_heads(kind, x, y, [(every, every)], 5)
    assert head.weight.shape == (5, 6)
    assert np.isfinite(head.logits(x)).all()
    assert head.weight.dtype == head.bias.dtype == np.float32
    assert (head.logits(x).argmax(1) == y).mean() > 0.8


@pytest.mark.parametrize("kind", PENALTIES)
def test_the_same_rows_give_the_same_bits_and_are_left_alone(kind: str) -> None:
    x, y = _blobs(90, 1, 0)
    copies = x.copy(), y.copy()
    first, second = fit_heads(kind, x, y, _folds(90), 3), fit_heads(kind, x, y, _folds(90), 3)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.weight, other.weight)
        np.testing.assert_array_equal(one.bias, other.bias)
    np.testing.assert_array_equal(x, copies[0])
    np.testing.assert_array_equal(y, copies[1])


def test_features_that_are_no_numbers_are_told() -> None:
    x, y = _blobs(60, 1, 0)
    x[3, 1] = np.inf
    for kind in PENALTIES:
        with pytest.raises(NonFiniteLossError, match="features"):
            fit_heads(kind, x, y, _folds(60), 3)


def test_scaled_ridge_values_are_about_calibrated() -> None:
    x, y = _blobs(3000, 4, 0)
    logits = np.empty((3000, 3))
    for head, (train, monitor) in zip(fit_heads("ridge", x, y, _folds(3000), 3), _folds(3000), strict=True):
        holdout = np.setdiff1d(np.arange(3000), np.concatenate([train, monitor]))
        logits[holdout] = head.logits(x[holdout])
    assert fit_temperature(logits, y) == pytest.approx(1, abs=0.1)


# ---------------------------------------------------------------------- no leak


@pytest.mark.parametrize("kind", PENALTIES)
@pytest.mark.parametrize("n", [90, 900])
def test_holdout_rows_leave_the_head_s_bits_alone(kind: str, n: int) -> None:
    x, y = _blobs(n, 1, 0)
    folds = _folds(n)
    before = fit_heads(kind, x, y, folds, 3)
    changed = 0
    for fold, (train, monitor) in enumerate(folds):
        holdout = np.setdiff1d(np.arange(n), np.concatenate([train, monitor]))
        others_x, others_y = x.copy(), y.copy()
        others_x[holdout] = 100 * np.random.default_rng(fold).normal(size=(len(holdout), 6))
        others_y[holdout] = (y[holdout] + 1) % 3
        after = fit_heads(kind, others_x, others_y, folds, 3)
        np.testing.assert_array_equal(after[fold].weight, before[fold].weight)
        np.testing.assert_array_equal(after[fold].bias, before[fold].bias)
        assert after[fold].penalty == before[fold].penalty
        changed += sum(not np.array_equal(a.weight, b.weight) for a, b in zip(after, before, strict=True))
    assert changed == len(folds) * (len(folds) - 1)  # every other fold trains on those rows


@pytest.mark.parametrize("kind", PENALTIES)
def test_monitor_rows_choose_the_penalty_and_nothing_else(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = _blobs(300, 1.5, 0)
    train, monitor = _folds(300)[0]
    (before,) = fit_heads(kind, x, y, [(train, monitor)], 3)
    labels = y.copy()
    labels[monitor] = (labels[monitor] + 1) % 3
    (misled,) = fit_heads(kind, x, labels, [(train, monitor)], 3)
    assert misled.penalty > before.penalty
    monkeypatch.setitem(PENALTIES, kind, (before.penalty,))
    (same,) = fit_heads(kind, x, labels, [(train, monitor)], 3)
    (alone,) = fit_heads(kind, x, y, [(train, monitor)], 3)
    np.testing.assert_array_equal(same.weight, alone.weight)


# ---------------------------------------------------------------------- in the run


@pytest.mark.parametrize("kind", PENALTIES)
def test_the_first_who_needs_a_head_solves_all_folds(
    kind: str, data: TrainingData, job: Callable[..., CellJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = job("probe").candidate
    cpu = torch.device("cpu")
    first = ensure_head(candidate, data, 1, kind, cpu)
    monkeypatch.setattr(head_cache, "fit_heads", lambda *_: pytest.fail("solved again"))
    again = ensure_head(candidate, data, 1, kind, cpu)
    np.testing.assert_array_equal(first.weight, again.weight)
    np.testing.assert_array_equal(first.bias, again.bias)
    assert first.penalty == again.penalty
    heads = [ensure_head(candidate, data, f, kind, cpu) for f in range(3)]
    assert not np.array_equal(heads[0].weight, heads[2].weight)
    values = ensure_features(candidate, data, cpu)
    fitted = fit_heads(kind, values, data.labels, [(t, m) for t, m, _ in data.folds], 3)
    for head, expected in zip(heads, fitted, strict=True):
        np.testing.assert_array_equal(head.weight, expected.weight)
    assert sorted(p.suffix for p in data.features.iterdir()) == [".npy", ".safetensors"]


def test_heads_are_kept_apart_by_all_that_decides_them(
    data: TrainingData, job: Callable[..., CellJob]
) -> None:
    candidate = job("probe").candidate
    labels = data.labels.copy()
    labels[0] = (labels[0] + 1) % 3
    train, monitor, holdout = data.folds[0]
    moved = ((train[1:], np.append(monitor, train[:1]), holdout), *data.folds[1:])
    others = [
        dataclasses.replace(data, labels=labels),
        dataclasses.replace(data, fingerprint="y"),
        dataclasses.replace(data, folds=moved),
        dataclasses.replace(data, folds=data.folds[:2]),
        dataclasses.replace(data, classes=("a", "b", "c", "d")),
    ]
    files = {heads_file(candidate, other, "logistic").name for other in [data, *others]}
    files.add(heads_file(candidate, data, "ridge").name)
    files.add(heads_file(dataclasses.replace(candidate, weights="w#1"), data, "ridge").name)
    assert len(files) == 8
    same = dataclasses.replace(candidate, strategy="lp-ft")
    assert heads_file(same, data, "logistic") == heads_file(candidate, data, "logistic")


def test_two_writers_write_the_same_bytes_and_damage_is_told(
    data: TrainingData, job: Callable[..., CellJob]
) -> None:
    candidate = job("probe").candidate
    file = heads_file(candidate, data, "ridge")
    ensure_head(candidate, data, 0, "ridge", torch.device("cpu"))
    first = file.read_bytes()
    file.unlink()
    ensure_head(candidate, data, 2, "ridge", torch.device("cpu"))
    assert file.read_bytes() == first
    file.write_bytes(first[:100])
    with pytest.raises(StoreError, match="delete it and run the same command again"):
        ensure_head(candidate, data, 0, "ridge", torch.device("cpu"))


@pytest.mark.parametrize("strategy", FROZEN_BODY)
def test_a_cell_on_frozen_features_holds_the_head_of_its_own_fold(
    strategy: str, data: TrainingData, job: Callable[..., CellJob]
) -> None:
    kind = {"probe": "logistic", "ridge": "ridge"}[strategy]
    for fold in (2, 0):
        one = job(strategy, fold=fold)
        assert one.candidate.frozen_body
        result = train_cell(one, data)
        head = ensure_head(one.candidate, data, fold, kind, torch.device("cpu"))
        assert result.weights.keys() == {"fc.weight", "fc.bias"}
        np.testing.assert_array_equal(result.weights["fc.weight"], head.weight)
        values = ensure_features(one.candidate, data, torch.device("cpu"))[data.folds[fold][2]]
        np.testing.assert_allclose(result.proba, softmax(head.logits(values) / result.temperature), atol=1e-6)
        assert (result.best_epoch, result.history) == (0, ())
    assert not job("lp-ft").candidate.frozen_body
