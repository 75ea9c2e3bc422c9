"""Ridge heads from the normal equations of each fold: equal to scikit-learn's, for any folds, narrow and wide."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from ensembler.errors import NonFiniteLossError
from ensembler.training import gram
from ensembler.training.gram import Normal, normal_equations
from ensembler.training.ridge import RidgePath, fit_scales, left_out_values

PENALTIES = [1e-3, 1e-1, 10.0]


def _rows(n: int, width: int, n_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    y[:n_classes] = np.arange(n_classes)
    x = rng.normal(size=(n, width)) * rng.uniform(0.1, 10, width) + rng.uniform(-5, 5, width)
    return (x + rng.normal(size=(n_classes, width))[y]).astype(np.float32), y


def _folds(n: int, seed: int = 0) -> list[np.ndarray]:
    """Train rows of four folds without holdout and monitor rows of their own, and one fold that knows everything."""
    rng = np.random.default_rng(seed)
    parts = np.array_split(rng.permutation(n), 4)
    folds = []
    for part in parts:
        rest = np.setdiff1d(np.arange(n), part)
        folds.append(np.setdiff1d(rest, rng.choice(rest, n // 10, replace=False)))
    return [*folds, np.arange(n)]


def _normal(x: np.ndarray, y: np.ndarray, folds: list[np.ndarray], n_classes: int) -> list[Normal]:
    return normal_equations(torch.from_numpy(x), torch.from_numpy(y), folds, n_classes)


def _standardised(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    part = x.astype(np.float64)
    return np.asarray((part - part[rows].mean(0)) / part[rows].std(0))


@pytest.mark.parametrize(("n", "width"), [(400, 20), (60, 45), (50, 130)])
def test_every_fold_and_penalty_is_the_ridge_of_scikit_learn(n: int, width: int) -> None:
    """400 rows share most of their sums, 60 none; with 50 rows and 130 features the kernel is decomposed."""
    x, y = _rows(n, width, 4)
    folds = _folds(n)
    for rows, normal in zip(folds, _normal(x, y, folds, 4), strict=True):
        scaled = _standardised(x, rows)
        path = RidgePath(normal, PENALTIES)
        values = path.values(torch.from_numpy(x))
        for number, penalty in enumerate(PENALTIES):
            ours = scaled @ path.coefficients(number).numpy() + normal.shares.numpy()
            peer = Ridge(alpha=penalty * len(rows)).fit(scaled[rows], np.eye(4)[y[rows]])
            np.testing.assert_allclose(ours, peer.predict(scaled), atol=1e-9)
            classifier = RidgeClassifier(alpha=penalty * len(rows)).fit(scaled[rows], y[rows])
            np.testing.assert_allclose(2 * ours - 1, classifier.decision_function(scaled), atol=1e-9)
            np.testing.assert_allclose(values[number], ours, atol=1e-4)


def test_a_projection_is_the_standardised_rows_turned() -> None:
    x, y = _rows(80, 6, 3)
    rows = np.arange(50)
    spectrum = _normal(x, y, [rows], 3)[0].spectrum()
    turned = _standardised(x, rows) @ spectrum.vectors.double().numpy()
    np.testing.assert_allclose(spectrum.project(torch.from_numpy(x)).numpy(), turned, atol=1e-4)
    gram_matrix = turned[rows].T @ turned[rows]
    np.testing.assert_allclose(gram_matrix, np.diag(spectrum.values), atol=1e-3)
    np.testing.assert_allclose(spectrum.vectors.T @ spectrum.vectors, np.eye(6), atol=1e-5)


def test_sums_shared_among_folds_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = _rows(300, 12, 3)
    folds = _folds(300)
    shared = _normal(x, y, folds, 3)
    monkeypatch.setattr(gram, "SHARED_ROWS", 10**6)
    monkeypatch.setattr(gram, "PANEL", 5)
    for one, other in zip(shared, _normal(x, y, folds, 3), strict=True):
        torch.testing.assert_close(one.matrix.triu(), other.matrix.triu(), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(one.right, other.right, rtol=1e-9, atol=1e-9)
        assert one.rows == other.rows


@pytest.mark.parametrize("width", [8, 200])
def test_constant_and_repeated_features_are_left_out(width: int) -> None:
    x, y = _rows(60, width, 3)
    x[:, 2] = 7.3
    x[:, 3] = x[:, 4]
    (normal,) = _normal(x, y, [np.arange(60)], 3)
    assert (normal.spectrum().values > 1e-3).sum() <= min(width - 2, 59)
    coefficients = RidgePath(normal, [1e-3]).coefficients(0)
    np.testing.assert_allclose(coefficients[2], 0, atol=1e-12)
    assert normal.scale[2] == 0
    assert coefficients.isfinite().all()
    np.testing.assert_allclose(coefficients[3], coefficients[4], rtol=1e-6)


def test_a_single_feature_and_a_single_row_are_enough() -> None:
    x, y = _rows(60, 1, 3)
    for rows in (np.arange(60), np.arange(1)):
        (normal,) = _normal(x, y, [rows], 3)
        scaled = (x - normal.mean.numpy()) * normal.scale.numpy()
        peer = Ridge(alpha=0.1 * len(rows)).fit(scaled[rows], np.eye(3)[y[rows]])
        np.testing.assert_allclose(
            RidgePath(normal, [0.1]).coefficients(0).numpy().T, peer.coef_.reshape(3, 1), atol=1e-9
        )


@pytest.mark.parametrize("width", [10, 90])
def test_rows_outside_a_fold_leave_its_bits_alone(width: int) -> None:
    """Not even what is no number reaches the sums of a fold that does not train on it."""
    x, y = _rows(400, width, 3)
    folds = _folds(400)
    before = _normal(x, y, folds, 3)
    outside = np.setdiff1d(np.arange(400), folds[0])
    x[outside], y[outside] = 1e6, 1
    after = _normal(x, y, folds, 3)
    for name in ("matrix", "right", "mean", "scale", "shares"):
        assert torch.equal(getattr(before[0], name), getattr(after[0], name)), name
    assert not torch.equal(before[1].matrix, after[1].matrix)
    x[outside] = np.nan
    alone = _normal(x, y, folds[:1], 3)[0].spectrum()
    np.testing.assert_allclose(alone.values, before[0].spectrum().values, rtol=1e-4)
    with pytest.raises(NonFiniteLossError, match="not finite"):
        _normal(x, y, folds, 3)


# ---------------------------------------------------------------------- from values to logits


def test_a_scale_is_where_the_log_loss_is_lowest() -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 200)
    values = rng.normal(size=(2, 200, 3)).astype(np.float32) * np.array([[[0.1]], [[3.0]]], np.float32)
    values[:, np.arange(200), y] += np.array([[0.2], [2.0]], np.float32)
    labels = torch.from_numpy(y)
    scales = fit_scales(torch.from_numpy(values), labels)
    for number, scale in enumerate(scales.tolist()):
        logits = torch.from_numpy(values[number]).double()
        losses = [
            float(torch.nn.functional.cross_entropy(s * scale * logits, labels)) for s in (0.97, 1.0, 1.03)
        ]
        assert losses[1] < min(losses[0], losses[2])
    assert scales[0] > 3 * scales[1]


@pytest.mark.parametrize("width", [8, 75])
def test_values_of_rows_left_out_are_those_of_heads_fitted_without_them(width: int) -> None:
    x, y = _rows(60, width, 3)
    (normal,) = _normal(x, y, [np.arange(60)], 3)
    scaled = _standardised(x, np.arange(60))
    expected = cross_val_predict(Ridge(alpha=6.0), scaled, np.eye(3)[y], cv=LeaveOneOut())
    found = left_out_values(
        normal, torch.from_numpy(x), torch.from_numpy(y), RidgePath(normal, [0.1]).coefficients(0), 0.1
    )
    np.testing.assert_allclose(found, expected, atol=1e-9)
