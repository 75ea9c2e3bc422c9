"""Which labels are probably wrong? Confident learning over out-of-fold probabilities.

Northcutt, Jiang & Chuang 2021, "Confident learning: estimating uncertainty in dataset labels". A row whose model, which
never saw its label, is surer of another class than that class's own rows make it on average, is a suspect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import PredictionsError
from ..predictions import Predictions

Floats = NDArray[np.float64]
Rank = Literal["self_confidence", "normalized_margin"]

#: Probabilities this close to a threshold reach it: the mean of equal float32 numbers is off by as much.
_CLOSE = 1e-6


@dataclass(frozen=True, eq=False)
class Confident:
    """What the probabilities say of the labels.

    Attributes:
        thresholds: float64 (classes,), mean probability of a class over the rows that bear its label; NaN for
            a class without rows, of which no row can be confident.
        joint: int64 (classes, classes), confident rows by given label (row) and likely class (column).
        likely: int64 (samples,), the class of which a row is confident, -1 where of none.
        suspect: bool (samples,), rows confident of another class than their label, and predicted as another.
    """

    thresholds: Floats
    joint: NDArray[np.int64]
    likely: NDArray[np.int64]
    suspect: NDArray[np.bool_]


def confident_labels(labels: ArrayLike, proba: ArrayLike) -> Confident:
    """Counts the rows that are confident of a class, by their given label.

    A row is confident of every class whose threshold its probability reaches; of several, of the most probable.

    Args:
        labels: (samples,) int.
        proba: (samples, classes), out-of-fold: a model that was trained on a label believes it.
    """
    given, p = np.asarray(labels, np.int64), np.asarray(proba, np.float64)
    n_classes = p.shape[1]
    counts = np.bincount(given, minlength=n_classes)
    own = np.bincount(given, p[np.arange(len(given)), given], n_classes)
    thresholds = np.divide(own, counts, out=np.full(n_classes, np.nan), where=counts > 0)
    reached = p >= np.where(counts > 0, thresholds, np.inf) - _CLOSE
    likely = np.where(reached.any(axis=1), np.where(reached, p, -1.0).argmax(axis=1), -1)
    sure = likely >= 0
    joint = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(joint, (given[sure], likely[sure]), 1)
    suspect = sure & (likely != given) & (p.argmax(axis=1) != given)
    return Confident(thresholds, joint, likely, suspect)


def self_confidence(labels: ArrayLike, proba: ArrayLike) -> Floats:
    """Probability of the given label: float64 (samples,) in [0, 1]; the lower, the more suspect."""
    given, p = np.asarray(labels, np.int64), np.asarray(proba, np.float64)
    return np.asarray(p[np.arange(len(given)), given])


def normalized_margin(labels: ArrayLike, proba: ArrayLike) -> Floats:
    """Probability of the given label less that of the best other class, moved to [0, 1]; low is suspect."""
    given, p = np.asarray(labels, np.int64), np.array(proba, np.float64)
    rows = np.arange(len(given))
    own = p[rows, given].copy()
    p[rows, given] = -1.0
    return np.asarray((own - p.max(axis=1) + 1) / 2)


@dataclass(frozen=True)
class LabelIssue:
    """A row whose label is probably wrong; a list of them is ready for `pandas.DataFrame`.

    Attributes:
        sample_id: of the row.
        label: the class it was given.
        suggested: the most probable class.
        self_confidence: probability of the given label.
        normalized_margin: see the function of that name.
        votes: how many of the members suspect the row by themselves.
    """

    sample_id: str
    label: str
    suggested: str
    self_confidence: float
    normalized_margin: float
    votes: int


def label_issues(
    predictions: Predictions, members: Sequence[str] | None = None, *, rank_by: Rank = "normalized_margin"
) -> list[LabelIssue]:
    """Rows that one member suspects, or that several suspect together, the most suspect first.

    Several members are asked twice: the average of their probabilities has to suspect the row, and at least
    half of them by themselves. One odd model cannot raise an issue, nor can many doubtful ones that agree by a
    hair.

    Args:
        predictions: out-of-fold rows.
        members: names; all by default.
        rank_by: the order, by "normalized_margin" or "self_confidence" of the averaged probabilities; equal
            ones stay in the order of the rows.

    Raises:
        PredictionsError: an unknown member, or the test split, whose labels nothing may be changed by.
    """
    if predictions.split == "test":
        raise PredictionsError("split: label issues are looked for in out-of-fold rows; given the test split")
    scorers = {"self_confidence": self_confidence, "normalized_margin": normalized_margin}
    if rank_by not in scorers:
        raise PredictionsError(f"rank_by: {rank_by!r}; expected one of {list(scorers)}")
    part = predictions if members is None else predictions.select(list(members))
    if not part.n_members:
        raise PredictionsError("members: none given; expected at least one")
    votes = np.sum([confident_labels(part.labels, slab).suspect for slab in part.proba], axis=0)
    average = part.proba.mean(axis=0, dtype=np.float64)
    suspect = confident_labels(part.labels, average).suspect & (2 * votes >= part.n_members)
    found = np.flatnonzero(suspect)
    scores = {name: scorer(part.labels, average) for name, scorer in scorers.items()}
    found = found[np.argsort(scores[rank_by][found], kind="stable")]
    suggested = average.argmax(axis=1)
    return [
        LabelIssue(
            sample_id=str(part.sample_ids[i]),
            label=part.classes[part.labels[i]],
            suggested=part.classes[suggested[i]],
            self_confidence=float(scores["self_confidence"][i]),
            normalized_margin=float(scores["normalized_margin"][i]),
            votes=int(votes[i]),
        )
        for i in found
    ]


def issues_by_member(
    predictions: Predictions, *, rank_by: Rank = "normalized_margin"
) -> dict[str, list[LabelIssue]]:
    """`label_issues` of every member alone, by name."""
    return {name: label_issues(predictions, [name], rank_by=rank_by) for name in predictions.members}


def rows_without(predictions: Predictions, issues: Sequence[LabelIssue]) -> NDArray[np.intp]:
    """Positions of the rows that no issue is about: `predictions.rows(...)` of them is what a verdict without
    suspects is made of.

    The same rows go for every member and ensemble, or the models whose doubts raised the issues would be
    compared on rows of their own choice. Even so, a verdict without suspects flatters whoever they agreed with:
    read it beside the verdict, not instead of it.

    Raises:
        PredictionsError: an issue of a sample that is not there, or nothing is left.
    """
    names = {issue.sample_id for issue in issues}
    unknown = sorted(names.difference(predictions.sample_ids.tolist()))
    if unknown:
        raise PredictionsError(
            f"issues: sample {unknown[0]!r} is not among the {predictions.n_samples} rows; give issues of these "
            "predictions"
        )
    kept = np.flatnonzero(~np.isin(predictions.sample_ids, sorted(names)))
    if not len(kept):
        raise PredictionsError(
            f"issues: all {predictions.n_samples} rows are suspect, so that nothing is left to compare; give fewer "
            "issues"
        )
    return kept
