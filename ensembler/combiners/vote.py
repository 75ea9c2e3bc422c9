"""Plurality vote of the members' first choices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import Combiner, Floats, Fold, Labels, Proba, weighted_mean


@dataclass(eq=False, kw_only=True)
class Vote(Combiner):
    """The share of votes of each class, where every member has one vote and their mean one more, which it splits.

    The winner is the class that most members put first: the mean's vote is worth less than one, so it decides ties
    and nothing else. It also keeps a class without votes above 0, and the log loss finite. The vote of the
    probabilities themselves (soft vote) is `mean`.
    """

    name: ClassVar[str] = "vote"

    def _fit(self, proba: Proba, labels: Labels, fold: Fold) -> None:
        """Nothing to learn."""

    def _combine(self, proba: Proba) -> Floats:
        votes = weighted_mean(proba, None)
        n_rows, n_classes = votes.shape
        rows = np.arange(n_rows) * n_classes
        for slab in proba:
            votes.reshape(-1)[rows + slab.argmax(axis=1)] += 1
        return votes
