"""A run's frozen features, for combiners that look at images too.

They are what an untrained backbone says of each image, so no label of a row is in them, and cross-fitting stays honest
with them. Which backbone's are taken is decided on monitor rows, as in the search.
"""

from __future__ import annotations

import math

import numpy as np

from .atomic import reading
from .cells import DAMAGE
from .combiners import Combiner
from .errors import CombinerError, StoreError
from .metrics import get_metric
from .predictions import Predictions
from .store import RunStore
from .training.candidate import Candidate

#: The fold whose monitor rows are asked, as in the search.
FOLD = 0


class Rows:
    """The out-of-fold rows of a run, with features for whoever needs them.

    Args:
        store: of the run.
        predictions: of all candidates.

    Attributes:
        plain: as they came.
        backbone: whose features were handed out; "" where none were.
    """

    def __init__(self, store: RunStore, predictions: Predictions) -> None:
        self.plain = predictions
        self.backbone = ""
        self._store = store
        self._full: Predictions | None = None

    def given_to(self, combiner: Combiner) -> Predictions:
        """What a combiner is fitted on.

        Raises:
            CombinerError: it needs features, and the run has none.
            StoreError: they are damaged.
        """
        if not combiner.needs_features or self.plain.features is not None:
            return self.plain
        if self._full is None:
            source = best_frozen(self._store)
            if source is None:
                raise CombinerError(
                    f"{combiner.label}: needs frozen features, and this run has none; take backbones with weights and "
                    "screen them, or leave it out"
                )
            self.backbone = source.backbone
            self._full = _with_features(self._store, self.plain, source)
        return self._full


def best_frozen(store: RunStore) -> Candidate | None:
    """The candidate whose backbone has the best frozen features; None where no features were kept.

    Heads on frozen features tell, by their score on the monitor rows of the first fold; where the run has no such
    candidate, the others of each backbone do.
    """
    metric = get_metric(store.manifest()["metric"])
    kept = [c for c in store.candidates() if store.features_file(c).is_file()]
    frozen = [c for c in kept if c.frozen_body] or [c for c in kept if c.kind == "trained"]

    def worth(candidate: Candidate) -> float:
        score = store.cell(candidate.id, FOLD).score
        return -math.inf if math.isnan(score) else metric.sign * score

    return max(frozen, key=worth, default=None)  # of equal ones the first


def _with_features(store: RunStore, predictions: Predictions, source: Candidate) -> Predictions:
    file = store.features_file(source)
    with reading(file, "delete it and run the same command again", DAMAGE):
        features = np.load(file, mmap_mode="r", allow_pickle=False)
    if features.ndim != 2 or len(features) != predictions.n_samples:
        raise StoreError(
            f"{file}: shape {features.shape}, and there are {predictions.n_samples} images; delete it and run the same "
            "command again"
        )
    return predictions.with_features(features)
