"""Learning-rate schedules: a factor on every peak rate, step by step. A function and a line here add one.

They are ours because layer decay has to work with them: timm's `lr_scale` is read by timm's schedulers alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable

#: Shares of the steps after which `step` divides the rates by ten.
MILESTONES = (0.6, 0.85)

#: `one-cycle` (Smith & Topin 2018) rises over this share, from a 25th of the peak, whatever `warmup` says.
CYCLE_RISE, CYCLE_START = 0.3, 1 / 25


def _cosine(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * share))


def _step(share: float) -> float:
    return float(0.1 ** sum(share >= milestone for milestone in MILESTONES))


def _constant(_: float) -> float:
    return 1.0


#: Factor at a share in [0, 1) of the steps that follow the warm-up.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": _cosine,
    "one-cycle": _cosine,
    "step": _step,
    "constant": _constant,
}


def rate_factor(step: int, total: int, warmup: float, schedule: str = "cosine") -> float:
    """Factor in [0, 1] on every peak rate at one step.

    Args:
        step: counted from 0.
        total: steps of the whole training.
        warmup: share of them with a linear rise.
        schedule: a name of `SCHEDULES`; what follows the rise.
    """
    cycle = schedule == "one-cycle"
    warmup = CYCLE_RISE if cycle else warmup
    rise = max(1, round(total * warmup)) if warmup else 0
    if step < rise:
        if cycle:
            return CYCLE_START + (1 - CYCLE_START) * (1 - _cosine((step + 1) / rise))
        return (step + 1) / rise
    return SCHEDULES[schedule]((step - rise) / max(1, total - rise))
