"""The other side of `combine.py`, run by a Python that has `autogluon.core`: one selection for each line it is given.

    python autogluon_peer.py FOLDER ROUNDS

FOLDER holds `proba.npy` and `labels.npy`. A line is the name of a metric; the answer is JSON: seconds and weights.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from autogluon.core.metrics import get_metric  # type: ignore[import-not-found]
from autogluon.core.models.greedy_ensemble.ensemble_selection import (  # type: ignore[import-not-found]
    EnsembleSelection,
)


def main() -> None:
    """Answers until its input ends."""
    warnings.simplefilter("ignore")  # of rows whose float32 sum is not 1 to the last bit
    folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
    members, labels = list(np.load(folder / "proba.npy")), np.load(folder / "labels.npy")
    for line in sys.stdin:
        selection = EnsembleSelection(
            ensemble_size=rounds,
            problem_type="multiclass",
            metric=get_metric(line.strip(), problem_type="multiclass"),
            tie_breaker="second_metric",
        )
        began = time.perf_counter()
        selection.fit(members, labels)
        seconds = time.perf_counter() - began
        print(json.dumps({"seconds": seconds, "weights": list(map(float, selection.weights_))}), flush=True)


if __name__ == "__main__":
    main()
