"""1,000 paired bootstraps of 200 models over 50,000 images, every model against the best, beside a loop over resamples.

    python benchmarks/bootstrap.py            five rounds; some minutes
    python benchmarks/bootstrap.py --quick    a tenth of the models and images, one round, no promise

Both sides take turns on the same predictions and weights, so that a noisy machine slows both; the ratio is the median
of those of the rounds. Ours is all of it: weights, scores, 199 intervals and p-values, Holm. The loop draws a
resample's rows with `np.take` and scores every member on them; it runs a few resamples a round and is multiplied up,
since 1,000 would take minutes. A smarter loop, which scores each row once and takes from the losses, is shown as well.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from measure import commit, interleave, ratio, verdict
from numpy.typing import NDArray

from ensembler.evaluation.paired import resample
from ensembler.evaluation.significance import bootstrap_scores, bootstrap_weights
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions

SECONDS_BAR, RATIO_BAR = 3.0, 50.0
METRIC = METRICS["log_loss"]


def make_predictions(n_members: int, n_samples: int, n_classes: int = 10) -> Predictions:
    """Members of different quality, a member at a time: the cube alone is 400 MB."""
    rng = np.random.default_rng(0)
    labels = rng.integers(n_classes, size=n_samples)
    proba = np.empty((n_members, n_samples, n_classes), np.float32)
    for member in range(n_members):
        logits = rng.standard_normal((n_samples, n_classes), np.float32)
        logits[np.arange(n_samples), labels] += rng.uniform(1, 3)
        powers = np.exp(logits)
        proba[member] = powers / powers.sum(axis=1, keepdims=True)
    return Predictions.from_arrays(proba, labels, np.arange(n_samples) % 5)


class Sides:
    """Both ways of doing the same work.

    Args:
        predictions: of all models.
        n_boot: resamples.
        n_loop: resamples that the loop runs in a round.
    """

    def __init__(self, predictions: Predictions, n_boot: int, n_loop: int) -> None:
        self.predictions, self.n_boot, self.n_loop = predictions, n_boot, n_loop
        weights = bootstrap_weights(predictions.n_samples, n_boot, seed=0)
        self.weights = weights
        self.drawn = [np.repeat(np.arange(len(w)), w) for w in weights.T[:n_loop]]

    def ours(self) -> float:
        def work() -> None:
            found = resample(self.predictions, METRIC, n_boot=self.n_boot)
            found.against(found.names[int(found.scores.argmin())])

        return seconds(work)

    def loop(self) -> float:
        return seconds(self.loop_scores) * self.n_boot / self.n_loop

    def losses_loop(self) -> float:
        def work() -> None:
            assert METRIC.per_row is not None
            labels = self.predictions.labels
            rows = np.stack([METRIC.per_row(labels, slab) for slab in self.predictions.proba])
            for drawn in self.drawn:
                np.take(rows, drawn, axis=1).mean(axis=1)

        return seconds(work) * self.n_boot / self.n_loop

    def loop_scores(self) -> NDArray[np.float64]:
        """(members, resamples of a round)."""
        scores = np.empty((self.predictions.n_members, self.n_loop))
        for column, drawn in enumerate(self.drawn):
            labels = self.predictions.labels[drawn]
            for member, slab in enumerate(self.predictions.proba):
                scores[member, column] = METRIC(labels, np.take(slab, drawn, axis=0))
        return scores

    def apart(self) -> float:
        """How far the two sides' scores differ at most."""
        ours = bootstrap_scores(self.predictions, METRIC, self.weights[:, : self.n_loop])
        return float(np.abs(ours - self.loop_scores()).max())


def seconds(work: Callable[[], object]) -> float:
    """Of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main(argv: list[str] | None = None) -> None:
    """Prints seconds and ratios; exit 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of everything, one round, no promise")
    options = parser.parse_args(argv)
    size, repeats, n_loop = ((20, 5000), 1, 2) if options.quick else ((200, 50_000), 5, 4)
    n_boot = 1000
    sides = Sides(make_predictions(*size), n_boot, n_loop)
    ways = {"ours": sides.ours, "loop": sides.loop, "loop over losses": sides.losses_loop}
    found = interleave(ways, repeats)
    median = statistics.median(found["ours"])
    times, least, most = ratio(found, "loop", "ours")
    smart, smart_least, smart_most = ratio(found, "loop over losses", "ours")
    print(
        f"commit {commit()}; {size[0]} models x {size[1]:,} images, {n_boot:,} resamples, median of {repeats}"
    )
    print(f"ours {median:.2f} s, loop {statistics.median(found['loop']):.0f} s")
    print(f"loop / ours {times:.0f} x ({least:.0f} to {most:.0f})")
    print(f"loop over losses / ours {smart:.1f} x ({smart_least:.1f} to {smart_most:.1f})")
    print(f"scores differ by at most {sides.apart():.1e}")
    if not options.quick:
        print(f"bar {SECONDS_BAR} s: {verdict(median, SECONDS_BAR, at_least=False)}")
        print(f"bar {RATIO_BAR:g} x: {verdict(times, RATIO_BAR, at_least=True)}")
        if median > SECONDS_BAR or times < RATIO_BAR:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
