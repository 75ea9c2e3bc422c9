"""Does the comparison keep its promises? Simulations whose truth is known.

    python benchmarks/simulate.py --quick    a twentieth of the draws; some minutes, prints
    python benchmarks/simulate.py --write    all of them; about an hour, writes reports/statistics.md

Four promises: 95 % intervals cover the truth in 93 to 97 % of 2,000 draws; with no true difference the verdict is "the
ensemble is better" in at most 5 %; the bias of the corrected score of a winner is at most a third of the naive one's;
under random labels the cross-fitted score of every combiner stays at chance. Each line of a table is one simulation of
its own seed, so lines can be run again one by one and in any order.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from measure import ROOT, commit
from simulations import N_CLASSES, Line, chance, coverage, false_verdicts, vain_ensembles, winners

from ensembler.combiners import COMBINERS

REPORT = ROOT / "reports" / "statistics.md"

TITLES = {
    "intervals": (
        "95 % intervals",
        "Share of draws whose interval contains the truth; 93 to 97 % is promised. The last column is what the same "
        "resamples give when their percentiles are taken, as is usual: too little where rows are few and losses "
        "skewed, so intervals here are those of a t-statistic corrected by the bootstrap skewness (Hall 1992), where "
        "it widens for differences, and of Wilson (1927) for an accuracy.",
    ),
    "verdicts": (
        "No true difference",
        "Share of draws in which an ensemble is called better than the best single model; at most 5 % is promised.",
    ),
    "winners": (
        "The winner of a selection",
        "Bias of the naive accuracy of the best row and of the corrected one; a third of the naive one's is promised. "
        "The corrected score is the mean of BBC-CV (Tsamardinos et al. 2018), which is too bad where rows differ, and "
        "of the naive score less its optimism (Efron 1983), which is too good where they do not. Errors are root mean "
        "squares.",
    ),
    "chance": (
        "Random labels",
        f"Cross-fitted scores of every combiner; chance is an accuracy of {1 / N_CLASSES:.4f}.",
    ),
}


def all_simulations(scale: float) -> list[Callable[[], Line]]:
    """All of them; `scale` shortens."""

    def of(n_draws: int) -> int:
        return max(20, round(scale * n_draws))

    names, sizes = ("log_loss", "accuracy"), (50, 200, 1000, 5000)
    work: list[Callable[[], Line]] = []
    work += [partial(coverage, name, n, of(2000)) for name in names for n in sizes]
    work += [partial(coverage, name, n, of(2000), 5) for name in names for n in (250, 1000, 5000)]
    work += [
        partial(false_verdicts, name, n, of(1000 if n == 5000 else 2000)) for name in names for n in sizes
    ]
    work += [partial(false_verdicts, name, 50, of(2000), 1, 1) for name in names]
    work += [partial(vain_ensembles, name, n, of(300)) for name in names for n in (50, 200, 1000)]
    work += [
        partial(winners, m, n, spread, of(1000))
        for m in (5, 50)
        for n in (100, 1000)
        for spread in (0.0, 0.01, 0.03)
    ]
    work += [partial(chance, key, of(40)) for key in COMBINERS]
    return work


def report(lines: Sequence[Line], command: str) -> str:
    """Markdown, a table a promise."""
    broken = sum(not line.kept for line in lines)
    text = [
        "# Statistics by simulation",
        "",
        f"`{command}` at commit `{commit()}`. "
        + (
            "Every promise is kept." if not broken else f"{broken} of {len(lines)} lines break their promise."
        ),
        "",
    ]
    for table, found in groupby(lines, lambda line: line.table):
        title, meaning = TITLES[table]
        group = list(found)
        columns = [*group[0].cells, "kept"]
        text += [f"## {title}", "", meaning, "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        text += [
            f"| {' | '.join([*line.cells.values(), 'yes' if line.kept else '**no**'])} |" for line in group
        ]
        text.append("")
    return "\n".join(text)


def _timed(work: Callable[[], Line]) -> tuple[Line, float]:
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def _finished(work: Sequence[Any], store: Path | None, jobs: int) -> Iterator[Line]:
    """Every line, in order, as it is printed; those in `store` are taken from it, the others added to it."""
    kept: dict[str, Any] = {}
    if store and store.exists():
        kept = dict(json.loads(row) for row in store.read_text(encoding="utf-8").splitlines())
    names = [f"{one.func.__name__}{one.args}" for one in work]
    missing = [one for one, name in zip(work, names, strict=True) if name not in kept]
    with ProcessPoolExecutor(jobs) as pool:
        fresh = pool.map(_timed, missing)
        for name in names:
            if name in kept:
                line = Line(**kept[name])
            else:
                line, seconds = next(fresh)
                shown = " | ".join(line.cells.values())
                print(
                    f"{seconds:6.0f} s  {line.table:10} {shown}{'' if line.kept else '  BROKEN'}", flush=True
                )
                if store:
                    with store.open("a", encoding="utf-8") as stream:
                        stream.write(json.dumps([name, asdict(line)]) + "\n")
            yield line


def main(argv: list[str] | None = None) -> None:
    """Prints the report, or writes it; exit 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a twentieth of the draws")
    parser.add_argument("--write", action="store_true", help=f"into {REPORT.relative_to(ROOT)}")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--only", choices=TITLES, help="one promise")
    parser.add_argument(
        "--resume", type=Path, help="a file that keeps finished lines; what it holds is not run again"
    )
    options: Any = parser.parse_args(argv)
    work: list[Any] = all_simulations(0.05 if options.quick else 1.0)
    only = {"intervals": coverage, "winners": winners, "chance": chance}
    if options.only == "verdicts":
        work = [w for w in work if w.func in (false_verdicts, vain_ensembles)]
    elif options.only:
        work = [w for w in work if w.func is only[options.only]]
    lines = list(_finished(work, options.resume, options.jobs))
    text = report(lines, "python benchmarks/simulate.py --write")
    if options.write:
        Path(REPORT).write_text(text, encoding="utf-8")
    if not all(line.kept for line in lines):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
