import numpy as np
import pytest

from ensembler.errors import PredictionsError
from ensembler.evaluation.bbc import bias_corrected
from ensembler.evaluation.significance import bootstrap_weights
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions

LOG_LOSS, ACCURACY = METRICS["log_loss"], METRICS["accuracy"]


def equals(n_members, n_samples, seed, share=0.7):
    """Members that are equally good in truth; each is right on its own draw of rows."""
    rng = np.random.default_rng(seed)
    right = rng.random((n_members, n_samples)) < share
    proba = np.where(right[..., None], [0.8, 0.2], [0.2, 0.8])
    return Predictions.from_arrays(proba, np.zeros(n_samples, int), np.arange(n_samples) % 2)


@pytest.mark.parametrize("name", ["accuracy", "macro_f1"])
def test_equals_a_loop_over_resamples(library, name):
    predictions, metric = library(n_members=4, signal=0.5), METRICS[name]
    found = bias_corrected(predictions, metric, n_boot=40, seed=5)
    inside, outside, winners = [], [], []
    for column in bootstrap_weights(240, 40, seed=5).T:
        scores = [metric(predictions.labels, slab, column) for slab in predictions.proba]
        winners.append(int(np.argmax(scores)))
        inside.append(max(scores))
        outside.append(metric(predictions.labels, predictions.proba[winners[-1]], column == 0))
    whole = np.array([metric(predictions.labels, slab) for slab in predictions.proba])
    assert found.left_out == pytest.approx(np.mean(outside))
    assert found.less_optimism == pytest.approx(whole.max() - np.mean(inside - whole[winners]))
    assert found.estimate == pytest.approx((found.left_out + found.less_optimism) / 2)
    ends = np.quantile(outside, [0.025, 0.975]) + found.estimate - found.left_out
    assert (found.low, found.high) == pytest.approx((ends[0], min(ends[1], 1)))
    expected = np.bincount(winners, minlength=4) / 40
    assert [found.chosen.get(name, 0) for name in predictions.members] == pytest.approx(expected)


@pytest.mark.parametrize("metric", [LOG_LOSS, ACCURACY])
def test_naive_score_of_the_winner_and_what_it_flatters(metric):
    predictions = equals(20, 100, seed=0)
    found = bias_corrected(predictions, metric, n_boot=300)
    scores = [metric(predictions.labels, slab) for slab in predictions.proba]
    best = int(np.argmax(metric.sign * np.array(scores)))
    assert found.winner == predictions.members[best]
    assert found.naive == scores[best]
    assert found.bias == pytest.approx(metric.improvement(found.naive, found.estimate))
    assert found.bias > 0


def test_removes_the_luck_of_the_best_of_many_equals():
    """30 members of true accuracy 0.7 on 100 rows: the best looks like 0.79."""
    found = [bias_corrected(equals(30, 100, seed), ACCURACY, n_boot=100) for seed in range(60)]
    naive = np.mean([f.naive for f in found]) - 0.7
    corrected = np.mean([f.estimate for f in found]) - 0.7
    assert naive > 0.07
    assert abs(corrected) < naive / 3
    assert abs(np.mean([f.left_out for f in found]) - 0.7) < naive / 10


def test_leaves_alone_a_winner_that_was_never_in_doubt():
    predictions = equals(5, 400, seed=0, share=0.5)
    proba = predictions.proba.copy()
    proba[3] = [0.9, 0.1]
    found = bias_corrected(predictions.with_proba(proba, predictions.members), LOG_LOSS, n_boot=100)
    assert found.winner == "m3"
    assert found.chosen == {"m3": 1.0}
    assert found.bias == pytest.approx(0, abs=1e-9)


def test_rows_of_a_group_are_drawn_and_left_out_together():
    base = equals(10, 50, seed=1)
    copies = np.repeat(np.arange(50), 8)
    together = bias_corrected(base.rows(copies), ACCURACY, groups=copies, n_boot=200)
    alone = bias_corrected(base, ACCURACY, n_boot=200)
    assert together == alone  # the copies tell nothing
    assert bias_corrected(base.rows(copies), ACCURACY, n_boot=200).bias < alone.bias / 2


def test_one_row_of_which_nothing_can_be_left_out_is_refused():
    predictions = Predictions.from_arrays([[[0.5, 0.5]]], [0], [0])
    with pytest.raises(PredictionsError, match="needs more samples"):
        bias_corrected(predictions, LOG_LOSS, n_boot=20)


def test_same_seed_same_numbers():
    predictions = equals(5, 60, seed=0)
    assert bias_corrected(predictions, LOG_LOSS, seed=3) == bias_corrected(predictions, LOG_LOSS, seed=3)
    assert bias_corrected(predictions, LOG_LOSS, seed=3) != bias_corrected(predictions, LOG_LOSS, seed=4)
