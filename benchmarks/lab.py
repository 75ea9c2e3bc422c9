"""Seconds that the ensemble lab takes for an answer: score, interval, difference to the best single model, and cost.

    python benchmarks/lab.py

50 members, 10,000 rows, 10 classes, made as in `combine.py`; each answer is for other members, so that none is known.
The bar is 1 s for every combiner that the lab calls fast. What is drawn below the answer, the map of diversity and the
contributions, and the lab's own start, are shown apart. The browser's share is measured with the app's other pages.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

from combine import library
from measure import commit, verdict

from ensembler.evaluation.cost import Cost
from ensembler.figures import diversity_frame
from ensembler.laboratory import FAST, Laboratory, Setup
from ensembler.metrics import get_metric

BAR = 1.0


def setups(names: tuple[str, ...], combiner: str) -> Iterator[Setup]:
    """Ensembles that differ by the member that is switched off."""
    for off in range(len(names)):
        on = names[:off] + names[off + 1 :]
        weights = tuple(1.0 + i for i in range(len(on))) if combiner == "weighted" else ()
        yield Setup(on, combiner, weights)


def seconds(work: Callable[[], object]) -> float:
    """Of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main(argv: list[str] | None = None) -> None:
    """Prints the median and the slowest of each, and whether the slowest keeps to the bar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--members", type=int, default=50)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--metrics", nargs="+", default=["log_loss", "accuracy", "macro_f1"])
    args = parser.parse_args(argv)
    predictions = library(args.members, args.rows)
    names = predictions.members
    costs = {name: Cost(latency_ms=5.0 + i) for i, name in enumerate(names)}
    print(
        f"commit {commit()}; {args.members} members, {args.rows:,} rows, 10 classes; {args.repeats} answers each"
    )
    worst = 0.0
    for metric in args.metrics:
        began = time.perf_counter()
        lab = Laboratory(predictions, get_metric(metric), costs)
        start = time.perf_counter() - began
        print(f"\n{metric}: {start:.2f} s to start")
        for combiner in filter(lab.is_fast, FAST):
            asked = setups(names, combiner)
            lab.measure(next(asked))  # warms up
            found = [seconds(partial(lab.measure, next(asked))) for _ in range(args.repeats)]
            worst = max(worst, *found)
            print(f"  {combiner:24} {statistics.median(found):6.3f} s, slowest {max(found):6.3f} s")
        below: dict[str, Callable[[], object]] = {
            "map of diversity": partial(diversity_frame, predictions),
            "contributions": partial(lab.contributions, names),
        }
        for name, work in below.items():
            print(f"  {name:24} {seconds(work):6.3f} s")
    print(f"\nslowest answer {worst:.3f} s, bar {BAR} s: {verdict(worst, BAR, at_least=False)}")


if __name__ == "__main__":
    main()
