"""Whether the label can be read from how an image was stored, instead of from what it shows.

Where all positives come from one scanner, a network may learn the scanner. For each property of the files a table of
counts (a tree of one level with at most 32 leaves) predicts the label under cross-validation; its balanced accuracy is
held against that of shuffled labels, and the p-values are corrected for the number of properties (Holm 1979).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .files import Look
from .findings import Finding

#: Level of the corrected p-values.
ALPHA = 0.01

#: Share of the way from chance to certainty from which a property is worth a word, and from which it is a warning.
NOTED, WARNED = 0.05, 0.2

#: Shuffles of the labels: enough for a corrected p-value below ALPHA with nine properties.
N_SHUFFLES = 1000

_FOLDS = 5
_MAX_BINS = 32


class Shortcut(NamedTuple):
    """What one property of the files tells of the label.

    Attributes:
        name: of the property.
        balanced_accuracy: of the table of counts, under cross-validation.
        chance: its mean over shuffled labels.
        p: corrected; the probability of as much among shuffled labels.
    """

    name: str
    balanced_accuracy: float
    chance: float
    p: float

    @property
    def strength(self) -> float:
        """Share of the way from chance to certainty."""
        return (self.balanced_accuracy - self.chance) / (1 - self.chance)


def properties(looks: Sequence[Look], brightness: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """(n,) each: numbers, and codes of what has no order.

    Args:
        looks: of `look_at`.
        brightness: (n,) mean of each image, 0 to 255.
    """
    width = np.array([found.header.width for found in looks], float)
    height = np.array([found.header.height for found in looks], float)
    n_bytes = np.array([found.n_bytes for found in looks], float)
    kinds = {
        "format": [found.header.format for found in looks],
        "channels": [found.header.mode for found in looks],
        "bits a channel": [str(found.header.bits) for found in looks],
    }
    codes = {name: np.unique(values, return_inverse=True)[1].astype(float) for name, values in kinds.items()}
    return {
        "file size": n_bytes,
        "bytes a pixel": n_bytes / (width * height),
        "width": width,
        "height": height,
        "aspect ratio": width / height,
        **codes,
        "mean brightness": brightness,
    }


def find_shortcuts(
    values: Mapping[str, NDArray[np.float64]], labels: NDArray[np.int64], seed: int = 0
) -> list[Shortcut]:
    """Every property that varies, the most telling first.

    Args:
        values: of `properties`, (n,) each.
        labels: (n,) int from 0. Classes of fewer than five images are left out.
        seed: of the folds and the shuffles.
    """
    counts = np.bincount(labels)
    kept = counts[labels] >= _FOLDS
    y = np.unique(labels[kept], return_inverse=True)[1]
    n_classes = int(y.max(initial=-1)) + 1
    if n_classes < 2:
        return []
    rng = np.random.default_rng(seed)
    by_class = np.lexsort((rng.random(len(y)), y))
    rows = np.concatenate(
        [by_class[k::_FOLDS] for k in range(_FOLDS)]
    )  # fold after fold, each class in proportion
    y, sizes = y[rows], [len(by_class[k::_FOLDS]) for k in range(_FOLDS)]
    fold, ends = np.repeat(np.arange(_FOLDS), sizes), np.cumsum(sizes)[:-1]
    cells: dict[str, tuple[NDArray[np.int64], int]] = {}
    for name, column in values.items():
        bins = _binned(column[kept][rows])
        n_bins = int(bins.max()) + 1
        if n_bins > 1:
            cells[name] = fold * n_bins + bins, n_bins
    scores = {name: _score(cell, y, n, n_classes) for name, (cell, n) in cells.items()}
    null = {name: np.empty(N_SHUFFLES) for name in cells}
    for i in range(N_SHUFFLES):
        # Within each fold, so that every fold keeps its classes.
        shuffled = np.concatenate([rng.permutation(part) for part in np.split(y, ends)])
        for name, (cell, n) in cells.items():
            null[name][i] = _score(cell, shuffled, n, n_classes)
    found = []
    for name, score in scores.items():
        p = float((1 + (null[name] >= score).sum()) / (1 + N_SHUFFLES))
        found.append(Shortcut(name, score, float(null[name].mean()), p))
    found.sort(key=lambda shortcut: shortcut.p)
    corrected = np.maximum.accumulate([min(1.0, s.p * (len(found) - i)) for i, s in enumerate(found)])
    found = [s._replace(p=float(p)) for s, p in zip(found, corrected, strict=True)]
    return sorted(found, key=lambda shortcut: -shortcut.strength)


def _binned(column: NDArray[np.float64]) -> NDArray[np.int64]:
    """Numbers of bins with about as many rows each; few distinct values are a bin each."""
    distinct, code = np.unique(column, return_inverse=True)
    most = int(np.clip(len(column) // 20, 2, _MAX_BINS))
    if len(distinct) <= most:
        return np.asarray(code, np.int64)
    edges = np.unique(np.quantile(column, np.arange(1, most) / most))
    return np.searchsorted(edges, column, side="right").astype(np.int64)


def _score(cell: NDArray[np.int64], y: NDArray[np.int64], n_bins: int, n_classes: int) -> float:
    """Balanced accuracy of the class that is most frequent for its size in the bin, in the other folds."""
    flat = np.bincount(cell * n_classes + y, minlength=_FOLDS * n_bins * n_classes)
    counts = flat.reshape(_FOLDS, n_bins, n_classes)
    others = counts.sum(axis=0) - counts
    size = np.maximum(others.sum(axis=1, keepdims=True), 1)
    answer = (others / size).argmax(axis=2)
    right = np.take_along_axis(counts, answer[..., None], axis=2)[..., 0]
    hits = np.bincount(answer.ravel(), right.ravel(), minlength=n_classes)
    return float((hits / counts.sum(axis=(0, 1))).mean())


def shortcut_findings(shortcuts: Sequence[Shortcut]) -> list[Finding]:
    """One finding for what warns, one for what is noted, if there is any."""
    telling = [s for s in shortcuts if s.p < ALPHA and s.strength >= NOTED]
    findings = []
    for level, chosen in (
        ("warning", [s for s in telling if s.strength >= WARNED]),
        ("note", [s for s in telling if s.strength < WARNED]),
    ):
        if not chosen:
            continue
        items = tuple(
            f"{s.name}: balanced accuracy {s.balanced_accuracy:.2f}, chance {s.chance:.2f} (p {_p(s.p)})"
            for s in chosen
        )
        findings.append(
            Finding(
                "warning" if level == "warning" else "note",
                "shortcut",
                f"{len(chosen)} {'property' if len(chosen) == 1 else 'properties'} of the files "
                f"{'tells' if len(chosen) == 1 else 'tell'} the class{'' if level == 'warning' else ' a little'}",
                items,
                "a network may learn this instead of what the images show, and fail where images are stored otherwise; "
                "bring all classes to one size and format, or test on images from elsewhere",
            )
        )
    return findings


def _p(p: float) -> str:
    return "< 0.01" if p < 0.01 else f"{p:.2f}"
