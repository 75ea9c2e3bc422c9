"""Where things are kept for every run."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Where decoded pixels and downloaded data sets are kept for every run: $ENSEMBLER_CACHE or ~/.cache/ensembler."""
    return Path(os.environ.get("ENSEMBLER_CACHE") or Path.home() / ".cache" / "ensembler")
