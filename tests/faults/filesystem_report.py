"""What failing file operations have done to a run, as a section of the report."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tests.sections import table, write_section

HEADING = "A file system that fails"


def write(file: Path, lines: Path) -> None:
    """Writes the section from the lines of a campaign."""
    results = [json.loads(line) for line in lines.read_text().splitlines()]
    write_section(
        file,
        HEADING,
        "\n\n".join([_intro(results), _by_operation(results), _by_step(results), _found(results)]),
    )


def _intro(results: list[dict[str, Any]]) -> str:
    n, total = len(results), max(r["of"] for r in results)
    share = "all there are" if n == total else f"the first of {total:,} in an order drawn from the seed"
    return (
        f"`make faults` (`python -m tests.faults.filesystem LINES --seed {results[0]['seed']}`) at "
        f"{', '.join(sorted({r['commit'] for r in results}))}. {n:,} cases, {share}: each operation that a small run "
        "has done on its files, failing with each errno, once or from there on. *Refused* is exit 2 with one line that "
        "names path, cause and way out; *went on* is exit 0 with all that it should leave (a clean-up that failed, "
        "which the next driver makes up for). After each but those listed below, every file "
        "was an old one or a new one to the byte, the "
        "store could be read, and the same command, with the cause gone, left what it leaves undisturbed."
    )


def _by_operation(results: list[dict[str, Any]]) -> str:
    counts = Counter((r["kind"], r["code"], r["exit"]) for r in results)
    codes = sorted({r["code"] for r in results})
    rows = [
        [kind, *(counts[(kind, code, outcome)] for code in codes for outcome in (2, 0))]
        for kind in sorted({r["kind"] for r in results})
    ]
    rows.append(["all", *(sum(row[i] for row in rows) for i in range(1, 1 + 2 * len(codes)))])
    return table(
        ["operation", *(f"{code}, {what}" for code in codes for what in ("refused", "went on"))], rows
    )


def _by_step(results: list[dict[str, Any]]) -> str:
    counts = Counter((r["step"], r["for_good"]) for r in results)
    rows = [
        [step, counts[(step, False)], counts[(step, True)]]
        for step in dict.fromkeys(r["step"] for r in results)
    ]
    return table(["command", "once", "for good"], sorted(rows))


def _found(results: list[dict[str, Any]]) -> str:
    broken = [r for r in results if r["broken"]]
    if not broken:
        return "Promises broken: 0."
    rows = [
        [r["step"], r["at"], r["code"], r["kind"], r["path"], " ".join("; ".join(r["broken"]).split())[-160:]]
        for r in broken
    ]
    return f"Promises broken: {len(broken)}.\n\n" + table(
        ["command", "n", "errno", "operation", "path", "what"], rows
    )
