"""Dynamic selection by learned competence (META-DES: Cruz, Sabourin, Cavalcanti & Ren 2015)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from ..metrics import true_class_proba
from ..predictions import Predictions
from .base import Floats, Proba
from .inner import inner_splits
from .knora import weigh
from .neighbours import NeighbourCombiner, Points, nearest

#: Strength of the prior that the coefficients are 0, as if so many more (row, member) pairs said nothing.
PRIOR_PAIRS = 10.0

#: Newton steps of the logistic regression, which needs about six.
MAX_STEPS = 30


@dataclass(eq=False, kw_only=True)
class Competence(NeighbourCombiner):
    """Weighs each member, row by row, by how likely it is to be right about the row.

    One logistic regression for all members predicts that from what is known of a (row, member) pair:

    1. the member's share of right first choices among the k nearest fitted rows;
    2. the probability it gives their labels, on average;
    3. the probability that the other members give to its own first choice;
    4. how sure it is: its largest probability;
    5. its lead over the second largest;
    6. its accuracy over all fitted rows.

    It is fitted to pairs whose neighbours come from other inner parts than the row. Members that it finds more
    likely right than wrong are averaged with the odds of that as weights; where there is none, all are.
    META-DES differs in that it takes each neighbour as an input of its own, trains on disputed rows only, and
    counts votes.

    Attributes:
        k: neighbours of a row, 1 or more.
        coef_: float64 (7,), of the six and of a constant.
        scale_: float64 (2, 6), mean and deviation of the six over the fitted pairs.
        correct_: bool (rows, members), which member's first choice is right about each of `points_`.
        true_: float32 (rows, members), the probability that each gives to their label.
    """

    name: ClassVar[str] = "competence"
    learned: ClassVar[tuple[str, ...]] = (*NeighbourCombiner.learned, "coef_", "scale_", "correct_", "true_")

    k: int = 15
    points_: Points = field(init=False, repr=False)
    coef_: Floats = field(init=False, repr=False)
    scale_: Floats = field(init=False, repr=False)
    correct_: NDArray[np.bool_] = field(init=False, repr=False)
    true_: Proba = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("k", int, 1)

    def _fit_rows(self, predictions: Predictions) -> None:
        kept = self._kept(predictions)
        self.points_, labels = self._locate(kept), kept.labels
        self.correct_ = np.ascontiguousarray((kept.proba.argmax(axis=2) == labels).T)
        self.true_ = np.ascontiguousarray(true_class_proba(labels, kept.proba).T, np.float32)
        columns = np.zeros((*self.correct_.shape, 6))
        splits = list(inner_splits(labels, kept.fold))
        for fitted, held_out in splits:
            near = nearest(self.points_[held_out], self.points_[fitted], self.k)
            columns[held_out] = _pair_columns(
                kept.proba[:, held_out], self.correct_[fitted], self.true_[fitted], near
            )
        flat = columns.reshape(-1, 6)
        spread = flat.std(axis=0)
        self.scale_ = np.stack([flat.mean(axis=0), np.where(spread > 1e-9, spread, 1.0)])
        self.coef_ = np.zeros(7)
        if splits:  # one row knows of no other: every member is as likely right as wrong
            self.coef_ = _fit_logistic(self._standard(flat), self.correct_.ravel())

    def _combine_rows(self, predictions: Predictions) -> Floats:
        return weigh(predictions, self._weights(self.competence(predictions)))

    def competence(self, predictions: Predictions) -> Floats:
        """How likely each member is right about each row: (samples, members), in the order of `members_`."""
        near = self._neighbours(predictions, self.points_, self.k)
        columns = _pair_columns(predictions.proba, self.correct_, self.true_, near)
        scores = self._standard(columns.reshape(-1, 6)) @ self.coef_
        return np.asarray(expit(scores).reshape(columns.shape[:2]))

    def _standard(self, flat: Floats) -> Floats:
        mean, spread = self.scale_
        return np.concatenate([(flat - mean) / spread, np.ones((len(flat), 1))], axis=1)

    @staticmethod
    def _weights(competence: Floats) -> Floats:
        odds = competence / np.maximum(1 - competence, 1e-6)
        able = competence > 0.5
        return np.where(able | ~able.any(axis=1, keepdims=True), odds, 0.0)


def _pair_columns(proba: Proba, correct: NDArray[np.bool_], true: Proba, near: NDArray[np.intp]) -> Floats:
    """The six of every (row, member) pair: float64 (samples, members, 6).

    Args:
        proba: (members, samples, classes).
        correct, true: (rows, members), of the rows that are looked up.
        near: (samples, k), positions in them.
    """
    n_members = len(proba)
    first = proba.argmax(axis=2)
    total = proba.sum(axis=0, dtype=np.float64)
    own = np.take_along_axis(proba, first[:, :, None], axis=2)[:, :, 0].astype(np.float64)
    support = (np.take_along_axis(total, first.T, axis=1).T - own) / max(1, n_members - 1)
    second = np.partition(proba, -2, axis=2)[:, :, -2]
    hits, means = (_neighbour_means(values, near) for values in (correct, true))
    overall = np.broadcast_to(correct.mean(axis=0), hits.shape)
    return np.stack([hits, means, support.T, own.T, (own - second).T, overall], axis=2)


def _neighbour_means(values: NDArray[np.generic], near: NDArray[np.intp]) -> Floats:
    """(rows, members) averaged over the neighbours (samples, k): (samples, members)."""
    total = np.zeros((len(near), values.shape[1]))
    for column in near.T:
        total += values[column]
    return np.asarray(total / near.shape[1])


def _fit_logistic(design: Floats, right: NDArray[np.bool_]) -> Floats:
    """Coefficients (columns,) of a logistic regression, by Newton's method; the last is not penalised."""
    penalty = np.full(design.shape[1], PRIOR_PAIRS)
    penalty[-1] = 1e-3  # enough to keep it finite when every pair is right
    coef = np.zeros(design.shape[1])
    for _ in range(MAX_STEPS):
        proba = expit(design @ coef)
        gradient = design.T @ (proba - right) + penalty * coef
        curvature = (design * (proba * (1 - proba))[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        coef -= step * min(1.0, 5 / max(np.abs(step).max(), 1e-12))
        if np.abs(step).max() < 1e-8:
            break
    return coef
