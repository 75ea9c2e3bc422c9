"""A section of a report that a long run writes; the rest of the file stays as it is."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def write_section(file: Path, heading: str, text: str) -> None:
    """Puts a section in the place of the one with the same heading, or at the end."""
    old = file.read_text(encoding="utf-8") if file.exists() else "# Reliability\n"
    before, _, after = old.partition(f"## {heading}\n")
    _, found, rest = after.partition("\n## ")
    new = f"{before.rstrip()}\n\n## {heading}\n\n{text.strip()}\n"
    file.write_text(new + (f"\n## {rest}" if found else ""), encoding="utf-8")


def table(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [" | ".join(map(str, row)) for row in [head, ["---"] * len(head), *rows]]
    return "\n".join(f"| {line} |" for line in lines)


def commit() -> str:
    """The commit of the tree, with a plus where something is not in it."""

    def git(*what: str) -> str:
        done = subprocess.run(["git", *what], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    changed = git(
        "status", "--porcelain", "--untracked-files=no", "--", "ensembler", "tests/faults", "tests/fuzz"
    )
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
