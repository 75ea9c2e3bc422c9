"""Any metric: every candidate's mean is made and scored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...metrics import Metric
from ..base import Floats, Labels, Proba
from .objective import Members, Objective


class AnyMetric(Objective):
    """The slow and sure way, one mean in memory at a time.

    Args:
        true: see `Objective`.
        slabs: each member's float32 (samples, classes).
        labels: int64 (samples,).
        metric: any.
        counts: float64 (samples,), how often a sample counts; None for once. Its rows in `true` may be repeated.
    """

    def __init__(
        self, true: Floats, slabs: Sequence[Proba], labels: Labels, metric: Metric, counts: Floats | None
    ) -> None:
        super().__init__(true)
        self._slabs, self._labels, self._metric, self._counts = slabs, labels, metric, counts
        self._sum = np.zeros(slabs[0].shape)

    def add(self, member: int) -> None:
        """See `Objective`."""
        super().add(member)
        self._sum += self._slabs[member]

    def remove(self, member: int) -> None:
        """See `Objective`."""
        super().remove(member)
        self._sum -= self._slabs[member]

    def losses(self, members: Members, step: int) -> Floats:
        """See `Objective`."""
        combine = np.add if step > 0 else np.subtract
        mean = np.empty_like(self._sum)
        found = np.empty(len(members))
        for i, member in enumerate(members):
            combine(self._sum, self._slabs[member], out=mean)
            mean /= self.size + step
            found[i] = -self._metric.sign * self._metric(self._labels, mean, self._counts)
        return found
