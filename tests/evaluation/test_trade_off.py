import numpy as np
import pytest

from ensembler.combiners.cascade import Cascade
from ensembler.errors import PredictionsError
from ensembler.evaluation.trade_off import trade_off
from ensembler.predictions import Predictions

COSTS = {"a": 1.0, "b": 2.0, "c": 4.0}


def some(n=600, fold=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    logits = rng.normal(size=(3, n, 3)) + 2 * np.eye(3)[labels]
    proba = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    return Predictions.from_arrays(
        proba.astype(np.float32),
        labels,
        members=list("abc"),
        classes=list("xyz"),
        fold=rng.integers(0, fold, n),
    )


def test_the_more_may_be_lost_the_less_is_asked():
    *curve, everything = trade_off(Cascade(costs=COSTS), some(), (0.0, 0.01, 0.05, 1.0))
    asked = [point.asked for point in curve]
    assert asked == sorted(asked, reverse=True)
    assert asked[-1] == pytest.approx(
        1.0, abs=0.02
    )  # nearly all rows: unseen ones may be less sure than any seen
    assert everything.asked == 3
    assert everything.latency_ms == 7.0
    assert all(1.0 <= point.latency_ms <= 7.0 for point in curve)


def test_no_row_is_judged_by_a_cascade_that_has_seen_its_label():
    predictions = some()
    before = trade_off(Cascade(), predictions, (0.01,))[0]
    rows = predictions.fold == 0
    one = Cascade(max_loss=0.01).fit(predictions.rows(~rows))
    share = one.stages_(predictions.rows(rows)).sum()
    for fold in (1, 2):
        rows = predictions.fold == fold
        share += Cascade(max_loss=0.01).fit(predictions.rows(~rows)).stages_(predictions.rows(rows)).sum()
    assert before.asked == pytest.approx(share / 600)
    assert before.latency_ms is None


def test_one_fold_is_not_enough():
    with pytest.raises(PredictionsError, match="at least two folds"):
        trade_off(Cascade(), some(fold=1))
