import numpy as np
import pytest

from ensembler.combiners import make_combiner
from ensembler.errors import PredictionsError
from ensembler.evaluation.cross_fit import CrossFit, cross_fit
from ensembler.evaluation.overfitting import overfitting
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions

LOG_LOSS, ACCURACY = METRICS["log_loss"], METRICS["accuracy"]


def noise(n_members=12, n_samples=90, seed=0):
    """Members that know nothing: whatever is learned from them is remembered."""
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet(np.full(3, 2.0), size=(n_members, n_samples))
    return Predictions.from_arrays(proba, rng.integers(3, size=n_samples), np.arange(n_samples) % 3)


def scored(rows, in_sample, score):
    combiner = make_combiner("mean").fit(rows)
    return CrossFit("stack", rows.select(["m0"]), in_sample, score, 0.0, combiner)


def test_selection_from_noise_is_said_to_overfit():
    predictions = noise()
    mean = make_combiner("mean").fit(predictions).predict(predictions)
    found = overfitting(cross_fit(make_combiner("greedy"), predictions, LOG_LOSS), mean, LOG_LOSS)
    assert found.overfits
    assert found.in_sample_gain > 0 > found.cross_fitted_gain
    assert found.sentence.startswith(
        "greedy overfits: on the rows it was fitted to, its log loss is better than"
    )
    assert found.sentence.endswith("Use mean.")


def test_an_ensemble_that_helps_holds(library):
    predictions = library(n_members=4)
    fit = cross_fit(make_combiner("mean"), predictions, LOG_LOSS)
    found = overfitting(fit, predictions.select(["m1"]), LOG_LOSS)
    assert not found.overfits
    assert found.cross_fitted_gain == pytest.approx(
        LOG_LOSS(predictions.labels, predictions.proba[1]) - fit.score
    )
    assert found.sentence.startswith("mean holds: its log loss is better than that of m1 by 0.")


@pytest.mark.parametrize(
    ("metric", "in_sample", "score", "overfits", "words"),
    [
        (ACCURACY, 0.1, -0.05, True, "than that of m0 by 0.1000; on rows it was not fitted to, it is worse by 0.0500."),
        (ACCURACY, 0.1, 0.0, True, "it is the same. Use m0."),
        (ACCURACY, 0.1, 0.02, False, "better than that of m0 by 0.0200 on rows it was not fitted to, and by 0.1000"),
        (ACCURACY, -0.1, -0.2, False, "stack gains nothing on m0"),
        (LOG_LOSS, -0.1, 0.05, True, "by 0.1000; on rows it was not fitted to, it is worse by 0.0500."),
        (LOG_LOSS, -0.1, -0.05, False, "stack holds"),
    ],
)  # fmt: skip
def test_both_gains_and_the_sentence(metric, in_sample, score, overfits, words):
    rows = noise()
    base = metric(rows.labels, rows.proba[0])
    found = overfitting(scored(rows, base + in_sample, base + score), rows.select(["m0"]), metric)
    assert found.overfits == overfits
    assert (found.in_sample_gain, found.cross_fitted_gain) == pytest.approx(
        (metric.sign * in_sample, metric.sign * score)
    )
    assert words in found.sentence


def test_other_rows_are_refused():
    rows = noise()
    fit = scored(rows, 0.1, 0.2)
    with pytest.raises(PredictionsError, match="has 12 members; expected one"):
        overfitting(fit, rows, LOG_LOSS)
    with pytest.raises(PredictionsError, match="'m1' is over other rows than 'stack'"):
        overfitting(fit, rows.select(["m1"]).rows(np.arange(80)), LOG_LOSS)
