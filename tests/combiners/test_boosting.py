import numpy as np
import xgboost as xgb

from ensembler.combiners.boosting import Boosting
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
