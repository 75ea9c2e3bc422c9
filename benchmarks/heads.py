"""How much faster the heads of all folds and penalties are than a loop over scikit-learn's, as ratios of one run.

    python benchmarks/heads.py            3,000 rows x 512 features, 10 classes, 5 folds; some minutes
    python benchmarks/heads.py --quick    a tenth of the penalties, one round

Promised: at least 50 times for 100 ridge penalties and 3 times for 20 logistic ones. Both sides have the same rows,
folds and number of threads, and take turns, so that a noisy machine slows both; what stands here is the median of the
ratios of the rounds. Both fit on the train rows of each fold, standardised by them; for ridge they predict the monitor
rows, by which a penalty is chosen.

scikit-learn is given float64 features for ridge, the precision in which this package solves it; what the same loop
takes in float32 is shown as well. Logistic regression is float32 on both sides, in which scikit-learn is faster.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ensembler.folds import Fold, make_folds
from ensembler.training.gram import Normal, normal_equations
from ensembler.training.logistic import fit_logistic
from ensembler.training.ridge import RidgePath

ROWS, WIDTH, CLASSES, FOLDS = 3000, 512, 10, 5
RIDGE_BAR, LOGISTIC_BAR = 50.0, 3.0

#: The optima agree to this much: decision values of ridge, nats of the objective of logistic regression.
RIDGE_AGREES, LOGISTIC_AGREES = 1e-4, 1e-3

Arrays = list[list[NDArray[Any]]]
Split = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]


def make_features() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Rows like those of a backbone: correlated, never negative, classes that overlap."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, ROWS)
    spread = np.arange(1, WIDTH + 1) ** -0.5
    hidden = (rng.normal(size=(ROWS, WIDTH)) + 0.7 * rng.normal(size=(CLASSES, WIDTH))[labels]) * spread
    mixed = hidden @ rng.normal(size=(WIDTH, WIDTH)) / np.sqrt(WIDTH) + 0.05 * rng.normal(size=(ROWS, WIDTH))
    return np.maximum(mixed + 0.1, 0).astype(np.float32), labels


class Heads:
    """Both sides on the same rows.

    Args:
        n_ridge: penalties of ridge, a row.
        n_logistic: penalties of logistic regression, beside the mean loss.
    """

    def __init__(self, n_ridge: int, n_logistic: int) -> None:
        self.ridge_penalties = np.logspace(2, -5, n_ridge)
        self.logistic_penalties = np.logspace(0, -4, n_logistic)
        self.features, self.labels = make_features()
        self.folds: list[Fold] = list(make_folds(self.labels, FOLDS, 0))

    def ridge(self) -> Arrays:
        """Decision values of the monitor rows, for each fold and penalty."""
        x = torch.from_numpy(self.features)
        penalties = self.ridge_penalties.tolist()
        found = [RidgePath(normal, penalties).values(x[fold.monitor]) for fold, normal in self._with_normal()]
        return [list((2 * values - 1).numpy()) for values in found]

    def sklearn_ridge(self, dtype: type[np.floating[Any]] = np.float64) -> Arrays:
        """The same by a loop."""
        values = []
        for fold in self.folds:
            scaler = StandardScaler().fit(self.features[fold.train].astype(dtype))
            train = scaler.transform(self.features[fold.train].astype(dtype))
            monitor = scaler.transform(self.features[fold.monitor].astype(dtype))
            alphas = len(fold.train) * self.ridge_penalties
            values.append(
                [
                    RidgeClassifier(alpha=a).fit(train, self.labels[fold.train]).decision_function(monitor)
                    for a in alphas
                ]
            )
        return values

    def logistic(self) -> Arrays:
        """Weights and bias for raw features (classes, width + 1), for each fold and penalty."""
        x, y = torch.from_numpy(self.features), torch.from_numpy(self.labels)
        penalties = torch.from_numpy(self.logistic_penalties)
        heads = []
        for fold, normal in self._with_normal():
            spectrum = normal.spectrum()
            found = fit_logistic(
                spectrum.project(x[fold.train]), y[fold.train], spectrum.values, penalties, CLASSES
            )
            coefficients, bias = (part.double() for part in found)
            flat = coefficients.permute(1, 0, 2).reshape(len(spectrum.values), -1)  # one product for all
            weight = ((spectrum.vectors.double() @ flat).T * normal.scale).view(len(bias), CLASSES, -1)
            heads.append(list(torch.cat([weight, (bias - weight @ normal.mean)[:, :, None]], 2).numpy()))
        return heads

    def sklearn_logistic(self) -> Arrays:
        """The same by a loop."""
        heads = []
        for fold in self.folds:
            scaler = StandardScaler().fit(self.features[fold.train])
            train = scaler.transform(self.features[fold.train])
            ours = []
            for penalty in self.logistic_penalties:
                one = LogisticRegression(C=1 / (len(train) * penalty), max_iter=1000)
                one.fit(train, self.labels[fold.train])
                weight = one.coef_ / scaler.scale_
                ours.append(np.column_stack([weight, one.intercept_ - weight @ scaler.mean_]))
            heads.append(ours)
        return heads

    def objectives(self, heads: Arrays) -> NDArray[np.float64]:
        """Of logistic regression, in nats a row: (folds, penalties)."""
        table = []
        for fold, ours in zip(self.folds, heads, strict=True):
            x = self.features[fold.train].astype(np.float64)
            y = torch.from_numpy(self.labels[fold.train])
            row = []
            for penalty, head in zip(self.logistic_penalties, ours, strict=True):
                weight, bias = head[:, :-1].astype(np.float64), head[:, -1]
                loss = torch.nn.functional.cross_entropy(torch.from_numpy(x @ weight.T + bias), y)
                row.append(float(loss) + penalty / 2 * float(((weight * x.std(0)) ** 2).sum()))
            table.append(row)
        return np.array(table)

    def _with_normal(self) -> list[tuple[Fold, Normal]]:
        x, y = torch.from_numpy(self.features), torch.from_numpy(self.labels)
        train = [fold.train for fold in self.folds]
        return list(zip(self.folds, normal_equations(x, y, train, CLASSES), strict=True))


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Wall time and result."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def line(what: str, times: list[list[float]], bar: float | None = None) -> float:
    """Prints the medians of (ours, theirs), and returns that of the ratios."""
    ratio = statistics.median(theirs / ours for ours, theirs in times)
    ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    promised = "" if bar is None else f"   promised {bar:g}: {'kept' if ratio >= bar else 'BROKEN'}"
    print(f"{what:<46} {ours:7.3f} s  {theirs:7.2f} s  {ratio:6.1f} x{promised}", flush=True)
    return ratio


def main() -> None:
    """Takes turns, compares the optima, prints the ratios; exit 1 where a promise is broken or the optima differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the penalties, one round, no promise"
    )
    parser.add_argument(
        "--threads", type=int, default=1, help="of both sides; more only where nothing else runs"
    )
    options = parser.parse_args()
    rounds, n_ridge, n_logistic = (1, 10, 2) if options.quick else (5, 100, 20)
    heads = Heads(n_ridge, n_logistic)
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")  # scikit-learn's, of float32 matrices that are nearly singular
    print(
        f"{ROWS} rows x {WIDTH} features, {CLASSES} classes, {FOLDS} folds, {options.threads} threads, "
        f"median of {rounds} rounds"
    )
    print(f"{'':<46} {'ours':>7}    {'loop':>7}    {'ratio':>6}")

    ridge: list[list[float]] = []
    single: list[list[float]] = []
    logistic: list[list[float]] = []
    with threadpool_limits(options.threads):
        heads.ridge(), heads.logistic()  # what is imported and allocated once
        for _ in range(rounds):
            ours_s, ours = seconds(heads.ridge)
            theirs_s, theirs = seconds(heads.sklearn_ridge)
            ridge.append([ours_s, theirs_s])
            single.append([ours_s, seconds(lambda: heads.sklearn_ridge(np.float32))[0]])
            ours_s, ours_logistic = seconds(heads.logistic)
            theirs_s, theirs_logistic = seconds(heads.sklearn_logistic)
            logistic.append([ours_s, theirs_s])
    bars = (None, None) if options.quick else (RIDGE_BAR, LOGISTIC_BAR)
    kept = [
        line(f"{n_ridge} ridge penalties", ridge, bars[0]) >= (bars[0] or 0),
        line(f"{n_logistic} logistic penalties", logistic, bars[1]) >= (bars[1] or 0),
    ]
    line(f"{n_ridge} ridge penalties, the loop in float32", single)

    apart = max(
        float(np.abs(a - b).max())
        for f, g in zip(ours, theirs, strict=True)
        for a, b in zip(f, g, strict=True)
    )
    print(f"ridge: decision values differ by at most {apart:.1e} (allowed {RIDGE_AGREES:g})")
    gap = heads.objectives(ours_logistic) - heads.objectives(theirs_logistic)
    print(
        f"logistic: our objective is {gap.min():+.1e} to {gap.max():+.1e} nats from scikit-learn's "
        f"(allowed {LOGISTIC_AGREES:g})"
    )
    if not all(kept) or apart > RIDGE_AGREES or np.abs(gap).max() > LOGISTIC_AGREES:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
