"""Selection beside AutoGluon's, selection from a large library, and the whole stages `combine` and `compare`.

    python3 -m venv /tmp/autogluon && /tmp/autogluon/bin/pip install autogluon.core
    python benchmarks/combine.py --autogluon /tmp/autogluon/bin/python

Ten minutes, nearly all of them AutoGluon's; without `--autogluon` one. The data are made: models of different quality
that share part of their errors. Both sides select from the same arrays, taking turns, on one BLAS thread each; a ratio
is the median over the rounds, after one that warms up. Ours is `Greedy.fit` as a whole, tables included. Exit 1 where
a bar is missed or the weights differ.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from measure import commit, interleave, ratio, verdict
from numpy.typing import NDArray

from ensembler.combiners import COMBINERS, make_combiner
from ensembler.comparison import combine, compare, start_bare_run
from ensembler.predictions import Predictions
from ensembler.store import RunStore

#: The least ratio to AutoGluon, by metric.
RATIO_BARS = {"log_loss": 150.0, "accuracy": 25.0}
SECONDS_BAR, GB_BAR = 2.0, 3.0
STAGE_BAR = 30.0

HERE = Path(__file__).resolve()
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}


def library(n_members: int, n_samples: int, n_classes: int = 10) -> Predictions:
    """Models of different quality, a model at a time: a cube of 200 models over 50,000 images is 400 MB."""
    rng = np.random.default_rng(0)
    labels = rng.integers(n_classes, size=n_samples)
    shared = rng.standard_normal((n_samples, n_classes), np.float32)
    proba = np.empty((n_members, n_samples, n_classes), np.float32)
    for slab in proba:
        logits = rng.standard_normal((n_samples, n_classes), np.float32)
        logits *= rng.uniform(0.8, 2)
        logits += shared
        logits[np.arange(n_samples), labels] += rng.uniform(1.5, 2.5)
        np.exp(logits, out=slab)
        np.divide(slab, slab.sum(axis=1, keepdims=True), out=slab)
    return Predictions.from_arrays(proba, labels, np.arange(n_samples) % 5)


def seconds(work: Callable[[], object]) -> float:
    """Of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


# ---------------------------------------------------------------------- beside AutoGluon


class Peer:
    """AutoGluon in a process of its own; it holds the arrays and selects when asked."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._ask: IO[str] = process.stdin
        self._answer: IO[str] = process.stdout

    def fit(self, metric: str) -> tuple[float, NDArray[np.float64]]:
        """Seconds, and weights (members,)."""
        self._ask.write(metric + "\n")
        self._ask.flush()
        answer = json.loads(self._answer.readline())
        return answer["seconds"], np.array(answer["weights"])


@contextmanager
def peer(python: str, predictions: Predictions, rounds: int) -> Iterator[Peer]:
    """Starts AutoGluon on these predictions."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "proba.npy", predictions.proba)
        np.save(Path(folder) / "labels.npy", predictions.labels)
        command = [python, str(HERE.with_name("autogluon_peer.py")), folder, str(rounds)]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=os.environ | ONE_THREAD
        ) as process:
            yield Peer(process)
            assert process.stdin is not None
            process.stdin.close()


def beside_autogluon(python: str, quick: bool) -> bool:
    """Prints the ratio for each metric; whether bars are kept and the weights are the same."""
    size, rounds, repeats = ((10, 500), 5, 1) if quick else ((100, 20_000), 25, 5)
    predictions = library(*size)
    print(
        f"greedy selection, {size[0]} models x {size[1]:,} rows x 10 classes, {rounds} rounds; {repeats} turns"
    )
    good = True
    with peer(python, predictions, rounds) as other:
        for metric, bar in RATIO_BARS.items():
            combiner = make_combiner("greedy", metric=metric, rounds=rounds)
            theirs: list[NDArray[np.float64]] = []

            def autogluon(metric: str = metric, theirs: list[NDArray[np.float64]] = theirs) -> float:
                taken, weights = other.fit(metric)
                theirs.append(weights)
                return taken

            def ours(combiner: object = combiner) -> float:
                return seconds(lambda: combiner.fit(predictions))  # type: ignore[attr-defined]

            found = interleave({"autogluon": autogluon, "ours": ours}, repeats)
            times, least, most = ratio(found, "autogluon", "ours")
            assert combiner.weights_ is not None
            apart = float(
                np.abs(_by_name(combiner.members_, combiner.weights_, predictions) - theirs[-1]).max()
            )
            n_used = int((theirs[-1] > 0).sum())
            print(
                f"  {metric:9} ours {statistics.median(found['ours']):.3f} s, AutoGluon "
                f"{statistics.median(found['autogluon']):.1f} s: {times:.0f} x ({least:.0f} to {most:.0f}); bar "
                f"{bar:g} x: {'not for this size' if quick else verdict(times, bar, at_least=True)}; "
                f"{n_used} members, weights differ by at most {apart:.1e}"
            )
            good &= apart < 1e-12 and (quick or times >= bar)
    return good


def _by_name(
    members: tuple[str, ...], weights: NDArray[np.float64], predictions: Predictions
) -> NDArray[np.float64]:
    """Weights in the order of the predictions: a fit may put members in the order of their names."""
    known = dict(zip(members, weights, strict=True))
    return np.array([known[member] for member in predictions.members])


# ---------------------------------------------------------------------- a large library


def large(quick: bool) -> bool:
    """Prints seconds and memory of fits on a large library, each in a fresh process; whether greedy keeps the bars."""
    good = True
    print(
        f"{'20 models x 5,000' if quick else '200 models x 50,000'} rows x 10 classes, 50 rounds, a process each"
    )
    for key, metric in (
        ("greedy", "log_loss"),
        ("greedy", "accuracy"),
        ("greedy", "brier"),
        ("bagging", "log_loss"),
        ("convex", ""),
    ):
        command = [sys.executable, str(HERE), "--child", f"{key}:{metric}", *(["--quick"] if quick else [])]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env=os.environ | ONE_THREAD
        )
        answer = json.loads(done.stdout)
        bar = ""
        if key == "greedy":
            kept = [
                verdict(answer["seconds"], SECONDS_BAR, at_least=False),
                verdict(answer["gb"], GB_BAR, at_least=False),
            ]
            bar = f"; bars {SECONDS_BAR:g} s and {GB_BAR:g} GB: {', '.join(kept)}"
            good &= kept == ["ok", "ok"]
        print(
            f"  {key + ' ' + metric:18} {answer['seconds']:6.2f} s, {answer['gb']:.2f} GB at most "
            f"({answer['before_gb']:.2f} before the fit){bar}"
        )
    return good


def child(what: str, quick: bool) -> None:
    """One fit in this process: prints JSON."""
    key, metric = what.split(":")
    options = {"metric": metric, "rounds": 50} if metric else {}
    predictions = library(20, 5000) if quick else library(200, 50_000)
    combiner = make_combiner(key, **options)
    before = _peak_gb()
    taken = statistics.median(seconds(lambda: combiner.fit(predictions)) for _ in range(1 if quick else 5))
    print(json.dumps({"seconds": taken, "before_gb": before, "gb": _peak_gb()}))


def _peak_gb() -> float:
    """The most memory this process has held, in 10^9 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


# ---------------------------------------------------------------------- the stages


def stages(quick: bool) -> bool:
    """Prints the seconds of every combiner, and of the leaderboard; whether the bar is kept."""
    size = (4, 200) if quick else (20, 3000)
    entries = [(key, dict[str, object]()) for key in COMBINERS]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "oof.npz"
        library(*size).save(source)
        store = RunStore(Path(folder) / "run")
        start_bare_run(store, source, "log_loss", entries)
        began = time.time()
        combining = seconds(lambda: combine(store))
        comparing = seconds(lambda: compare(store))
        ended = [(event["name"], event["t"]) for event in store.events() if event["kind"] == "ensemble"]
    print(
        f"stages combine and compare, {size[0]} models x {size[1]:,} rows x 10 classes, 5 folds, "
        f"{len(entries)} combiners"
    )
    starts = [began, *(t for _, t in ended)]
    for (name, end), start in sorted(zip(ended, starts, strict=False), key=lambda pair: pair[1] - pair[0][1]):
        print(f"  {name:18} {end - start:6.2f} s")
    whole = combining + comparing
    print(f"  combine {combining:.1f} s, compare {comparing:.1f} s; bar {STAGE_BAR:g} s for both: ", end="")
    print("not for this size" if quick else verdict(whole, STAGE_BAR, at_least=False))
    return quick or whole <= STAGE_BAR


def main(argv: list[str] | None = None) -> None:
    """Prints everything; exit 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--autogluon", metavar="PYTHON", help="a Python that has autogluon.core")
    parser.add_argument("--parts", nargs="+", choices=("autogluon", "large", "stages"), help="all by default")
    parser.add_argument("--quick", action="store_true", help="next to nothing, one round, no promise")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        child(options.child, options.quick)
        return
    parts = options.parts or ("autogluon", "large", "stages")
    print(f"commit {commit()}")
    good = True
    if "autogluon" in parts:
        if options.autogluon:
            good &= beside_autogluon(options.autogluon, options.quick)
        else:
            print("no --autogluon: nothing is measured beside it")
    if "large" in parts:
        good &= large(options.quick)
    if "stages" in parts:
        good &= stages(options.quick)
    if not good:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
