"""The best ensemble that keeps to a limit, as a row of the leaderboard."""

from __future__ import annotations

from collections.abc import Mapping

from ..combiners.constrained import Constrained
from ..errors import CombinerError
from ..metrics import Metric
from ..predictions import Predictions
from .cost import Cost
from .cross_fit import CrossFit, cross_fit


def best_under(
    predictions: Predictions,
    metric: Metric,
    costs: Mapping[str, Cost] | None = None,
    *,
    max_latency_ms: float | None = None,
    max_bytes: float | None = None,
    max_members: int | None = None,
    rounds: int = 50,
) -> CrossFit:
    """Searches under the limit in every fold, so the cross-fitted score is that of the search.

    Args:
        predictions: out-of-fold rows of the single models.
        metric: of the search and of the score.
        costs: of the single models, by name; `latency_ms` or `weights_bytes` is needed where it is limited.
        max_latency_ms: most milliseconds for one image, members one after another.
        max_bytes: most bytes of weights.
        max_members: most members.
        rounds: of greedy selection.

    Returns:
        The ensemble, named after its limits, such as "max-20ms"; what `build_leaderboard` takes.

    Raises:
        CombinerError: no limit, or both of latency and bytes; a member whose cost is not known; no member
            within the limit.
    """
    if max_latency_ms is not None and max_bytes is not None:
        raise CombinerError(
            "max_latency_ms and max_bytes: both given; search under one, then under the other"
        )
    name = limit_name(max_latency_ms, max_bytes, max_members)
    amounts, limit = None, None
    if max_latency_ms is not None:
        amounts, limit = _amounts(predictions, costs or {}, "latency_ms"), float(max_latency_ms)
    if max_bytes is not None:
        amounts, limit = _amounts(predictions, costs or {}, "weights_bytes"), float(max_bytes)
    combiner = Constrained(
        metric=metric.name, rounds=rounds, costs=amounts, limit=limit, max_members=max_members
    )
    return cross_fit(combiner, predictions, metric, name=name)


def limit_name(
    max_latency_ms: float | None = None, max_bytes: float | None = None, max_members: int | None = None
) -> str:
    """What an ensemble under these limits is called.

    Raises:
        CombinerError: there is none.

    >>> limit_name(max_latency_ms=20)
    'max-20ms'
    """
    names = []
    if max_latency_ms is not None:
        names.append(f"{max_latency_ms:g}ms")
    if max_bytes is not None:
        names.append(f"{max_bytes / 1e6:g}MB")
    if max_members is not None:
        names.append(f"{max_members}members")
    if not names:
        raise CombinerError("no limit: give max_latency_ms, max_bytes or max_members")
    return "max-" + "-".join(names)


def _amounts(predictions: Predictions, costs: Mapping[str, Cost], field: str) -> dict[str, float]:
    found = {name: getattr(costs.get(name, Cost()), field) for name in predictions.members}
    unknown = [name for name, amount in found.items() if amount is None]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise CombinerError(
            f"costs: {field} of {unknown[0]!r}{more} is not known; measure it, or leave the member out with "
            "Predictions.select"
        )
    return {name: float(amount) for name, amount in found.items()}
