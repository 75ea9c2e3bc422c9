import numpy as np
import pytest

from ensembler.combiners import COMBINERS, make_combiner
from ensembler.errors import PredictionsError
from ensembler.evaluation.cross_fit import cross_fit
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions

LOG_LOSS, ACCURACY = METRICS["log_loss"], METRICS["accuracy"]


@pytest.mark.parametrize("key", COMBINERS)
def test_labels_of_a_fold_never_reach_the_combiner_that_predicts_it(library, key):
    predictions = library()
    labels = predictions.labels.copy()
    held_out = predictions.fold == 1
    labels[held_out] = (labels[held_out] + 1) % 3
    relabelled = Predictions.from_arrays(predictions.proba, labels, predictions.fold)
    before, after = (
        cross_fit(make_combiner(key), p, LOG_LOSS).predictions for p in (predictions, relabelled)
    )
    np.testing.assert_array_equal(after.proba[0, held_out], before.proba[0, held_out])


@pytest.mark.parametrize("key", COMBINERS)
def test_probabilities_of_a_fold_never_reach_the_combiner_that_predicts_it(library, key):
    predictions = library()
    held_out = np.flatnonzero(predictions.fold == 1)
    disturbed, watched = held_out[::2], held_out[1::2]
    proba = predictions.proba.copy()
    proba[:, disturbed] = proba[:, disturbed][:, :, ::-1]
    changed = predictions.with_proba(proba, predictions.members)
    before, after = (cross_fit(make_combiner(key), p, LOG_LOSS).predictions for p in (predictions, changed))
    np.testing.assert_array_equal(after.proba[0, watched], before.proba[0, watched])


def test_each_row_comes_from_the_combiner_of_the_other_folds(library):
    predictions = library()
    result = cross_fit(make_combiner("greedy"), predictions, LOG_LOSS, name="team")
    assert result.name == "team"
    assert result.predictions.members == ("team",)
    for fold in predictions.folds:
        held_out = predictions.fold == fold
        other = make_combiner("greedy").fit(predictions.rows(~held_out))
        np.testing.assert_array_equal(
            result.predictions.proba[0, held_out], other.predict(predictions.rows(held_out)).proba[0]
        )


def test_scores_and_optimism(library):
    predictions = library(n_members=8, n_samples=90)
    for metric in (LOG_LOSS, ACCURACY):
        result = cross_fit(make_combiner("boosting", rounds=30, patience=30), predictions, metric)
        all_rows = result.combiner.predict(predictions).proba[0]
        assert result.in_sample == metric(predictions.labels, all_rows)
        assert result.score == metric(predictions.labels, result.predictions.proba[0])
        assert result.optimism == metric.improvement(result.in_sample, result.score) >= 0
    assert cross_fit(make_combiner("mean"), predictions, LOG_LOSS).optimism == 0


def test_the_given_combiner_is_not_fitted(library):
    combiner = make_combiner("greedy")
    cross_fit(combiner, library(), LOG_LOSS)
    assert combiner.members_ == ()


def test_ensembles_can_be_combined_again(library):
    predictions = library()
    level = [
        cross_fit(make_combiner(key), predictions, LOG_LOSS).predictions for key in ("greedy", "stacking")
    ]
    top = cross_fit(make_combiner("mean"), Predictions.concat(level), LOG_LOSS, name="second level")
    assert top.combiner.members_ == ("greedy", "stacking")


def test_one_fold_is_refused(library):
    with pytest.raises(PredictionsError, match=r"at least two folds; found folds \[0\] on the oof split"):
        cross_fit(make_combiner("mean"), library(n_folds=1), LOG_LOSS)


def test_each_fit_is_reported(library):
    predictions = library()
    told = []
    cross_fit(make_combiner("mean"), predictions, LOG_LOSS, report=lambda done, n: told.append((done, n)))
    n = len(predictions.folds) + 1
    assert told == [(done, n) for done in range(1, n + 1)]


def test_two_folds_are_enough(library):
    predictions = library()
    halves = predictions.with_fold(predictions.fold % 2)
    assert list(cross_fit(make_combiner("mean"), halves, LOG_LOSS).predictions.folds) == [0, 1]
