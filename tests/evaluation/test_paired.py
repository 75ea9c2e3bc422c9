import itertools

import numpy as np
import pandas as pd
import pytest

from ensembler.errors import PredictionsError
from ensembler.evaluation.intervals import difference_interval, p_value
from ensembler.evaluation.paired import resample
from ensembler.evaluation.significance import bootstrap_scores, bootstrap_weights, holm
from ensembler.metrics import METRICS


@pytest.mark.parametrize("name", ["log_loss", "accuracy", "macro_f1"])
def test_scores_are_those_of_the_metric(library, name):
    predictions, metric = library(n_members=4), METRICS[name]
    found = resample(predictions, metric, n_boot=200, seed=3)
    assert found.names == predictions.members
    np.testing.assert_allclose(found.scores, [metric(predictions.labels, slab) for slab in predictions.proba])
    weights = bootstrap_weights(240, 200, seed=3)
    np.testing.assert_allclose(found.samples, bootstrap_scores(predictions, metric, weights))
    assert found.proportion == (name == "accuracy")
    low, high = found.intervals()
    assert (metric.low <= low).all()
    assert (low < found.scores).all()
    assert (found.scores < high).all()
    assert (high <= metric.high).all()


@pytest.mark.parametrize("name", ["log_loss", "accuracy"])
def test_every_pair_once_with_its_own_interval_and_all_corrected_together(library, name):
    predictions, metric = library(n_members=5), METRICS[name]
    found = resample(predictions, metric, n_boot=300)
    pairs = found.all_pairs()
    assert {frozenset((p.first, p.second)) for p in pairs} == {
        frozenset(pair) for pair in itertools.combinations(predictions.members, 2)
    }
    for pair in pairs:
        a, b = predictions.index(pair.first), predictions.index(pair.second)
        samples = metric.improvement(found.samples[a], found.samples[b])
        assert pair.delta == metric.improvement(found.scores[a], found.scores[b]) >= 0
        assert (pair.low, pair.high) == difference_interval(pair.delta, samples, 240)
        assert pair.p_value == p_value(pair.delta, samples, 240)
    np.testing.assert_array_equal([p.corrected for p in pairs], holm([p.p_value for p in pairs]))


def test_chunks_change_nothing(library, monkeypatch):
    found = resample(library(n_members=6), METRICS["log_loss"], n_boot=100)
    whole = found.all_pairs()
    monkeypatch.setattr("ensembler.evaluation.paired._CHUNK", 250)
    assert found.all_pairs() == whole


def test_against_one_row(library):
    found = resample(library(n_members=4), METRICS["log_loss"], n_boot=100)
    compared = found.against("m2")
    assert [(d.first, d.second) for d in compared] == [("m0", "m2"), ("m1", "m2"), ("m3", "m2")]
    pairs = {(d.first, d.second): d for d in found.all_pairs()}
    for one in compared:
        other = pairs.get((one.first, one.second)) or pairs[one.second, one.first]
        assert one.p_value == pytest.approx(other.p_value)
        assert abs(one.delta) == other.delta
        assert one.corrected <= other.corrected
    with pytest.raises(PredictionsError, match=r"'x' is not among \['m0', 'm1', 'm2', 'm3'\]"):
        found.against("x")


def test_a_frame_is_one_call_away(library):
    found = resample(library(n_members=3), METRICS["log_loss"], n_boot=100)
    frame = pd.DataFrame(found.all_pairs())
    assert list(frame.columns) == ["first", "second", "delta", "low", "high", "p_value", "corrected"]


def test_identical_rows_are_tied(library):
    predictions = library(n_members=2)
    twins = predictions.with_proba(predictions.proba[[0, 0, 1]], ["a", "twin", "b"])
    for name in ("log_loss", "accuracy", "roc_auc"):
        pair = {
            frozenset((p.first, p.second)): p for p in resample(twins, METRICS[name], n_boot=100).all_pairs()
        }
        same = pair[frozenset(("a", "twin"))]
        assert (same.delta, same.p_value, same.corrected) == (0, 1, 1)
        assert max(abs(same.low), abs(same.high)) < 1e-9


def test_one_row_has_no_pairs(library):
    found = resample(library(n_members=1), METRICS["log_loss"], n_boot=50)
    assert found.all_pairs() == found.against("m0") == []


def test_groups_widen_the_intervals(library):
    predictions = library(n_samples=240)
    twice = predictions.rows(np.repeat(np.arange(240), 4))
    alone = resample(twice, METRICS["log_loss"], n_boot=500)
    together = resample(twice, METRICS["log_loss"], n_boot=500, groups=np.repeat(np.arange(240), 4))
    assert (alone.n_units, together.n_units) == (960, 240)
    widths = [np.subtract(*found.intervals()[::-1]) for found in (alone, together)]
    np.testing.assert_allclose(widths[1], 2 * widths[0], rtol=0.15)
