"""Averages that learn no weights: rank, median and vote. The conformance suite tests what every combiner promises."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import VotingClassifier
from sklearn.metrics import roc_auc_score

from ensembler.combiners.mean import Mean
from ensembler.combiners.median import Median
from ensembler.combiners.rank import Rank
from ensembler.combiners.vote import Vote
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions


def cube(*members, labels=None):
    proba = np.array(members, np.float64)
    n = proba.shape[1]
    return Predictions.from_arrays(proba, np.zeros(n, int) if labels is None else labels, np.arange(n) % 2)


def sharpened(proba, power):
    return proba.astype(np.float64) ** power / (proba.astype(np.float64) ** power).sum(axis=-1, keepdims=True)


# ---------------------------------------------------------------------- vote


def test_votes_and_the_split_vote_of_the_mean():
    predictions = cube([[0.6, 0.4, 0.0]], [[0.5, 0.3, 0.2]], [[0.1, 0.8, 0.1]])
    combined = Vote().fit(predictions).predict(predictions).proba[0, 0]
    np.testing.assert_allclose(combined, [2.4 / 4, 1.5 / 4, 0.1 / 4], atol=1e-7)


def test_the_majority_wins_however_sure_the_others_are():
    predictions = cube([[0.51, 0.49]], [[0.51, 0.49]], [[0.0, 1.0]])
    assert Vote().fit(predictions).predict(predictions).proba[0, 0, 0] > 0.5
    assert Mean().fit(predictions).predict(predictions).proba[0, 0, 0] < 0.5


def test_the_mean_decides_a_tied_vote():
    predictions = cube([[0.6, 0.4, 0.0]], [[0.1, 0.9, 0.0]])
    combined = Vote().fit(predictions).predict(predictions).proba[0, 0]
    assert combined.argmax() == 1
    assert combined.min() == 0  # nobody thinks of it at all


def test_first_choices_are_those_of_hard_voting(library):
    """Equal to scikit-learn's, but for tied votes, which it gives to the lowest class."""
    predictions = library(n_members=5, n_samples=400)
    rows = np.arange(400)[:, None]
    members = [
        (name, Answers(slab)) for name, slab in zip(predictions.members, predictions.proba, strict=True)
    ]
    hard = VotingClassifier(members, voting="hard").fit(rows, predictions.labels)
    counts = np.stack([np.bincount(column, minlength=4) for column in predictions.proba.argmax(axis=2).T])
    top, second = np.sort(counts, axis=1)[:, [-1, -2]].T
    clear = top > second
    ours = Vote().fit(predictions).predict(predictions).proba[0].argmax(axis=1)
    np.testing.assert_array_equal(ours[clear], hard.predict(rows)[clear])
    assert 0 < (~clear).sum() < 200


class Answers(ClassifierMixin, BaseEstimator):
    """A classifier that knows its answers; the features are row numbers."""

    def __init__(self, proba):
        self.proba = proba

    def fit(self, rows, labels):
        self.classes_ = np.unique(labels)
        return self

    def predict(self, rows):
        return self.proba[rows[:, 0]].argmax(axis=1)


# ---------------------------------------------------------------------- median


def test_median_of_each_class_normalised():
    predictions = cube([[0.7, 0.2, 0.1]], [[0.6, 0.3, 0.1]], [[0.0, 0.1, 0.9]])
    combined = Median().fit(predictions).predict(predictions).proba[0, 0]
    np.testing.assert_allclose(combined, np.array([0.6, 0.2, 0.1]) / 0.9, atol=1e-6)


def test_equals_numpys_median_in_parts_and_at_once(library, monkeypatch):
    predictions = library(n_members=6, n_samples=101)
    median = np.median(predictions.proba.astype(np.float64), axis=0)
    expected = median / median.sum(axis=1, keepdims=True)
    whole = Median().fit(predictions).predict(predictions).proba[0]
    np.testing.assert_allclose(whole, expected, atol=1e-6)
    monkeypatch.setattr("ensembler.combiners.median._AT_ONCE", 500)
    np.testing.assert_array_equal(Median().fit(predictions).predict(predictions).proba[0], whole)


def test_less_than_half_of_the_members_cannot_spoil_a_median(library):
    predictions = library(n_members=5)
    proba = predictions.proba.copy()
    proba[3:] = np.roll(np.eye(4)[predictions.labels], 1, axis=1)
    spoilt = predictions.with_proba(proba, predictions.members)
    accuracy = METRICS["accuracy"]
    median, mean = (c().fit(spoilt).predict(spoilt).proba[0] for c in (Median, Mean))
    assert accuracy(spoilt.labels, median) > accuracy(spoilt.labels, mean) + 0.2


def test_certain_members_that_disagree_give_their_mean():
    predictions = cube([[1.0, 0, 0, 0]], [[0, 1.0, 0, 0]], [[0, 0, 1.0, 0]])
    combined = Median().fit(predictions).predict(predictions).proba[0, 0]
    np.testing.assert_allclose(combined, [1 / 3, 1 / 3, 1 / 3, 0], atol=1e-6)


# ---------------------------------------------------------------------- rank


def test_a_member_counts_by_its_order_however_sure_it_is(library):
    """The mean follows whoever shouts; ranks do not hear it."""
    predictions = library(n_members=2, n_samples=600, n_classes=2)
    positive = predictions.labels == 1

    def auc(combiner, power):
        proba = predictions.proba.astype(np.float64).copy()
        proba[1] = sharpened(proba[1], power)
        loud = predictions.with_proba(proba, predictions.members)
        return roc_auc_score(positive, combiner.fit(loud).predict(loud).proba[0, :, 1])

    assert auc(Rank(), 0.2) == pytest.approx(auc(Rank(), 3.0), abs=5e-3)
    assert abs(auc(Mean(), 0.2) - auc(Mean(), 3.0)) > 0.02


def test_one_member_is_itself_on_rows_it_was_not_fitted_on(library):
    fitted, unseen = library(n_members=1), library(n_members=1, seed=1)
    np.testing.assert_allclose(Rank().fit(fitted).predict(unseen).proba, unseen.proba, atol=1e-6)


def test_rows_do_not_depend_on_each_other(library):
    fitted, unseen = library(), library(seed=1)
    rank = Rank().fit(fitted)
    together = rank.predict(unseen).proba[:, 7]
    np.testing.assert_array_equal(rank.predict(unseen.rows(np.array([7]))).proba[:, 0], together)


def test_the_mean_rank_on_paper():
    """Ranks of three rows are 1/6, 1/2 and 5/6; between them they are interpolated."""
    first, second = [0.1, 0.2, 0.9], [0.3, 0.5, 0.6]
    predictions = cube(*([[1 - p, p] for p in member] for member in (first, second)))
    swapped = cube([[0.9, 0.1], [0.1, 0.9]], [[0.5, 0.5], [0.7, 0.3]])
    combined = Rank().fit(predictions).predict(swapped).proba[0]
    # Row 0 is the lowest of the first member and the middle one of the second: mean rank 1/3 for class 1, 2/3 for 0.
    up = ((0.1 + 0.2) / 2 + (0.3 + 0.5) / 2) / 2
    down = ((0.8 + 0.9) / 2 + (0.5 + 0.7) / 2) / 2
    np.testing.assert_allclose(combined[0], [down / (up + down), up / (up + down)], atol=1e-6)


def test_the_state_stays_small(library):
    rank = Rank().fit(library(n_members=5, n_samples=2000))
    assert rank.quantiles_.shape == (5, 4, 130)
    assert (np.diff(rank.quantiles_, axis=2) >= 0).all()


def test_quantiles_are_enough(library, monkeypatch):
    """Keeping every value instead of 128 of them changes little."""
    predictions = library(n_samples=3000)
    kept = Rank().fit(predictions).predict(predictions).proba
    monkeypatch.setattr("ensembler.combiners.rank._N_QUANTILES", 3000)
    every = Rank().fit(predictions).predict(predictions).proba
    assert np.abs(kept - every).max() < 0.02
    assert np.abs(kept - every).mean() < 1e-3
