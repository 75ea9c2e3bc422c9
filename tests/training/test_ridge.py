"""Ridge heads from the spectrum of each fold: equal to scikit-learn's, for any folds, narrow and wide."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from ensembler.training import gram
from ensembler.training.gram import Spectrum, spectra
from ensembler.training.ridge import fit_scales, held_out_scale, ridge_coefficients

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


def _spectra(x: np.ndarray, y: np.ndarray, folds: list[np.ndarray], n_classes: int) -> list[Spectrum]:
    return spectra(torch.from_numpy(x), torch.from_numpy(y), folds, n_classes)


def _standardised(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    part = x.astype(np.float64)
    return np.asarray((part - part[rows].mean(0)) / part[rows].std(0))


@pytest.mark.parametrize(("n", "width"), [(400, 20), (60, 45), (50, 130)])
def test_every_fold_and_penalty_is_the_ridge_of_scikit_learn(n: int, width: int) -> None:
    """400 rows share most of their sums, 60 none; with 50 rows and 130 features the kernel is decomposed."""
    x, y = _rows(n, width, 4)
    folds = _folds(n)
    for rows, spectrum in zip(folds, _spectra(x, y, folds, 4), strict=True):
        scaled = _standardised(x, rows)
        found = ridge_coefficients(spectrum, torch.tensor(PENALTIES, dtype=torch.float64))
        for penalty, coefficients in zip(PENALTIES, found, strict=True):
            weight, bias = (t.numpy() for t in spectrum.unproject(coefficients, spectrum.shares))
            peer = Ridge(alpha=penalty * len(rows)).fit(scaled[rows], np.eye(4)[y[rows]])
            np.testing.assert_allclose(
                x.astype(np.float64) @ weight.T + bias, peer.predict(scaled), atol=1e-9
            )
            classifier = RidgeClassifier(alpha=penalty * len(rows)).fit(scaled[rows], y[rows])
            np.testing.assert_allclose(
                2 * (x.astype(np.float64) @ weight.T + bias) - 1,
                classifier.decision_function(scaled),
                atol=1e-9,
            )


def test_a_projection_is_the_standardised_rows_turned() -> None:
    x, y = _rows(80, 6, 3)
    rows = np.arange(50)
    (spectrum,) = _spectra(x, y, [rows], 3)
    turned = _standardised(x, rows) @ spectrum.vectors.numpy()
    np.testing.assert_allclose(spectrum.project(torch.from_numpy(x)).numpy(), turned, atol=1e-4)
    gram_matrix = turned[rows].T @ turned[rows]
    np.testing.assert_allclose(gram_matrix, np.diag(spectrum.values), atol=1e-8)


def test_sums_shared_among_folds_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = _rows(300, 12, 3)
    folds = _folds(300)
    shared = _spectra(x, y, folds, 3)
    monkeypatch.setattr(gram, "SHARED_ROWS", 10**6)
    for one, other in zip(shared, _spectra(x, y, folds, 3), strict=True):
        np.testing.assert_allclose(one.values, other.values, rtol=1e-9)
        assert one.rows == other.rows
        np.testing.assert_allclose(one.shares, other.shares, rtol=1e-12)


@pytest.mark.parametrize("width", [8, 200])
def test_constant_and_repeated_features_are_left_out(width: int) -> None:
    x, y = _rows(60, width, 3)
    plain = x.copy()
    x[:, 2] = 7.3
    x[:, 3] = x[:, 4]
    (spectrum,) = _spectra(x, y, [np.arange(60)], 3)
    assert len(spectrum.values) <= min(width - 2, 59)
    weight, _ = spectrum.unproject(
        ridge_coefficients(spectrum, torch.tensor([1e-3], dtype=torch.float64))[0], spectrum.shares
    )
    assert (weight[:, 2] == 0).all()
    np.testing.assert_allclose(weight[:, 3], weight[:, 4], rtol=1e-6)
    assert np.isfinite(plain).all()


@pytest.mark.parametrize("width", [10, 90])
def test_rows_outside_a_fold_leave_its_bits_alone(width: int) -> None:
    """Not even what is no number reaches the sums of a fold that does not train on it."""
    x, y = _rows(400, width, 3)
    folds = _folds(400)
    before = _spectra(x, y, folds, 3)
    outside = np.setdiff1d(np.arange(400), folds[0])
    x[outside], y[outside] = np.nan, 1
    first = _spectra(x, y, folds[:1], 3)[0]
    again = _spectra(np.nan_to_num(x), y, folds, 3)
    for name in ("values", "vectors", "targets", "mean", "scale", "shares"):
        assert torch.equal(getattr(before[0], name), getattr(again[0], name)), name
        assert torch.isfinite(getattr(first, name)).all()
    assert not torch.equal(before[1].values, again[1].values)


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


def test_the_scale_of_the_train_rows_is_that_of_rows_left_out() -> None:
    x, y = _rows(60, 8, 3)
    (spectrum,) = _spectra(x, y, [np.arange(60)], 3)
    coefficients = ridge_coefficients(spectrum, torch.tensor([0.1], dtype=torch.float64))[0]
    rows, labels = spectrum.project(torch.from_numpy(x)), torch.from_numpy(y)
    scaled = _standardised(x, np.arange(60))
    left_out = cross_val_predict(Ridge(alpha=6.0), scaled, np.eye(3)[y], cv=LeaveOneOut()).astype(np.float32)
    expected = fit_scales(torch.from_numpy(left_out)[None], labels)[0]
    found = held_out_scale(spectrum, rows, labels, coefficients, 0.1)
    assert float(found) == pytest.approx(float(expected), rel=1e-2)
