"""Seconds to read the leaderboard of 10,000 candidates from a run directory, and where they go.

    python benchmarks/leaderboard.py

The rows are those of random predictions, with the columns of a trained run. Reading is what `ensembler leaderboard`
and the app do: the stored table, the verdict, and JSON. The bar is 1 s for all of it; the process's own start is shown
apart.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measure import commit, verdict

from ensembler.comparison import read_leaderboard
from ensembler.evaluation.cost import Cost
from ensembler.evaluation.leaderboard import build_leaderboard
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions
from ensembler.store import RunStore

BAR = 1.0


def stored_run(folder: Path, n: int) -> RunStore:
    """A run directory with the leaderboard of `n` single models."""
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(3), size=(n, 40)).astype(np.float32)
    names = [f"backbone_{i % 40}-lp-ft-{i:06x}" for i in range(n)]
    predictions = Predictions.from_arrays(proba, rng.integers(3, size=40), np.arange(40) % 5, members=names)
    details = {
        name: {"backbone": name.split("-")[0], "strategy": "lp-ft", "weights": "w", "note": ""}
        for name in names
    }
    costs = {name: Cost(5.0, 1_000_000, 60.0) for name in names}
    board = build_leaderboard(predictions, [], METRICS["log_loss"], costs=costs, details=details, n_boot=100)
    store = RunStore(folder)
    with store.lock():
        store.claim({"predictions": "benchmark"})
        store.update_manifest(name="benchmark", metric="log_loss", ensembles=[])
        store.write_leaderboard(board.to_records())
    return store


def seconds(work: Callable[[], object]) -> float:
    """Of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main(argv: list[str] | None = None) -> None:
    """Prints the median of each part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        store = stored_run(Path(scratch) / "run", args.rows)

        def whole() -> None:
            board = read_leaderboard(store)
            assert board.verdict.winner
            board.to_json()

        def process(*words: str) -> None:
            subprocess.run([sys.executable, "-m", "ensembler", *words], check=True, stdout=subprocess.DEVNULL)

        command = ("leaderboard", str(store.path), "--format", "json")
        parts = {
            "table alone": lambda: read_leaderboard(store),
            "table, verdict and JSON": whole,
            "`ensembler --help`": lambda: process("--help"),
            "`ensembler leaderboard --format json`": lambda: process(*command),
        }
        found = {
            name: statistics.median(seconds(work) for _ in range(args.repeats))
            for name, work in parts.items()
        }
    print(f"commit {commit()}; {args.rows:,} rows, median of {args.repeats}")
    for name, value in found.items():
        print(f"{name:40} {value:6.2f} s")
    value = found["table, verdict and JSON"]
    print(f"bar {BAR} s: {verdict(value, BAR, at_least=False)}")


if __name__ == "__main__":
    main()
