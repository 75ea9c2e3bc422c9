"""The section of reports/reliability.md that a long run writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.sections import table, write_section


def write(file: Path, results: Sequence[dict[str, Any]], seed: int) -> None:
    """Puts the counts of a run in the place of those of an earlier one."""
    write_section(file, "Hostile input", _section(results, seed))


def _section(results: Sequence[dict[str, Any]], seed: int) -> str:
    commits = ", ".join(sorted({str(r["commit"]) for r in results}))
    cases = max(r["cases"] for r in results)
    guided = all(r.get("coverage") for r in results)
    how = "coverage-guided by atheris" if guided else "random, not guided by coverage"
    head = ["target", "cases", "accepted", "distinct outcomes", "violations", "seconds", "peak RSS, MiB"]
    rows = [
        [
            r["target"],
            f"{r['cases']:,}",
            f"{r['outcomes'].get('accepted', 0):,}",
            f"{len(r['outcomes']):,}",
            f"{sum(v['times'] for v in r['violations'].values()):,}",
            f"{r['seconds']:,.0f}",
            f"{r['peak_mib']:,}",
        ]
        for r in results
    ]
    return (
        f"`make fuzz` (`python -m tests.fuzz.long --cases {cases} --seed {seed}`) at {commits}, {how}. A case is a "
        "file, a folder or an address made of structure and damage (`tests/fuzz/`). It may end in an answer or in an "
        "error of `ensembler/errors.py`, one printable line long. Another exception, 5 s, a write, link or folder "
        "outside of the case's own, a connection, a process, a pickle, or 512 MiB more than before (2 GiB of address "
        f"space) would be a violation.\n\n{table(head, rows)}"
    )
