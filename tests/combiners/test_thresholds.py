import itertools

import numpy as np
import pytest

from ensembler.combiners import COMBINERS, make_combiner
from ensembler.combiners.thresholds import GRID, Thresholds, tune_factors
from ensembler.errors import CombinerError
from ensembler.evaluation.cross_fit import cross_fit
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions


def imbalanced(n=900, seed=0, signal=1.5):
    """Nine rows in ten are of class 0, and members know it."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, n, p=[0.9, 0.06, 0.04])
    logits = signal * np.eye(3)[labels] + rng.normal(size=(3, n, 3)) + np.log([0.9, 0.06, 0.04])
    proba = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    return Predictions.from_arrays(proba, labels, np.arange(n) % 3)


@pytest.mark.parametrize("metric", ["macro_f1", "balanced_accuracy"])
def test_rare_classes_are_chosen_earlier_out_of_fold(metric):
    predictions = imbalanced()
    plain = cross_fit(make_combiner("mean"), predictions, METRICS[metric]).score
    tuned = cross_fit(Thresholds(base="mean", metric=metric), predictions, METRICS[metric])
    assert tuned.score > plain + 0.05
    assert tuned.combiner.helps_
    assert tuned.combiner.factors_[0] < tuned.combiner.factors_[1:].min()


def test_factors_that_do_not_help_are_left_at_one_and_it_says_so():
    """Balanced and symmetric: the most probable class is the best choice already."""
    rng = np.random.default_rng(4)
    labels = np.arange(600) % 3
    logits = 2 * np.eye(3)[labels] + rng.normal(size=(2, 600, 3))
    proba = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    predictions = Predictions.from_arrays(proba, labels, np.arange(600) // 3 % 3)
    combiner = Thresholds(base="mean", metric="accuracy").fit(predictions)
    assert not combiner.helps_
    assert combiner.held_out_[1] <= combiner.held_out_[0]
    np.testing.assert_array_equal(combiner.factors_, 1)
    _, arrays = combiner.get_state()
    np.testing.assert_array_equal(arrays["held_out_"], combiner.held_out_)
    mean = make_combiner("mean").fit(predictions).predict(predictions)
    np.testing.assert_allclose(combiner.predict(predictions).proba, mean.proba, atol=1e-7)


def test_one_round_is_the_best_of_the_grid_class_by_class():
    predictions = imbalanced(n=200, seed=2)
    metric, proba = METRICS["macro_f1"], predictions.proba[0].astype(np.float64)
    factors = tune_factors(proba, predictions.labels, metric)
    reached = metric(predictions.labels, proba * factors)
    # No step of one class along the grid is better than where the search ended.
    for k, factor in itertools.product(range(3), 2 ** np.linspace(-1, 1, 9)):
        moved = factors.copy()
        moved[k] *= factor
        ends = np.log2(moved / np.delete(moved, k).mean())
        if np.abs(ends).max() < 3:
            assert metric(predictions.labels, proba * moved) <= reached + 1e-12
    # And counting pairs is scoring rows: the same search, by brute force.
    octaves = np.zeros(3)
    for _ in range(3):
        for k in range(3):
            scores = []
            for candidate in np.log2(GRID):
                trial = octaves.copy()
                trial[k] = candidate
                scores.append(metric(predictions.labels, proba * 2**trial))
            tied = np.flatnonzero(np.array(scores) >= max(scores) - 1e-12)
            octaves[k] = np.log2(GRID)[tied[np.abs(np.log2(GRID)[tied]).argmin()]]
    np.testing.assert_allclose(factors, 2 ** (octaves - octaves.mean()))


def test_a_metric_of_probabilities_is_refused_but_a_run_may_have_one():
    with pytest.raises(CombinerError, match="metric is 'log_loss', which factors do not help; expected one"):
        make_combiner("thresholds", metric="log_loss")
    wrapper = COMBINERS["thresholds"]
    assert wrapper.tuned_for("balanced_accuracy", {})["metric"] == "balanced_accuracy"
    options = wrapper.tuned_for("log_loss", {})
    assert make_combiner("thresholds", **options).metric == "macro_f1"
    assert options["base_params"] == {"metric": "log_loss"}
