"""What would one more backbone bring? The expected score of an ensemble of s members, drawn on by a power law.

The members at hand are taken as a sample of those one could train. The mean score over their subsets of size s is what
an ensemble of s such members may be expected to score. It is fitted by

    loss(s) = floor + scale * s ** -power

The squared error of a mean of exchangeable members is this with power 1 exactly: their common error is the floor, and
what they err apart is divided by s. Other losses are near it, and the power is fitted where there are enough sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import PredictionsError
from .contribution import draw_orders
from .intervals import t_quantile
from .subsets import SubsetValue

Floats = NDArray[np.float64]

#: Fewer sizes than this leave nothing to judge a power by; it is 1 then.
_SIZES_FOR_A_POWER = 5
_POWERS = np.arange(0.3, 2.01, 0.05)

#: Members are left out in at most so many groups, one after another, to see how far the answer hangs on them.
_MOST_GROUPS = 20


@dataclass(frozen=True)
class LearningCurve:
    """Expected score by number of members, and what the next member would add.

    Attributes:
        sizes: 1 to the number of members.
        scores: mean score over sets of each size, in units of the metric.
        fitted: the power law at each size.
        limit: the score that the power law approaches with ever more such members.
        power: how fast.
        next_gain: expected improvement by one more member; positive is better, whatever the metric's direction.
        next_low: lower end of its 95 % interval (jackknife over members); None with fewer than three members.
        next_high: upper end.
    """

    sizes: tuple[int, ...]
    scores: tuple[float, ...]
    fitted: tuple[float, ...]
    limit: float
    power: float
    next_gain: float
    next_low: float | None
    next_high: float | None


@dataclass(frozen=True)
class _Law:
    floor: float
    scale: float
    power: float

    def __call__(self, size: Floats) -> Floats:
        return np.asarray(self.floor + self.scale * size**-self.power)

    def gain(self, size: int) -> float:
        """What a member more than `size` takes from the loss."""
        before, after = self(np.array([size, size + 1.0]))
        return float(before - after)


def learning_curve(value: SubsetValue, *, n_orders: int = 64, seed: int = 0) -> LearningCurve:
    """The curve over random subsets of the members, and its next step.

    The interval is that of the members: the curve is fitted again without each of them (or each twentieth of
    them), and the spread of the answers is that of a delete-group jackknife (Kott 2001). Rows are not resampled:
    which members there are matters more.

    Args:
        value: of sets, see `subsets`.
        n_orders: orders in which members are added, 2 or more; all where there are no more.
        seed: of the orders.

    Raises:
        PredictionsError: a single member, which has no curve.
    """
    n_members = len(value.members)
    if n_members < 2:
        raise PredictionsError(f"members: {list(value.members)}; a learning curve needs two or more")
    orders, _ = draw_orders(n_members, n_orders, seed)
    scores = np.mean([value.growing(order.tolist()) for order in orders], axis=0)
    sign = value.metric.sign
    law = _fit(-sign * scores)
    gain = law.gain(n_members)
    low, high = None, None
    if n_members >= 3:
        n_groups = min(n_members, _MOST_GROUPS)
        apart = np.array(
            [
                _gain_without(value, np.flatnonzero(np.arange(n_members) % n_groups == group), orders[:16])
                for group in range(n_groups)
            ]
        )
        error = np.sqrt((n_groups - 1) / n_groups * ((apart - apart.mean()) ** 2).sum())
        reach = float(t_quantile(n_groups, 0.95) * error)
        low, high = gain - reach, gain + reach
    sizes = np.arange(1, n_members + 1)
    return LearningCurve(
        sizes=tuple(int(s) for s in sizes),
        scores=tuple(float(s) for s in scores),
        fitted=tuple(float(s) for s in -sign * law(sizes.astype(np.float64))),
        limit=float(np.clip(-sign * law.floor, value.metric.low, value.metric.high)),
        power=law.power,
        next_gain=gain,
        next_low=low,
        next_high=high,
    )


def _gain_without(value: SubsetValue, group: NDArray[np.intp], orders: Sequence[NDArray[np.intp]]) -> float:
    scores = np.mean([value.growing(order[~np.isin(order, group)].tolist()) for order in orders], axis=0)
    return _fit(-value.metric.sign * scores).gain(len(value.members))


def _fit(losses: Floats) -> _Law:
    """Least squares over the sizes; the best power of a grid, floor and scale in closed form."""
    sizes = np.arange(1.0, len(losses) + 1)
    powers = _POWERS if len(losses) >= _SIZES_FOR_A_POWER else np.ones(1)
    laws = []
    for power in powers:
        curve = sizes**-power
        away = curve - curve.mean()
        scale = float(away @ losses / (away @ away))
        laws.append(_Law(float(losses.mean()) - scale * float(curve.mean()), scale, float(power)))
    errors = [float(((law(sizes) - losses) ** 2).sum()) for law in laws]
    return laws[int(np.argmin(errors))]
