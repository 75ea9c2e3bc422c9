"""The tests of a batch against the reference, and whether they add up to an alarm.

| test | sees |
|---|---|
| look of the images (MMD over `LOOKS`) | blur, noise, light, colour, another camera |
| answers (MMD over log-probabilities) | other things in the picture |
| confidence (KS) | surer, or less sure |
| predicted classes (PSI) | other classes than in training, or in other shares |
| disagreement (KS; of two members or more) | images unlike those that the members learned to agree on |
| accuracy (Fisher; where labels are given) | fewer right answers than out of fold |

Holm's correction holds all of them together to one rate of false alarms a batch, the threshold. Whoever looks every
day at 0.01 is alarmed for nothing three or four times a year.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .features import Sample
from .two_sample import Result, fewer_right, holm, ks, mmd, psi, psi_value, wilson

#: Rate of false alarms of a batch, unless told otherwise.
THRESHOLD = 0.01

#: Rows of either side that the kernel test looks at.
KERNEL_ROWS = 2000

#: Tests at most; so many p-values are corrected together.
MOST_TESTS = 6


@dataclass(frozen=True)
class Test:
    """One test.

    Attributes:
        name: what it looks at.
        method: how.
        statistic: large where the samples differ; of `accuracy`, the accuracy.
        p_value: by itself.
        adjusted: corrected for the other tests.
        alarm: whether that is at most the threshold.
    """

    name: str
    method: str
    statistic: float
    p_value: float
    adjusted: float
    alarm: bool


@dataclass(frozen=True)
class Accuracy:
    """Right answers among the images whose class is known.

    Attributes:
        right, n: of these.
        low, high: Wilson's 95 % interval.
        expected: out of fold, at the export.
    """

    right: int
    n: int
    low: float
    high: float
    expected: float

    @property
    def value(self) -> float:
        """The share."""
        return self.right / self.n


@dataclass(frozen=True)
class Drift:
    """What the tests found.

    Attributes:
        tests: all of them.
        accuracy: where labels were given.
        psi_confidence, psi_classes: population stability indices; above 0.25 much has changed.
        threshold: rate of false alarms.
    """

    tests: tuple[Test, ...]
    accuracy: Accuracy | None
    psi_confidence: float
    psi_classes: float
    threshold: float

    @property
    def alarm(self) -> bool:
        """Whether any test raises one."""
        return any(test.alarm for test in self.tests)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "alarm": self.alarm}


def measure_drift(
    reference: Sample,
    new: Sample,
    *,
    threshold: float = THRESHOLD,
    right: tuple[int, int] | None = None,
    expected: tuple[int, int] | None = None,
    seed: int = 0,
) -> Drift:
    """Holds new images against a reference.

    Args:
        reference: rows of images that the networks had not seen.
        new: of the new images.
        threshold: rate of false alarms of a batch, in (0, 1).
        right: right answers and number of the new images whose class is known.
        expected: the same out of fold.
        seed: of the permutations.
    """
    rng = np.random.default_rng(seed)
    n_permutations = max(999, math.ceil(2 * MOST_TESTS / threshold))
    few_old, few_new = _some(reference, rng), _some(new, rng)
    old_looks, new_looks = _standardised(few_old.looks, few_new.looks)
    n_classes = reference.proba.shape[1]
    counts = [np.bincount(s.predicted, minlength=n_classes) for s in (reference, new)]
    found: list[tuple[str, str, Result]] = [
        ("look of the images", "MMD", mmd(old_looks, new_looks, n_permutations, rng)),
        ("answers", "MMD", mmd(few_old.answers, few_new.answers, n_permutations, rng)),
        ("confidence", "KS", ks(reference.confidence, new.confidence, n_permutations, rng)),
        ("predicted classes", "PSI", psi(counts[0].tolist(), counts[1].tolist(), n_permutations, rng)),
    ]
    if reference.disagreement.shape[1] > 1:
        apart = [s.disagreement.mean(1) for s in (reference, new)]
        found.append(("disagreement", "KS", ks(apart[0], apart[1], n_permutations, rng)))
    accuracy = None
    if right is not None and expected is not None and right[1]:
        low, high = wilson(*right)
        accuracy = Accuracy(*right, low, high, expected[0] / expected[1])
        found.append(("accuracy", "Fisher", Result(accuracy.value, fewer_right(*right, *expected))))
    adjusted = holm([result.p_value for _, _, result in found])
    tests = tuple(
        Test(name, method, result.statistic, result.p_value, p, p <= threshold)
        for (name, method, result), p in zip(found, adjusted, strict=True)
    )
    return Drift(
        tests,
        accuracy,
        psi_confidence=float(psi_value(*_binned(reference.confidence, new.confidence))),
        psi_classes=float(psi_value(counts[0], counts[1])),
        threshold=threshold,
    )


def unlike(reference: Sample, new: Sample, n: int) -> NDArray[np.int64]:
    """Rows of the new images whose look is farthest from that of the reference, the farthest first."""
    _, looks = _standardised(reference.looks, new.looks)
    return np.argsort(-(looks**2).sum(1), kind="stable")[:n]


def _some(sample: Sample, rng: np.random.Generator) -> Sample:
    if len(sample) <= KERNEL_ROWS:
        return sample
    return sample.select(np.sort(rng.choice(len(sample), KERNEL_ROWS, replace=False)))


def _standardised(
    old: NDArray[np.float32], new: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Columns in units of their spread over both samples, which no relabelling changes."""
    pooled = np.concatenate([old, new])
    middle, spread = np.median(pooled, 0), pooled.std(0) + 1e-6
    return (old - middle) / spread, (new - middle) / spread


def _binned(
    old: NDArray[np.float32], new: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Counts in the tenths of the old sample."""
    edges = np.unique(np.quantile(old, np.linspace(0.1, 0.9, 9)))
    bins = len(edges) + 1
    return tuple(np.bincount(np.searchsorted(edges, s), minlength=bins) for s in (old, new))  # type: ignore[return-value]
