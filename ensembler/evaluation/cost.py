"""What a row of the leaderboard costs to run and to make."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Cost:
    """The price of one candidate, or of an ensemble of several; None where it is not known.

    Attributes:
        latency_ms: one image at batch 1, on the machine that measured.
        params: number of parameters.
        train_s: seconds of training, all folds together.
        latency_32_ms: one image at batch 32, likewise.
        flops: floating-point operations of one image.
        weights_bytes: of the weights that are deployed, as they lie in memory.
    """

    latency_ms: float | None = None
    params: int | None = None
    train_s: float | None = None
    latency_32_ms: float | None = None
    flops: int | None = None
    weights_bytes: int | None = None

    @staticmethod
    def total(costs: Iterable[Cost]) -> Cost:
        """The cost of running all of them, one after another; unknown where one of them is.

        >>> Cost.total([Cost(1.5, 100, 60.0), Cost(2.0, 50, None)]).latency_ms
        3.5
        """
        items = list(costs)
        sums = {}
        for field in fields(Cost):
            values = [getattr(cost, field.name) for cost in items]
            sums[field.name] = None if None in values else sum(values)
        return Cost(**sums)
