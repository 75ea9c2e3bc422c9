"""One line a batch, oldest first: what the report and the app draw."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ...atomic import naming

HISTORY = "history.jsonl"


def append(folder: Path, record: dict[str, Any]) -> None:
    """Adds a batch, by one write, so that a reader never sees half of it.

    Raises:
        StoreError: it cannot be written.
    """
    line = json.dumps(record, allow_nan=False) + "\n"
    with naming(folder / HISTORY):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / HISTORY, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Every batch so far; a line that a crash cut short is left out."""
    file = folder / HISTORY
    if not file.is_file():
        return []
    records = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and isinstance(record.get("tests"), list):
            records.append(record)
    return records
