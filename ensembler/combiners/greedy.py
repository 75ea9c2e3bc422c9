"""Greedy forward selection with replacement.

Caruana, Niculescu-Mizil, Crew & Ksikes 2004, "Ensemble selection from libraries of models".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..metrics import Metric, get_metric
from ..predictions import Predictions
from .base import Floats, Fold, Labels, Proba, WeightedMean
from .selection import Library, select


@dataclass(eq=False, kw_only=True)
class Greedy(WeightedMean):
    """Adds, round by round and with replacement, the member that helps the running mean most.

    The weights are the counts at the first best point of the trajectory, divided by its length. Losses that agree to
    six decimals are a tie; it goes to a member already chosen (a smaller ensemble), then to the lower log loss of the
    resulting mean, then to the first by name; no seed is involved. Without `initial` and `removal` these are the rules
    of AutoGluon's `EnsembleSelection`, but that the last tie is drawn there.

    Attributes:
        metric: what is optimised, a key of `METRICS`.
        rounds: additions, 1 or more.
        initial: members that the search starts from, the best ones by themselves, 0 or more (the paper's sorted
            initialisation). With small data it overfits less than starting from the single best.
        removal: whether each addition is followed by taking back picks of others as long as the loss falls. It lets
            early picks go that later ones have made worthless; no rule makes it better than the search without.
        patience: rounds without an improvement that end the search, 0 for never.
    """

    name: ClassVar[str] = "greedy"

    metric: str = "log_loss"
    rounds: int = 50
    initial: int = 0
    removal: bool = False
    patience: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_metric(self.metric)
        self._require("rounds", int, 1)
        self._require("initial", int, 0)
        self._require("patience", int, 0)

    def _fit_rows(self, predictions: Predictions) -> None:
        self.weights_ = self._select(predictions.proba, predictions.labels, predictions.members)

    def _fit(self, proba: Proba, labels: Labels, fold: Fold) -> None:  # noqa: ARG002
        self.weights_ = self._select(proba, labels, None)

    def _select(self, proba: Proba, labels: Labels, names: Sequence[str] | None) -> Floats:
        counts = select(
            Library(proba, labels).objective(get_metric(self.metric)),
            self.rounds,
            initial=self.initial,
            removal=self.removal,
            patience=self.patience,
            names=names,
        )
        weights: Floats = counts / counts.sum()
        return weights


def greedy_weights(proba: Proba, labels: Labels, metric: Metric, rounds: int) -> Floats:
    """The selection itself, on (members, samples, classes): float64 (members,) weights that sum to 1."""
    counts = select(Library(proba, labels).objective(metric), rounds)
    weights: Floats = counts / counts.sum()
    return weights
