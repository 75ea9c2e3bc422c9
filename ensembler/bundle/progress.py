"""A line that tells how far a long job is; numpy and a terminal are all it needs."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

#: Seconds between two drawings.
EVERY_S = 0.2


class Progress:
    """`1,024 of 60,000 images, 830 a second, 71 s left`, drawn over itself on a terminal, and nowhere else.

    Args:
        total: how many there are in all; None while nobody has counted.
        unit: what is counted.
        stream: where it is drawn; standard error unless told otherwise.
        shown: None draws on a terminal alone.
    """

    def __init__(
        self,
        total: int | None,
        unit: str = "images",
        *,
        stream: TextIO | None = None,
        shown: bool | None = None,
    ) -> None:
        self._stream = stream or sys.stderr
        self._shown = self._stream.isatty() if shown is None else shown
        self._total, self._unit = total, unit
        self._done = 0
        self._began = self._drawn = time.monotonic()
        self._width = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown and self._width:
            self._draw()
            self._stream.write("\n")
            self._stream.flush()

    def add(self, n: int) -> None:
        """Counts `n` more."""
        self._done += n
        now = time.monotonic()
        if self._shown and now - self._drawn >= EVERY_S:
            self._drawn = now
            self._draw()

    def clear(self) -> None:
        """Wipes the line, so that something else can be written there."""
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._width = 0

    def line(self) -> str:
        """What is drawn."""
        speed = self._done / max(time.monotonic() - self._began, 1e-9)
        text = f"{self._done:,}"
        if self._total is not None:
            text += f" of {self._total:,}"
        text += f" {self._unit}, {speed:,.0f} a second"
        if self._total is not None and self._done:
            text += f", {max(self._total - self._done, 0) / speed:,.0f} s left"
        return text

    def _draw(self) -> None:
        text = self.line()
        self._stream.write("\r" + text.ljust(self._width))
        self._stream.flush()
        self._width = len(text)
