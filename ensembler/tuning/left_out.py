"""What a budget had no time for once cross-validation was over; a run that goes on keeps to it."""

from __future__ import annotations

from typing import Any

from .ledger import SweepStore


class LeftOut:
    """Decisions kept in the manifest, under a key of their own.

    Args:
        store: of the run.
        key: in the manifest.
        asked: JSON-able; with other settings than these everything is decided anew.
    """

    def __init__(self, store: SweepStore, key: str, asked: Any) -> None:
        self._store = store
        self._key = key
        self._asked = asked

    def known(self, name: str) -> str:
        """Why something was left out, or ""."""
        return self._reasons().get(name, "")

    def decide(self, name: str, needed_s: float, left_s: float) -> str:
        """The same for what needs so many seconds when so many are left; "" where they are enough."""
        if needed_s <= left_s or self.known(name):
            return self.known(name)
        left = f"{max(0.0, left_s):.0f} s left"
        reason = f"left out: needs about {needed_s:.0f} s of training, the budget has {left}"
        self._store.update_manifest(
            **{self._key: {"asked": self._asked, "reasons": self._reasons() | {name: reason}}}
        )
        return reason

    def _reasons(self) -> dict[str, str]:
        decided = self._store.manifest().get(self._key, {})
        return dict(decided["reasons"]) if decided.get("asked") == self._asked else {}
