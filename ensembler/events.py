"""Reading the log of a run while it is being written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class EventReader:
    """Reads the lines of a log, each once: what was read before is not read again.

    It only reads, so the writer never waits for it. A last line without its end is still being written, or was cut
    short by a crash: it is left for the next time. A line that is no JSON object is passed over.

    Args:
        file: it need not be there yet.

    Attributes:
        restarted: whether the last `read` found another log than the one before it, and began at its beginning.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.restarted = False
        self._identity: tuple[int, int] | None = None
        self._offset = 0

    def read(self) -> list[dict[str, Any]]:
        """What was written since the last call, oldest first."""
        try:
            with self.file.open("rb") as stream:
                self._notice(os.fstat(stream.fileno()))
                stream.seek(self._offset)
                block = stream.read()
        except FileNotFoundError:
            self.restarted = self._identity is not None
            self._identity, self._offset = None, 0
            return []
        whole = block.rfind(b"\n") + 1
        self._offset += whole
        return [event for line in block[:whole].split(b"\n") if (event := _event(line)) is not None]

    def _notice(self, stat: os.stat_result) -> None:
        """Begins at the beginning where the log is another one, or shorter than what was read of it."""
        identity = (stat.st_dev, stat.st_ino)
        self.restarted = self._identity is not None and (
            identity != self._identity or stat.st_size < self._offset
        )
        if self.restarted:
            self._offset = 0
        self._identity = identity


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line.decode(errors="replace"))
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None
