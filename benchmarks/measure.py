"""What every benchmark here shares: two ways of doing the same work, taken in turn, and the median of their ratios."""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def interleave(ways: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Calls each way in turn, `repeats` times over, after one round that warms up; what each call returned."""
    results: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in range(repeats + 1):
        for name, way in ways.items():
            value = way()
            if round_number:
                results[name].append(value)
    return results


def ratio(results: Mapping[str, list[float]], over: str, under: str) -> tuple[float, float, float]:
    """Median, lowest and highest of the ratios of two ways, each taken within one round."""
    ratios = [a / b for a, b in zip(results[over], results[under], strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def verdict(value: float, bar: float, at_least: bool) -> str:
    """`ok` or `short of the bar`."""
    return "ok" if (value >= bar if at_least else value <= bar) else "short of the bar"


def commit() -> str:
    """The short name of the commit that is measured, with a star where the tree differs from it."""

    def git(*words: str) -> str:
        found = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        return found.stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("*" if git("status", "--porcelain", "-uno") else "")
