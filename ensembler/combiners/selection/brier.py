"""Brier score: quadratic, so inner products of the members are all that a search needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..base import Floats, Proba
from .objective import Members, Objective

#: Rows whose probabilities are turned to float64 at once, for all members.
_HEIGHT = 512


class Brier(Objective):
    """Squared distance of a mean to the one-hot labels, from the members' Gram matrix.

    With G the mean inner product of two members' rows, s their mean probability of the true class, and k the picks,
    the score of the mean of n picks is k'Gk / n^2 - 2 k's / n + 1; halved for two classes, as the metric is. After G no
    round looks at rows.

    Args:
        true: see `Objective`.
        slabs: each member's float32 (samples, classes).
        counts: float64 (samples,), how often a sample counts; None for once. Its rows in `true` may be repeated.
    """

    def __init__(self, true: Floats, slabs: Sequence[Proba], counts: Floats | None) -> None:
        super().__init__(true)
        self._products = _gram(slabs, counts)
        self._true_means = true.mean(axis=1)
        self._picks = np.zeros(len(slabs))
        self._scale = 0.5 if slabs[0].shape[1] == 2 else 1.0

    def add(self, member: int) -> None:
        """See `Objective`."""
        super().add(member)
        self._picks[member] += 1

    def remove(self, member: int) -> None:
        """See `Objective`."""
        super().remove(member)
        self._picks[member] -= 1

    def losses(self, members: Members, step: int) -> Floats:
        """See `Objective`."""
        size = self.size + step
        with_all = self._products @ self._picks
        squares = self._picks @ with_all + 2 * step * with_all[members] + self._products.diagonal()[members]
        hits = self._picks @ self._true_means + step * self._true_means[members]
        return np.asarray(self._scale * (squares / size**2 - 2 * hits / size + 1))


def _gram(slabs: Sequence[Proba], counts: Floats | None) -> Floats:
    """Mean over samples of the inner product of two members' probabilities: (members, members)."""
    n_samples = len(slabs[0])
    products = np.zeros((len(slabs), len(slabs)))
    root = None if counts is None else np.sqrt(counts)
    for start in range(0, n_samples, _HEIGHT):
        rows = slice(start, start + _HEIGHT)
        block = np.stack([slab[rows] for slab in slabs]).astype(np.float64)
        if root is not None:
            block *= root[rows, None]
        flat = block.reshape(len(slabs), -1)
        products += flat @ flat.T
    return products / (n_samples if counts is None else counts.sum())
