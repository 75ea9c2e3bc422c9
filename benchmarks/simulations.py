"""Worlds whose truth is known, and what the comparison makes of them; `simulate.py` runs these and reports.

Every simulation draws its own data from seeds of its own, so each can be run again by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ensembler.combiners import make_combiner
from ensembler.evaluation.bbc import bias_corrected
from ensembler.evaluation.cross_fit import CrossFit, cross_fit
from ensembler.evaluation.leaderboard import build_leaderboard
from ensembler.evaluation.paired import resample
from ensembler.evaluation.significance import interval
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions

N_CLASSES = 5
COVER_LOW, COVER_HIGH, FALSE_BAR, BIAS_BAR = 0.93, 0.97, 0.05, 1 / 3

Labels = NDArray[np.int64]
Proba = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """One simulation.

    Attributes:
        table: the promise it is about.
        cells: what the report shows, by column.
        kept: whether the promise is.
        measured: what was compared with the bar.
    """

    table: str
    cells: dict[str, str]
    kept: bool
    measured: tuple[float, ...]


# ---------------------------------------------------------------------- worlds


def softmax(logits: Proba) -> Proba:
    """Over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def draw(
    rng: np.random.Generator, n: int, sharpness: Sequence[float], group_size: int = 1
) -> tuple[Proba, Labels]:
    """Members that share part of their evidence, over `n` images.

    Args:
        rng: of the draw.
        n: images, a multiple of `group_size`.
        sharpness: one a member: what its logits are multiplied with; 1 is about calibrated; more is sure of
            itself where it is wrong, which gives the log loss a long tail.
        group_size: images that share a label and half of what makes them hard.
    """
    n_groups = n // group_size
    labels = np.repeat(rng.integers(N_CLASSES, size=n_groups), group_size)
    shared = np.repeat(rng.normal(size=(n_groups, N_CLASSES)), group_size, axis=0)
    own = rng.normal(size=(len(sharpness), n, N_CLASSES))
    logits = 2.2 * np.eye(N_CLASSES)[labels] + 0.7 * shared + 0.7 * own
    return softmax(np.asarray(sharpness)[:, None, None] * 2 * logits), labels


@cache
def true_scores(sharpness: tuple[float, ...], name: str) -> NDArray[np.float64]:
    """What the members of `draw` score on a million images."""
    rng = np.random.default_rng(2**31)
    parts = []
    for _ in range(10):
        proba, labels = draw(rng, 100_000, sharpness)
        parts.append([METRICS[name](labels, slab) for slab in proba])
    return np.asarray(np.mean(parts, axis=0))


def predictions_of(proba: Proba, labels: Labels, n_folds: int = 5) -> Predictions:
    """Out-of-fold rows, dealt to the folds in turn."""
    return Predictions.from_arrays(
        proba, labels, np.arange(len(labels)) % n_folds, classes=[str(c) for c in range(proba.shape[2])]
    )


# ---------------------------------------------------------------------- intervals


def coverage(name: str, n: int, draws: int, group_size: int = 1, n_boot: int | None = None) -> Line:
    """How often the intervals of two scores and of their difference contain the truth."""
    n_boot = n_boot or (2000 if n <= 1000 else 1000)
    metric, sharpness = METRICS[name], (1.0, 1.5) if name == "log_loss" else (1.0, 1.0)
    truth = true_scores(sharpness, name)
    difference = float(metric.improvement(truth[0], truth[1])) if name == "log_loss" else 0.0
    hits, plain = np.zeros((3, draws)), np.zeros((3, draws))
    groups = np.arange(n) // group_size if group_size > 1 else None
    for i in range(draws):
        proba, labels = draw(np.random.default_rng([1, n, group_size, i]), n, sharpness, group_size)
        found = resample(predictions_of(proba, labels), metric, groups=groups, n_boot=n_boot, seed=i)
        low, high = found.intervals()
        hits[:2, i] = (low <= truth) & (truth <= high)
        (pair,) = found.against("m1")
        hits[2, i] = pair.low <= difference <= pair.high
        gains = metric.improvement(found.samples[0], found.samples[1])
        for row, (samples, target) in enumerate(
            zip([*found.samples, gains], [*truth, difference], strict=True)
        ):
            low_end, high_end = interval(samples)
            plain[row, i] = low_end <= target <= high_end
    shares = hits.mean(axis=1)
    kept = bool(((shares >= COVER_LOW) & (shares <= COVER_HIGH)).all())
    rows = f"{n:,}" if group_size == 1 else f"{n:,} in groups of {group_size}"
    cells = {
        "metric": name,
        "rows": rows,
        "first score": f"{shares[0]:.1%}",
        "second score": f"{shares[1]:.1%}",
        "difference": f"{shares[2]:.1%}",
        "percentiles would": ", ".join(f"{share:.1%}" for share in plain.mean(axis=1)),
    }
    return Line("intervals", cells, kept, tuple(float(share) for share in shares))


# ---------------------------------------------------------------------- verdicts


def false_verdicts(name: str, n: int, draws: int, n_single: int = 4, n_ensemble: int = 4) -> Line:
    """How often an ensemble is called better where all rows are equally good: each errs by its own luck."""
    metric = METRICS[name]
    better = 0
    for i in range(draws):
        proba, labels = draw(np.random.default_rng([2, n, i]), n, (1.0,) * (n_single + n_ensemble))
        everyone = predictions_of(proba, labels)
        singles = everyone.select(everyone.members[:n_single])
        idle = make_combiner("mean").fit(singles)
        fits = []
        for member in everyone.members[n_single:]:
            rows = everyone.select([member])
            score = metric(labels, rows.proba[0])
            fits.append(CrossFit(member, rows, in_sample=score, score=score, optimism=0.0, combiner=idle))
        better += build_leaderboard(singles, fits, metric, seed=i).verdict.better
    share = better / draws
    cells = {
        "rows are": f"{n_single} single, {n_ensemble} ensembles, all equal",
        "metric": name,
        "rows": f"{n:,}",
        "draws": f"{draws:,}",
        "called better": f"{share:.1%}",
    }
    return Line("verdicts", cells, share <= FALSE_BAR, (share,))


def vain_ensembles(name: str, n: int, draws: int) -> Line:
    """The same with real combiners over members of which one knows all there is to know.

    The first member is the true posterior of the label, the others are that with noise: no function of them all
    is better than the first.
    """
    metric = METRICS[name]
    better = 0
    for i in range(draws):
        rng = np.random.default_rng([3, n, i])
        logits = 2 * rng.normal(size=(n, N_CLASSES))
        posterior = softmax(logits)
        labels = (posterior.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=N_CLASSES - 1)
        noisy = softmax(logits + 0.5 * rng.normal(size=(4, n, N_CLASSES)))
        rows = predictions_of(np.concatenate([posterior[None], noisy]), labels)
        fits = [
            cross_fit(make_combiner(key), rows, metric) for key in ("mean", "geometric", "greedy", "stacking")
        ]
        better += build_leaderboard(rows, fits, metric, seed=i).verdict.better
    share = better / draws
    cells = {
        "rows are": "the posterior, 4 noisy copies; mean, geometric, greedy, stacking",
        "metric": name,
        "rows": f"{n:,}",
        "draws": f"{draws:,}",
        "called better": f"{share:.1%}",
    }
    return Line("verdicts", cells, share <= FALSE_BAR, (share,))


# ---------------------------------------------------------------------- winners


def winners(n_members: int, n: int, spread: float, draws: int) -> Line:
    """Bias of the naive and of the corrected accuracy of the best of many.

    Args:
        n_members: rows to choose from.
        n: images.
        spread: standard deviation of the members' true accuracies about 0.8.
        draws: repetitions.
    """
    metric = METRICS["accuracy"]
    naive, corrected, bootstrap, covered = np.zeros((4, draws))
    for i in range(draws):
        rng = np.random.default_rng([4, n_members, n, round(1000 * spread), i])
        truth = np.clip(rng.normal(0.8, spread, n_members), 0.5, 0.99)
        # Half of what makes an image hard is the same for all members.
        ease = 0.5 * rng.random(n) + 0.5 * rng.random((n_members, n))
        right = ease < _triangular_quantile(truth)[:, None]
        proba = np.where(right[..., None], [0.9, 0.1], [0.1, 0.9])
        rows = Predictions.from_arrays(proba, np.zeros(n, int), np.arange(n) % 5)
        found = bias_corrected(rows, metric, n_boot=300, seed=i)
        target = truth[rows.index(found.winner)]
        naive[i], corrected[i] = found.naive - target, found.estimate - target
        bootstrap[i] = found.left_out - target
        covered[i] = found.low <= target <= found.high
    ratio = abs(corrected.mean()) / abs(naive.mean())
    cells = {
        "rows to choose from": str(n_members),
        "images": f"{n:,}",
        "their true spread": f"{spread:.3f}",
        "naive bias": f"{naive.mean():+.4f}",
        "corrected bias": f"{corrected.mean():+.4f} +- {1.96 * corrected.std() / np.sqrt(draws):.4f}",
        "ratio": f"{ratio:.2f}",
        "BBC-CV alone": f"{bootstrap.mean():+.4f}",
        "error of naive, corrected, BBC-CV": ", ".join(
            f"{np.sqrt((bias**2).mean()):.4f}" for bias in (naive, corrected, bootstrap)
        ),
        "interval covers": f"{covered.mean():.1%}",
    }
    return Line("winners", cells, bool(ratio <= BIAS_BAR), (ratio,))


def _triangular_quantile(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Below which the mean of two uniform numbers is in that share of cases."""
    return np.where(share < 0.5, np.sqrt(share / 2), 1 - np.sqrt((1 - share) / 2))


# ---------------------------------------------------------------------- chance


def chance(key: str, draws: int, n: int = 300) -> Line:
    """Cross-fitted scores of a combiner over good members, where labels are dealt anew."""
    accuracy, log_loss = np.zeros(draws), np.zeros(draws)
    for i in range(draws):
        rng = np.random.default_rng([5, i])
        proba, labels = draw(rng, n, (1.0, 1.0, 0.5, 2.0, 1.0))
        rows = predictions_of(proba, rng.permutation(labels))
        fit = cross_fit(make_combiner(key), rows, METRICS["log_loss"])
        accuracy[i] = METRICS["accuracy"](rows.labels, fit.predictions.proba[0])
        log_loss[i] = fit.score
    error = np.sqrt((1 / N_CLASSES) * (1 - 1 / N_CLASSES) / (n * draws))
    uniform = np.log(N_CLASSES)
    z = (accuracy.mean() - 1 / N_CLASSES) / error
    cells = {
        "combiner": f"`{key}`",
        "accuracy": f"{accuracy.mean():.4f}",
        "standard errors from chance": f"{z:+.1f}",
        "log loss beyond the uniform's": f"{log_loss.mean() - uniform:+.4f}",
    }
    # Better than chance is what must not be; worse than the uniform prediction a sure combiner always is.
    kept = bool(z < 3 and log_loss.mean() > uniform - 0.005)
    return Line("chance", cells, kept, (float(accuracy.mean()), float(log_loss.mean())))
