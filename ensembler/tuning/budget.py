"""A time budget: what each part of a run may take, from what has been measured so far, and what has to shrink to fit.

Everything here is arithmetic on measured seconds: no clock but `time.monotonic`, no Ray, no store.
"""

from __future__ import annotations

import heapq
import math
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..training.candidate import Candidate

#: Share of the time for training that the search may take where cross-validation could use all the rest.
SEARCH_SHARE = 0.33

#: Seconds that no stage counts: imports before the clock starts, Ray's end, the bootstrap, the table.
AROUND_S = 9.0

#: Time of a Cell over that of its gradients alone: monitor rows, holdout, the head, the start of a worker.
OVERHEAD = 1.3

#: Fewest epochs that fine-tuning is worth starting for.
MIN_EPOCHS = 2

#: Epochs to which those of a kept recipe are raised where there is time and the config leaves them to us. On the
#: clothing photographs, 5 folds of `mobilenetv3_small_050` have a test log loss of 0.627 with 8 epochs, of 0.564 with
#: 16 and with 24.
MOST_EPOCHS = 30

#: A candidate is taken on if it is expected to end no later than this share of the budget after it: one that just
#: does not fit leaves more unused than it would take too much.
TOLERANCE = 0.02

#: With a budget the search goes on to so many times the trials that were asked for, cross-validation to so many
#: times the candidates, while there is time.
MORE_TRIALS, MORE_KEPT = 10, 2

#: Share of the last trial of the search that has to lie before its end. What is lost by one that ends late is made up
#: for by a candidate of fewer epochs; what is left by one that was not started is often too little for anything.
LAST_TRIAL_SHARE = 0.35

#: What is left over is given to a candidate of fewer epochs, if it has at least this share of them.
SHORT_SHARE = 0.5


@dataclass(frozen=True)
class Finish:
    """How long a run goes on after its last Cell: combining, comparing, testing; measured on two slow cores.

    Attributes:
        rows, classes, folds: of the out-of-fold predictions.
        boosting: whether trees are among the combiners, which take longest by far.
        test_rows: that every fold model of every candidate predicts.
        images_per_s: of training a typical backbone; predicting is three times as fast.
    """

    rows: int
    classes: int
    folds: int
    boosting: bool
    test_rows: int = 0
    images_per_s: float = 500.0

    def seconds(self, n: int) -> float:
        """For `n` candidates."""
        per_value = 3e-6 + 4e-5 * self.boosting
        combine = per_value * self.rows * n * self.classes * (self.folds + 1) / 6
        deploy = n * (1.0 + self.test_rows * self.folds / (3 * self.images_per_s))
        return AROUND_S + combine + deploy


@dataclass(frozen=True)
class Budget:
    """Wall time for a whole run.

    Attributes:
        seconds: of it all.
        began: `time.monotonic()` when the run began.
        finish: what comes after the last Cell.
    """

    seconds: float
    began: float
    finish: Finish

    def training_ends(self, n: int) -> float:
        """`time.monotonic()` when the last Cell has to be done, if `n` candidates come out."""
        return self.began + max(0.0, self.seconds - self.finish.seconds(n))

    def left_s(self, n: int) -> float:
        """Seconds left for Cells, now."""
        return self.training_ends(n) - time.monotonic()

    def search_ends(
        self, crossval_s: Sequence[float], n_must: int = 1, others: int = 0, most_s: float | None = None
    ) -> float:
        """`time.monotonic()` when the search has to be over.

        Cross-validation is left the time of as many candidates as fit beside the search's share, of `n_must` whether
        they do or not; what they do not need is the search's as well.

        Args:
            crossval_s: seconds to cross-validate the best, the best two and so on.
            n_must: candidates that matter more than the search: one of every backbone.
            others: candidates beside these, which take their time after the last Cell.
            most_s: what cross-validation could use at most, if epochs are raised to fill its time; None if they are
                not.
        """
        if most_s is not None:
            ends = self.training_ends(others + n_must)
            usable = min(most_s, (1 - SEARCH_SHARE) * (ends - self.began))
            return ends - max(usable, crossval_s[n_must - 1])
        for n in range(len(crossval_s), n_must, -1):
            ends = self.training_ends(others + n)
            if crossval_s[n - 1] <= (1 - SEARCH_SHARE) * (ends - self.began):
                return ends - crossval_s[n - 1]
        return self.training_ends(others + n_must) - crossval_s[n_must - 1]


@dataclass
class Pace:
    """How long a Cell of a candidate takes: guessed from the measured speed first, then learned from Cells.

    Attributes:
        guess_s: seconds of an epoch by backbone, before anything of it was trained.
    """

    guess_s: dict[str, float] = field(default_factory=dict)
    _whole: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _epochs: dict[tuple[str, ...], list[float]] = field(default_factory=lambda: defaultdict(list))

    def learn(self, candidate: Candidate, seconds: float, epochs: int, finished: bool) -> None:
        """Takes a Cell or a trial that has ended.

        Args:
            candidate: that was trained.
            seconds: it took.
            epochs: it had; fewer than its recipe's when it was stopped, by itself or by others.
            finished: whether it was a whole Cell.
        """
        if finished:
            self._whole[candidate.id].append(seconds)
        if epochs:
            for key in _kinds(candidate):
                self._epochs[key].append(seconds / epochs)

    def cell_s(self, candidate: Candidate) -> float:
        """Expected seconds: of the same candidate, else of its kind and epochs, else as guessed."""
        if candidate.id in self._whole:
            return _mean(self._whole[candidate.id])
        epochs = candidate.recipe.epochs
        for key in _kinds(candidate):
            if key in self._epochs:
                return _mean(self._epochs[key]) * epochs
        return self.guess_s.get(candidate.backbone, 0.0) * epochs


def _kinds(candidate: Candidate) -> list[tuple[str, ...]]:
    """From the same arm to the same backbone."""
    return [(candidate.backbone, candidate.weights, candidate.strategy), (candidate.backbone,)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def makespan(running: Iterable[float], cells: Iterable[float], slots: int) -> float:
    """Seconds until all is done, when free slots take the cells in order.

    Args:
        running: seconds that each busy slot still needs.
        cells: seconds of each Cell that waits.
        slots: that train at a time.

    >>> makespan([10.0], [4.0, 4.0, 4.0], slots=2)
    12.0
    """
    free_at = [max(0.0, s) for s in running]
    free_at += [0.0] * (slots - len(free_at))
    heapq.heapify(free_at)
    for seconds in cells:
        heapq.heapreplace(free_at, free_at[0] + seconds)
    return max(free_at)


def fit_epochs(seconds_per_epoch: Sequence[float], epochs: int, seconds: float) -> list[int]:
    """How many epochs each of several candidates may have, so that all of them together fit.

    Each gets an equal share of the time; what a fast one does not need goes to the slower ones. The slowest is left out
    as long as one has to do with less than `SHORT_SHARE` of the epochs.

    Args:
        seconds_per_epoch: of each candidate, over all its folds.
        epochs: as many as are wanted.
        seconds: for all of them.

    Returns:
        Epochs of each, 0 where it is left out. The fastest has `MIN_EPOCHS` at least (or all that are wanted), even
        where they do not fit.

    >>> fit_epochs([1.0, 10.0], epochs=8, seconds=50)
    [8, 4]
    >>> fit_epochs([1.0, 40.0], epochs=8, seconds=50)
    [8, 0]
    """
    fastest_first = sorted(range(len(seconds_per_epoch)), key=seconds_per_epoch.__getitem__)
    fewest = min(epochs, max(MIN_EPOCHS, math.ceil(SHORT_SHARE * epochs)))
    for n in range(len(fastest_first), 0, -1):
        given = [0] * len(seconds_per_epoch)
        left = seconds
        for position, i in enumerate(fastest_first[:n]):
            share = left / (n - position)
            given[i] = max(0, min(epochs, int(share / seconds_per_epoch[i])))
            left -= given[i] * seconds_per_epoch[i]
        if min(given[i] for i in fastest_first[:n]) >= fewest:
            return given
    first = fastest_first[0]
    enough = int(seconds / seconds_per_epoch[first])
    return [min(epochs, max(MIN_EPOCHS, enough)) if i == first else 0 for i in range(len(seconds_per_epoch))]
