"""The exported winner: `Bundle.load(folder).predict(images)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .runtime import Bundle

__all__ = ["Bundle"]


def __getattr__(name: str) -> Any:
    """Imports the runtime when the class is first asked for."""
    if name == "Bundle":
        from .runtime import Bundle

        return Bundle
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
