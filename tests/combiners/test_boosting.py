import numpy as np
import xgboost as xgb

from ensembler.combiners.boosting import MAX_AXES, Boosting
from ensembler.combiners.mean import Mean
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions


def test_learns_what_a_mean_cannot(library):
    predictions = library(n_samples=600)
    swapped = predictions.proba[:, :, [1, 0, 2, 3]]
    predictions = predictions.with_proba(swapped, predictions.members)
    log_loss = METRICS["log_loss"]
    mean, boosted = (
        log_loss(predictions.labels, c.fit(predictions).predict(predictions).proba[0])
        for c in (Mean(), Boosting())
    )
    assert boosted < 0.6 * mean


def test_when_no_round_helps_it_is_the_mean(library):
    rng = np.random.default_rng(1)
    noise = Predictions.from_arrays(np.full((2, 300, 4), 0.25), rng.integers(4, size=300), np.arange(300) % 3)
    combiner = Boosting().fit(noise)
    assert combiner.booster_.size == 0
    np.testing.assert_array_equal(combiner.predict(noise).proba, Mean().fit(noise).predict(noise).proba)


def test_no_rounds_allowed_is_the_mean(library):
    predictions = library()
    np.testing.assert_array_equal(
        Boosting(rounds=0).fit(predictions).predict(predictions).proba,
        Mean().fit(predictions).predict(predictions).proba,
    )


def test_stops_before_its_last_round(library):
    combiner = Boosting(rounds=300).fit(library())
    booster = xgb.Booster()
    booster.load_model(bytearray(combiner.booster_))
    assert 0 < booster.num_boosted_rounds() < 300


def test_a_refit_replaces_the_loaded_model(library):
    first, second = library(seed=0), library(seed=1)
    combiner = Boosting().fit(first)
    combiner.predict(first)
    again = combiner.fit(second).predict(first).proba
    np.testing.assert_array_equal(again, Boosting().fit(second).predict(first).proba)


def test_of_many_members_the_directions_are_seen_in_which_they_differ_most(library):
    predictions = library(n_members=24)
    combiner = Boosting(rounds=20).fit(predictions)
    assert combiner.booster_.size
    assert combiner.axes_.shape == (24 * 4, MAX_AXES)
    np.testing.assert_allclose(combiner.axes_.T @ combiner.axes_, np.eye(MAX_AXES), atol=1e-5)
    logs = np.log(predictions.select(combiner.members_).proba.transpose(1, 0, 2))
    rest = (logs - logs.mean(axis=1, keepdims=True)).reshape(len(logs), -1)
    along = ((rest @ combiner.axes_) ** 2).sum(axis=0)
    singular = np.linalg.svd(rest, compute_uv=False)
    np.testing.assert_allclose(along, singular[:MAX_AXES] ** 2, rtol=1e-4)
    mean = Mean().fit(predictions).predict(predictions).proba[0]
    log_loss = METRICS["log_loss"]
    boosted = combiner.predict(predictions).proba[0]
    assert log_loss(predictions.labels, boosted) < log_loss(predictions.labels, mean)
