"""Fine-tuning strategies by name. A file and a line here add one.

The table names modules instead of importing them: a config is checked without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from ...errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from .base import Strategy

#: name -> (module in this folder, class)
STRATEGIES = {
    "probe": ("probe", "Probe"),
    "ridge": ("ridge", "Ridge"),
    "lp-ft": ("lp_ft", "LpFt"),
    "full": ("full", "Full"),
    "partial": ("partial", "Partial"),
    "gradual": ("gradual", "Gradual"),
    "lora": ("lora", "Lora"),
}


def get_strategy(name: str) -> Strategy:
    """A strategy, ready to train.

    Raises:
        ConfigError: unknown name, with the nearest valid one.
    """
    if name not in STRATEGIES:
        raise ConfigError(f"unknown strategy {name!r}; {did_you_mean(name, STRATEGIES)}")
    module, cls = STRATEGIES[name]
    return cast("Strategy", getattr(import_module(f"{__name__}.{module}"), cls)())
