"""Bagged selection (Caruana, Munson & Niculescu-Mizil 2006, "Getting the most out of ensemble selection")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..metrics import get_metric
from ..predictions import Predictions
from .base import WeightedMean
from .selection import Library, select


@dataclass(eq=False, kw_only=True)
class Bagging(WeightedMean):
    """Greedy selection in many bags, each of drawn rows and drawn members; the weights are averaged.

    A member that wins by luck on some rows wins few bags, so the weights overfit less than those of one
    selection. The paper draws members only; rows are drawn too (with replacement, as many as there are), so
    that a bag also varies where the library is small. Members are drawn in the order of their names, so the order in
    which they come makes no difference.

    Attributes:
        metric: what each bag optimises, a key of `METRICS`.
        bags: number of bags, 1 or more.
        rounds: rounds of selection in a bag, 1 or more.
        member_share: share of the members a bag draws, without replacement, in (0, 1]; rounded up.
        least_members: a bag draws no fewer than this, or all where there are no more. The paper had some 2,000
            models; of six, half leave many a bag without any good one.
        initial: members that each bag starts from, its best ones by themselves, 0 or more.
        seed: of the draws.
    """

    name: ClassVar[str] = "bagging"

    metric: str = "log_loss"
    bags: int = 20
    rounds: int = 25
    member_share: float = 0.5
    least_members: int = 10
    initial: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_metric(self.metric)
        self._require("bags", int, 1)
        self._require("rounds", int, 1)
        self._require("member_share", (int, float), 1e-9, 1)
        self._require("least_members", int, 1)
        self._require("initial", int, 0)
        self._require("seed", int, 0)

    def _fit_rows(self, predictions: Predictions) -> None:
        by_name = np.argsort(predictions.members)
        rng = np.random.default_rng(self.seed)
        metric = get_metric(self.metric)
        library = Library(predictions.proba, predictions.labels)
        n_members, n_samples = predictions.n_members, predictions.n_samples
        n_drawn = min(n_members, max(int(np.ceil(self.member_share * n_members)), self.least_members))
        total = np.zeros(n_members)
        for _ in range(self.bags):
            members = by_name[np.sort(rng.choice(n_members, n_drawn, replace=False))]
            rows = np.sort(rng.integers(n_samples, size=n_samples))
            counts = select(library.objective(metric, members, rows), self.rounds, initial=self.initial)
            total[members] += counts / counts.sum()
        self.weights_ = total / self.bags
