import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from ensembler.combiners import make_combiner
from ensembler.combiners.calibrated import Calibrated, _curve, _fit_vector
from ensembler.combiners.inner import inner_cross_fit
from ensembler.errors import CombinerError
from ensembler.evaluation.cross_fit import cross_fit
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions
from ensembler.probability import fit_temperature, softmax


@pytest.fixture
def overconfident(library):
    """Members whose logits are three times too large."""
    predictions = library(n_samples=900)
    return predictions.with_proba(softmax(3 * np.log(predictions.proba)), predictions.members)


@pytest.mark.parametrize("method", ["temperature", "vector", "isotonic"])
def test_what_is_overconfident_is_mended_out_of_fold(overconfident, method):
    plain = cross_fit(make_combiner("geometric"), overconfident, METRICS["ece"])
    mended = cross_fit(Calibrated(base="geometric", method=method), overconfident, METRICS["ece"])
    log_loss = METRICS["log_loss"]
    assert mended.score < 0.5 * plain.score
    assert log_loss(overconfident.labels, mended.predictions.proba[0]) < log_loss(
        overconfident.labels, plain.predictions.proba[0]
    )


def test_the_temperature_is_that_of_inner_cross_fitted_rows(overconfident):
    combiner = Calibrated(base="stacking").fit(overconfident)
    honest = inner_cross_fit(make_combiner("stacking"), overconfident)
    temperature = fit_temperature(np.log(honest), overconfident.labels)
    np.testing.assert_allclose(1 / combiner.factor_, temperature, rtol=1e-3)


def test_a_temperature_changes_no_first_choice(overconfident):
    base = make_combiner("geometric").fit(overconfident).predict(overconfident)
    mended = Calibrated(base="geometric").fit(overconfident).predict(overconfident)
    np.testing.assert_array_equal(mended.proba.argmax(axis=2), base.proba.argmax(axis=2))


def test_vector_scaling_finds_the_factors_and_shifts_it_was_given():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40_000, 3))
    factor, shift = np.array([2.0, 1.0, 0.5]), np.array([0.5, 0.0, -0.5])
    labels = (softmax(logits * factor + shift).cumsum(axis=1) < rng.random((40_000, 1))).sum(axis=1)
    found_factor, found_shift = _fit_vector(logits, np.minimum(labels, 2))
    np.testing.assert_allclose(found_factor, factor, atol=0.1)
    np.testing.assert_allclose(found_shift - found_shift[1], shift, atol=0.1)


def test_isotonic_is_scikit_learns_within_its_bounds(library):
    predictions = library()
    proba, positive = predictions.proba[0, :, 1], predictions.labels == 1
    edge = 1 / (len(proba) + 2)
    model = IsotonicRegression(out_of_bounds="clip", y_min=edge, y_max=1 - edge).fit(proba, positive)
    curve, grid = _curve(proba, positive), np.linspace(0, 1, 101)
    np.testing.assert_allclose(np.interp(grid, curve[:, 0], curve[:, 1]), model.predict(grid), atol=1e-6)
    assert curve[:, 1].min() >= edge
    assert curve[:, 1].max() <= 1 - edge


def test_rows_without_a_mistake_are_not_made_certain():
    labels = np.tile([0, 1], 30)
    right = 0.6 * np.eye(2)[labels] + 0.2
    predictions = Predictions.from_arrays(right, labels, np.arange(60) % 3)
    for method in ("temperature", "vector", "isotonic"):
        proba = Calibrated(base="mean", method=method).fit(predictions).predict(predictions).proba
        assert 0.8 < proba.max() < 1 - 1e-3


def test_an_unknown_method_is_refused():
    with pytest.raises(
        CombinerError, match="calibrated: method is 'platt'; expected one of temperature, vec"
    ):
        make_combiner("calibrated", method="platt")
