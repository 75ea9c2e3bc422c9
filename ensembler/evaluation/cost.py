"""What a row of the leaderboard costs to run and to make."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """The price of one candidate, or of an ensemble of several.

    Attributes:
        latency_ms: one image at batch 1, on the machine that measured; None when unknown.
        params: number of parameters; None when unknown.
        train_s: seconds of training, all folds together; None when unknown.
    """

    latency_ms: float | None = None
    params: int | None = None
    train_s: float | None = None

    @staticmethod
    def total(costs: Iterable[Cost]) -> Cost:
        """The cost of running all of them, one after another; unknown where one of them is.

        >>> Cost.total([Cost(1.5, 100, 60.0), Cost(2.0, 50, None)])
        Cost(latency_ms=3.5, params=150, train_s=None)
        """
        items = list(costs)
        latencies = [c.latency_ms for c in items if c.latency_ms is not None]
        params = [c.params for c in items if c.params is not None]
        times = [c.train_s for c in items if c.train_s is not None]
        return Cost(
            latency_ms=sum(latencies) if len(latencies) == len(items) else None,
            params=sum(params) if len(params) == len(items) else None,
            train_s=sum(times) if len(times) == len(items) else None,
        )
