"""What a row of the leaderboard costs to run and to make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

#: What an image costs only where a member is run for it.
_OF_RUNNING = ("latency_ms", "latency_32_ms", "flops")

#: What is counted.
_WHOLE = ("params", "flops", "weights_bytes")


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
    def total(costs: Mapping[str, Cost], asked: Mapping[str, float]) -> Cost:
        """The cost of running members one after another; unknown where one of theirs is.

        Args:
            costs: by member.
            asked: the members that are run, each with the share of images that it is run for; an image then takes
                that share of its time, while its weights are there all the same.

        >>> Cost.total({"a": Cost(1.5, 100, 60.0), "b": Cost(2.0, 50, None)}, {"a": 1.0, "b": 0.25})
        Cost(latency_ms=2.0, params=150, train_s=None, latency_32_ms=None, flops=None, weights_bytes=None)
        """
        sums: dict[str, Any] = {}
        for field in fields(Cost):
            values = [getattr(costs.get(name, Cost()), field.name) for name in asked]
            if None in values:
                continue
            if field.name in _OF_RUNNING and any(share < 1 for share in asked.values()):
                values = [share * value for share, value in zip(asked.values(), values, strict=True)]
            total = sum(values)
            sums[field.name] = round(total) if field.name in _WHOLE else total
        return Cost(**sums)
