"""How many small faults in the code the tests notice: `make mutation`.

mutmut writes every mutant of a part of the suite's code; a sample of them, drawn with a seed, is run against the
tests of that part, each in a process of its own. What survives is shown with `mutmut show NAME` in the part's
folder under `build/mutation/`. A second run goes on where the first stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mutmut.stats import status_by_exit_code

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / "build" / "mutation"

#: What a mutant that was noticed ended as: a test failed, it ran without end, it took the process down.
NOTICED = ("killed", "timeout", "segfault")

CONFIG = """
[tool.mutmut]
source_paths = ["ensembler"]
only_mutate = {code}
also_copy = ["app.py", "configs", "docs", "benchmarks", "scripts", "README.md", "Makefile"]
pytest_add_cli_args = ["-p", "no:cacheprovider", "-p", "no:cov"]
pytest_add_cli_args_test_selection = {tests}
process_isolation = "forkserver"
timeout_constant = 10.0
timeout_multiplier = 6.0
on_dependency_change = "ignore"
"""


@dataclasses.dataclass(frozen=True)
class Part:
    """Code with its tests.

    Attributes:
        sample: mutants that are run; all where there are fewer.
    """

    code: list[str]
    tests: list[str]
    sample: int


QUICK = ["-m", "not slow and not gpu and not browser and not shared"]

PARTS = {
    "cross_fit": Part(["ensembler/evaluation/cross_fit.py"], ["tests/evaluation/test_cross_fit.py"], 200),
    "predictions": Part(
        ["ensembler/predictions*.py"],
        ["tests/test_predictions.py", "tests/golden/test_provoked_evaluation.py"],
        150,
    ),
    "config": Part(["ensembler/config*.py"], ["tests/test_config.py", "tests/test_config_checks.py"], 150),
    "store": Part(
        ["ensembler/store.py"],
        ["tests/test_store.py", "tests/test_store_reading.py", "tests/golden/test_provoked_run.py"],
        150,
    ),
    "combiners": Part(
        ["ensembler/combiners/*"], ["tests/combiners", "tests/conformance/test_combiners.py"], 250
    ),
    # Without the session of Ray, which what reads a bundle would pay for with each mutant.
    "bundle": Part(["ensembler/bundle/*"], ["tests/bundle", "--ignore=tests/bundle/test_serve_ray.py"], 250),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the samples (default: 0)")
    parser.add_argument("--share", type=float, default=1.0, help="of each sample that is run (default: 1)")
    parser.add_argument("--least", type=float, default=85.0, help="exit 1 below this score (default: 85)")
    parser.add_argument("--only-report", action="store_true", help="of what has been run")
    args = parser.parse_args()
    names = args.parts or list(PARTS)
    if unknown := set(names) - set(PARTS):
        parser.error(f"unknown part {sorted(unknown)[0]!r}; there are {', '.join(PARTS)}")
    tallies = {}
    for name in names:
        folder = HOME / name
        if not args.only_report:
            run(PARTS[name], prepared(name, PARTS[name]), args.seed, args.share)
        tallies[name] = tally(folder)
    print(table(tallies))
    return 0 if score(tallies) >= args.least else 1


def prepared(name: str, part: Part) -> Path:
    """A copy of the sources for one part, because mutmut takes its configuration and its place from the folder."""
    folder = HOME / name
    folder.mkdir(parents=True, exist_ok=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for file in filter(None, listed.split("\0")):
        source, target = ROOT / file, folder / file
        if source.is_file() and not (target.exists() and target.read_bytes() == source.read_bytes()):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    settings = CONFIG.format(code=json.dumps(part.code), tests=json.dumps([*QUICK, *part.tests]))
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8") + settings
    if (folder / "pyproject.toml").read_text(encoding="utf-8") != text:
        (folder / "pyproject.toml").write_text(text, encoding="utf-8")
    return folder


def run(part: Part, folder: Path, seed: int, share: float) -> None:
    """Writes all mutants, and runs those of the sample that have not been run."""
    mutmut(folder, "run", "no mutant")  # writes them, and times the tests
    found = results(folder)
    chosen = drawn(sorted(found), round(part.sample * share), seed)
    waiting = [name for name in chosen if found[name] is None]
    if waiting:
        mutmut(folder, "run", "--max-children", "1", *waiting)


def drawn(names: list[str], size: int, seed: int) -> list[str]:
    """The same order whatever the size, so that a larger sample holds the smaller ones."""
    random.Random(seed).shuffle(names)
    return names[:size]


def mutmut(folder: Path, *args: str) -> None:
    env = os.environ | {
        "PYTHONPATH": str(folder / "mutants"),
        "OMP_NUM_THREADS": "1",
        "ENSEMBLER_TESTS_ONCE": str(folder / "once"),  # made by the tests of what no mutant has changed
    }
    subprocess.run([str(Path(sys.executable).with_name("mutmut")), *args], cwd=folder, env=env, check=False)


def results(folder: Path) -> dict[str, int | None]:
    """Of every mutant its exit code; None if it was not run."""
    found: dict[str, int | None] = {}
    for file in sorted((folder / "mutants").rglob("*.meta")):
        found |= json.loads(file.read_text(encoding="utf-8"))["exit_code_by_key"]
    return found


def tally(folder: Path) -> Counter[str]:
    return Counter(status_by_exit_code[code] for code in results(folder).values())


def noticed(counts: Counter[str]) -> tuple[int, int]:
    """(noticed, run)."""
    return sum(counts[status] for status in NOTICED), sum(counts.values()) - counts["not checked"]


def score(tallies: dict[str, Counter[str]]) -> float:
    """Percent of all mutants that are noticed, as the samples of the parts say."""
    total = sum(sum(counts.values()) for counts in tallies.values())
    parts = [(sum(counts.values()), *noticed(counts)) for counts in tallies.values()]
    return 100 * sum(size * hit / max(ran, 1) for size, hit, ran in parts) / max(total, 1)


def interval(hit: int, ran: int) -> tuple[float, float]:
    """Wilson's, 95 %, in percent."""
    if not ran:
        return 0.0, 100.0
    z, share = 1.96, hit / ran
    centre, spread = (
        share + z * z / (2 * ran),
        z * math.sqrt(share * (1 - share) / ran + z * z / (4 * ran * ran)),
    )
    return 100 * (centre - spread) / (1 + z * z / ran), 100 * (centre + spread) / (1 + z * z / ran)


def table(tallies: dict[str, Counter[str]]) -> str:
    return "\n".join(_lines(tallies))


def _lines(tallies: dict[str, Counter[str]]) -> Iterator[str]:
    yield "| part | mutants | run | killed | no end | no test | survived | score, % | 95 % interval |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for name, counts in tallies.items():
        hit, ran = noticed(counts)
        low, high = interval(hit, ran)
        cells = [name, sum(counts.values()), ran, counts["killed"] + counts["segfault"], counts["timeout"]]
        cells += [
            counts["no tests"],
            counts["survived"],
            f"{100 * hit / max(ran, 1):.1f}",
            f"{low:.0f} to {high:.0f}",
        ]
        yield f"| {' | '.join(map(str, cells))} |"
    yield f"\nof all mutants, by the samples: {score(tallies):.1f} %"


if __name__ == "__main__":
    sys.exit(main())
