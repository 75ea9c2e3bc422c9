"""What the tests of rare messages share."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a library one that is not installed."""

    def hide(library: str) -> None:
        real = builtins.__import__

        def fake(name: str, *args: Any, **kwargs: Any) -> Any:
            if name.partition(".")[0] == library:
                raise ImportError(f"No module named {library!r}", name=library)
            return real(name, *args, **kwargs)

        for loaded in [name for name in sys.modules if name.partition(".")[0] == library]:
            monkeypatch.delitem(sys.modules, loaded)
        monkeypatch.setattr(builtins, "__import__", fake)

    return hide
