"""A time budget: what each stage may take, and what has to be made smaller to fit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

#: Shares of a budget: the search ends at the first, cross-validation at the second; the rest combines and scores.
SEARCH_SHARE, SWEEP_SHARE = 0.35, 0.92

#: Time of a Cell over that of its gradients alone: monitor rows, holdout, the head, the start of a worker.
OVERHEAD = 1.3

#: Fewest epochs that fine-tuning is worth starting for.
MIN_EPOCHS = 2


@dataclass(frozen=True)
class Budget:
    """Wall time for a whole run.

    Attributes:
        seconds: of it all.
        began: `time.monotonic()` when the run began.
    """

    seconds: float
    began: float

    @property
    def search_deadline(self) -> float:
        """`time.monotonic()` after which the search starts no trial."""
        return self.began + SEARCH_SHARE * self.seconds

    @property
    def crossval_s(self) -> float:
        """Seconds meant for cross-validation when the search has used its share."""
        return (SWEEP_SHARE - SEARCH_SHARE) * self.seconds

    @property
    def left_s(self) -> float:
        """Seconds left for cross-validation, now."""
        return self.began + SWEEP_SHARE * self.seconds - time.monotonic()


def fit_epochs(seconds_per_epoch: Sequence[float], epochs: int, seconds: float) -> list[int]:
    """How many epochs each of several candidates may have, so that all of them together fit.

    Each gets an equal share of the time; what a fast one does not need goes to the slower ones.

    Args:
        seconds_per_epoch: of each candidate, over all its folds.
        epochs: as many as are wanted.
        seconds: for all of them.

    Returns:
        Epochs of each, from `MIN_EPOCHS` (even where that does not fit) to `epochs`.

    >>> fit_epochs([1.0, 10.0], epochs=8, seconds=50)
    [8, 4]
    """
    given = [0] * len(seconds_per_epoch)
    left = seconds
    cheapest_first = sorted(range(len(given)), key=seconds_per_epoch.__getitem__)
    for position, i in enumerate(cheapest_first):
        share = left / (len(given) - position)
        given[i] = min(epochs, max(MIN_EPOCHS, int(share / seconds_per_epoch[i])))
        left -= given[i] * seconds_per_epoch[i]
    return [min(n, epochs) for n in given]
