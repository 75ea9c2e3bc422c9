"""The section of reports/reliability.md that a long run writes; the rest of the file stays as it is."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HEADING = "## Hostile input"


def write(file: Path, results: Sequence[dict[str, Any]], cases: int, seed: int) -> None:
    """Puts the counts of a run in the place of those of an earlier one."""
    text = file.read_text(encoding="utf-8") if file.exists() else "# Reliability\n"
    before, _, after = text.partition(f"{HEADING}\n")
    _, found, rest = after.partition("\n## ")
    section = f"{HEADING}\n\n{_section(results, cases, seed)}"
    file.write_text(f"{before.rstrip()}\n\n{section}" + (f"\n## {rest}" if found else ""), encoding="utf-8")


def _section(results: Sequence[dict[str, Any]], cases: int, seed: int) -> str:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    guided = all(r.get("coverage") for r in results)
    how = "coverage-guided by atheris" if guided else "random, not guided by coverage"
    lines = [
        f"`make fuzz` (`python -m tests.fuzz.long --cases {cases} --seed {seed}`) at {commit}, {how}. A case is a "
        "file, a folder or an address made of structure and damage (`tests/fuzz/`). It may end in an answer or in an "
        "error of `ensembler/errors.py`, one printable line long. Another exception, 5 s, a write, link or folder "
        "outside of the case's own, a connection, a process, a pickle, or 512 MiB more than before (2 GiB of address "
        "space) would be a violation.",
        "",
        "| target | cases | accepted | distinct outcomes | violations | seconds | peak RSS, MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in results:
        lines.append(
            f"| {r['target']} | {r['cases']:,} | {r['outcomes'].get('accepted', 0):,} | {len(r['outcomes']):,} | "
            f"{sum(v['times'] for v in r['violations'].values()):,} | {r['seconds']:,.0f} | {r['peak_mib']:,} |"
        )
    return "\n".join(lines) + "\n"
