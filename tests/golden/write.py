"""Writes the golden file of error messages from a run of the suite; see `scripts/golden_errors`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.golden.recorder import GOLDEN, Entry, entries, written
from tests.golden.sites import ROOT, Site, sites, unmatched

#: Messages of a place whose words all come from elsewhere, such as those of the checks of a config.
MOST_EXAMPLES = 12


def main(tests: list[str]) -> int:
    """Runs the tests, all of them if none is named, and writes what they provoke."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n",
            "2",
            "--dist",
            "loadfile",
            "-p",
            "no:cacheprovider",
        ]
        command += ["-m", "not slow and not gpu", "--record-errors", f"{folder}/recorded", *tests]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        recorded = list(read(Path(folder).glob("recorded.*")))
    if code:
        return code
    kept = entries(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else []
    update(recorded, kept, whole=not tests)
    return 0


def read(files: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def update(recorded: list[dict[str, Any]], kept: list[Entry], whole: bool) -> None:
    """Entries that hold stay as they are, so that the file changes no more than the messages do."""
    provoked: dict[Site, set[Entry]] = defaultdict(set)
    focus: dict[str, int] = defaultdict(int)
    ran = {record["test"] for record in recorded}
    for record in recorded:
        focus[record["test"]] += 1
        site = place_of(record["places"])
        if site is not None and record["plain"]:
            provoked[site].add(Entry(site.module, site.function, record["text"], record["test"]))
    old = set(kept)
    found = set() if whole else {entry for entry in kept if entry.test not in ran}
    for site, candidates in provoked.items():
        here = {
            e
            for e in found
            if (e.module, e.function) == (site.module, site.function) and site.said.match(e.text)
        }
        chosen = {entry.text: entry for entry in sorted(here | candidates & old)}
        wanted = MOST_EXAMPLES if len(re.findall(r"[a-z]{2,}", site.said.pattern)) < 2 else 1
        for entry in sorted(candidates, key=lambda e: (focus[e.test], len(e.text), e)):
            if len(chosen) < wanted:
                chosen.setdefault(entry.text, entry)
        found |= set(chosen.values())
    GOLDEN.write_text(written(found), encoding="utf-8")
    texts = defaultdict(list)
    for entry in found:
        texts[entry.module, entry.function].append(entry.text)
    print(f"{len(found)} messages of {len(sites())} places")
    for site in unmatched(sites(), texts):
        print(f"nothing provokes {site.where}")


def place_of(places: list[tuple[str, int]]) -> Site | None:
    """The `raise` that a message comes from: the innermost of its places that is one."""
    for module, line in places:
        for site in sites():
            if site.module == module and site.first <= line <= site.last:
                return site
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
