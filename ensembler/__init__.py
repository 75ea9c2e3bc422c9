"""Ensembles and model comparison for image classification: a verdict you can trust.

>>> from ensembler import Experiment                            # doctest: +SKIP
>>> Experiment.from_config("configs/quickstart.yaml").run()     # doctest: +SKIP
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bundle.runtime import Bundle
    from .config import Config
    from .errors import EnsemblerError
    from .evaluation.leaderboard import Leaderboard
    from .experiment import Experiment
    from .predictions import Predictions

# No library tells its makers that it is used, or what else is installed, unless whoever runs this has said so. They
# read these when they are imported.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # from 1.29 on it keeps an identifier too

__version__ = "0.1.0"

__all__ = ["Bundle", "Config", "EnsemblerError", "Experiment", "Leaderboard", "Predictions", "__version__"]

_HOMES = {
    "Bundle": "bundle.runtime",
    "Config": "config",
    "EnsemblerError": "errors",
    "Experiment": "experiment",
    "Leaderboard": "evaluation.leaderboard",
    "Predictions": "predictions",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for: `import ensembler` costs nothing."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
