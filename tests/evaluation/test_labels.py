import numpy as np
import pandas as pd
import pytest

from ensembler.combiners import make_combiner
from ensembler.errors import PredictionsError
from ensembler.evaluation.cross_fit import cross_fit
from ensembler.evaluation.labels import (
    confident_labels,
    issues_by_member,
    label_issues,
    normalized_margin,
    rows_without,
    self_confidence,
)
from ensembler.evaluation.leaderboard import build_leaderboard
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions

LABELS = np.array([0, 0, 0, 1, 1, 2, 2])
PROBA = np.array(
    [
        [0.8, 0.1, 0.1],
        [0.6, 0.3, 0.1],
        [0.1, 0.9, 0.0],  # labelled 0, sure of 1
        [0.2, 0.6, 0.2],
        [0.45, 0.4, 0.15],  # predicted 0, of which it is not confident
        [0.1, 0.1, 0.8],
        [0.55, 0.05, 0.4],  # labelled 2, sure of 0
    ]
)


def noisy(n_samples=600, n_members=3, flipped=60, seed=0):
    """Rows whose first `flipped` labels are wrong, under members that mostly know better."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(3, size=n_samples)
    logits = 3 * np.eye(3)[truth] + rng.normal(size=(n_members, n_samples, 3))
    proba = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    labels = truth.copy()
    labels[:flipped] = (truth[:flipped] + 1 + rng.integers(2, size=flipped)) % 3
    return Predictions.from_arrays(proba, labels, rng.integers(3, size=n_samples)), truth


def test_thresholds_and_joint_by_hand():
    found = confident_labels(LABELS, PROBA)
    np.testing.assert_allclose(found.thresholds, [0.5, 0.5, 0.6])
    np.testing.assert_array_equal(found.likely, [0, 0, 1, 1, -1, 2, 0])
    np.testing.assert_array_equal(found.joint, [[2, 1, 0], [0, 1, 0], [1, 0, 1]])
    np.testing.assert_array_equal(np.flatnonzero(found.suspect), [2, 6])


def test_a_row_confident_of_several_classes_counts_for_the_most_probable():
    labels = np.array([0, 1, 1, 0])
    proba = np.array([[0.3, 0.7], [0.45, 0.55], [0.9, 0.1], [0.5, 0.5]])
    found = confident_labels(labels, proba)  # thresholds 0.4 and 0.325
    np.testing.assert_array_equal(found.likely, [1, 1, 0, 0])
    np.testing.assert_array_equal(found.suspect, [True, False, True, False])


def test_ranks_by_hand():
    np.testing.assert_allclose(self_confidence(LABELS, PROBA), [0.8, 0.6, 0.1, 0.6, 0.4, 0.8, 0.4])
    expected = [0.85, 0.65, 0.1, 0.7, 0.475, 0.85, 0.425]
    np.testing.assert_allclose(normalized_margin(LABELS, PROBA), expected)


def test_a_class_without_rows_is_nobodys_label():
    found = confident_labels([0, 0, 1], [[0.6, 0.3, 0.1], [0.1, 0.1, 0.8], [0.2, 0.7, 0.1]])
    assert np.isnan(found.thresholds[2])
    assert found.joint[:, 2].sum() == 0
    assert not found.suspect.any()


def test_issues_are_named_and_the_most_suspect_comes_first():
    rows = Predictions.from_arrays(
        PROBA, LABELS, [0, 1] * 3 + [0], classes=["cat", "dog", "owl"], sample_ids=[*"abcdefg"], members=["m"]
    )
    issues = label_issues(rows)
    assert [(i.sample_id, i.label, i.suggested, i.votes) for i in issues] == [
        ("c", "cat", "dog", 1),
        ("g", "owl", "cat", 1),
    ]
    assert issues[0].self_confidence == pytest.approx(0.1)
    assert issues[1].normalized_margin == pytest.approx(0.425)
    assert pd.DataFrame(issues).shape == (2, 6)


@pytest.mark.parametrize("rank_by", ["self_confidence", "normalized_margin"])
def test_finds_labels_that_were_flipped(rank_by):
    predictions, _ = noisy()
    found = [int(i.sample_id) for i in label_issues(predictions, rank_by=rank_by)]
    assert sum(i < 60 for i in found) >= 45
    assert sum(i >= 60 for i in found) <= 15
    assert sum(i < 60 for i in found[:40]) == 40
    scores = [getattr(i, rank_by) for i in label_issues(predictions, rank_by=rank_by)]
    assert scores == sorted(scores)


def test_consensus_needs_half_of_the_members_too():
    predictions, _ = noisy()
    proba = predictions.proba.copy()
    proba[0] = np.eye(3)[(predictions.labels + 1) % 3]  # is sure that every label is wrong
    predictions = predictions.with_proba(proba, predictions.members)
    alone = issues_by_member(predictions)
    assert list(alone) == ["m0", "m1", "m2"]
    together = label_issues(predictions)
    assert len(together) < len(alone["m0"]) / 4
    assert all(issue.votes >= 2 for issue in together)
    voted = {name: {i.sample_id for i in issues} for name, issues in alone.items()}
    for issue in together:
        assert issue.votes == sum(issue.sample_id in ids for ids in voted.values())


def test_a_verdict_without_suspects_is_made_of_the_rows_that_are_left():
    predictions, truth = noisy()
    kept = rows_without(predictions, label_issues(predictions))
    clean = predictions.rows(kept)
    assert (clean.labels != truth[kept]).sum() < 15
    metric = METRICS["accuracy"]
    boards = [
        build_leaderboard(rows, [cross_fit(make_combiner("mean"), rows, metric)], metric, n_boot=200)
        for rows in (predictions, clean)
    ]
    before, after = (board.frame["cv"].max() for board in boards)
    assert after > before + 0.05
    np.testing.assert_array_equal(rows_without(predictions, []), np.arange(600))


def test_what_cannot_be_judged_is_refused():
    predictions, _ = noisy(30, flipped=5)
    with pytest.raises(PredictionsError, match="given the test split"):
        label_issues(Predictions.from_arrays(predictions.proba, predictions.labels, split="test"))
    with pytest.raises(PredictionsError, match="'x'"):
        label_issues(predictions, ["x"])
    with pytest.raises(PredictionsError, match="'confidence'; expected one of"):
        label_issues(predictions, rank_by="confidence")
    issues = label_issues(noisy()[0])
    with pytest.raises(PredictionsError, match="is not among the 5 rows"):
        rows_without(predictions.rows(np.arange(25, 30)), issues)


# ---------------------------------------------------------------------- cleanlab


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rank_by", ["self_confidence", "normalized_margin"])
def test_issues_and_their_order_equal_cleanlab(seed, rank_by):
    find_label_issues = pytest.importorskip("cleanlab.filter", reason="cleanlab").find_label_issues
    predictions, _ = noisy(seed=seed)
    proba = predictions.proba[0].astype(np.float64)
    theirs = find_label_issues(
        predictions.labels,
        proba,
        filter_by="confident_learning",
        return_indices_ranked_by=rank_by,
        n_jobs=1,
    )
    ours = [int(issue.sample_id) for issue in label_issues(predictions, ["m0"], rank_by=rank_by)]
    assert ours == list(theirs)


@pytest.mark.parametrize("seed", range(3))
def test_scores_and_joint_equal_cleanlab(seed):
    rank = pytest.importorskip("cleanlab.rank", reason="cleanlab")
    count = pytest.importorskip("cleanlab.count", reason="cleanlab")
    predictions, _ = noisy(seed=seed)
    labels, proba = predictions.labels, predictions.proba[0].astype(np.float64)
    np.testing.assert_allclose(
        self_confidence(labels, proba), rank.get_self_confidence_for_each_label(labels, proba)
    )
    np.testing.assert_allclose(
        normalized_margin(labels, proba), rank.get_normalized_margin_for_each_label(labels, proba)
    )
    found = confident_labels(labels, proba)
    np.testing.assert_array_equal(found.joint, count.compute_confident_joint(labels, proba, calibrate=False))
    np.testing.assert_allclose(found.thresholds, count.get_confident_thresholds(labels, proba))
