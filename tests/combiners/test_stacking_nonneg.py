import numpy as np
import pytest
from scipy.optimize import minimize

from ensembler.combiners.mean import Geometric
from ensembler.combiners.stacking_nonneg import StackingNonneg, nonnegative_path
from ensembler.metrics import METRICS
from ensembler.probability import log_softmax, softmax


def objective(weights, logs, labels, penalty):
    rows = log_softmax(np.tensordot(weights, logs, 1))[np.arange(len(labels)), labels]
    return -rows.mean() + penalty * len(logs) / 2 * ((weights - 1 / len(logs)) ** 2).sum()


@pytest.mark.parametrize("penalty", [0.3, 1e-3, 1e-6])
def test_the_optimum_is_that_of_a_bounded_search(library, penalty):
    predictions = library(n_members=7, n_samples=240)
    proba = predictions.proba.copy()
    proba[2] = proba[2][:, [1, 2, 3, 0]]  # worth nothing: its weight belongs at the bound
    logs = np.log(proba.astype(np.float64))
    *_, weights = nonnegative_path(logs, predictions.labels, (1.0, penalty))
    found = minimize(
        objective,
        np.full(7, 1 / 7),
        (logs, predictions.labels, penalty),
        "L-BFGS-B",
        bounds=[(0, None)] * 7,
        options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 2000, "maxfun": 100_000},
    )
    assert objective(weights, logs, predictions.labels, penalty) <= found.fun + 1e-9
    np.testing.assert_allclose(weights, found.x, atol=1e-3)


def test_a_harmful_member_has_no_weight_and_is_not_kept(library):
    predictions = library()
    proba = predictions.proba.copy()
    proba[2] = 0.6 * np.eye(4)[(predictions.labels + 1) % 4] + 0.1
    predictions = predictions.with_proba(proba, predictions.members)
    combiner = StackingNonneg().fit(predictions)
    assert combiner.weights_[2] == 0
    assert "m2" not in combiner.pruned().members_


def test_what_is_overconfident_is_given_a_smaller_scale(library):
    predictions = library(n_samples=900)
    fair = StackingNonneg().fit(predictions)
    doubled = softmax(2 * np.log(predictions.proba))
    sharp = StackingNonneg().fit(predictions.with_proba(doubled, predictions.members))
    assert sharp.scale_[0] == pytest.approx(fair.scale_[0] / 2, rel=0.1)


def test_no_penalty_that_helps_is_the_geometric_mean():
    """Members that are calibrated and alike: nothing to correct."""
    from ensembler.predictions import Predictions

    labels = np.tile([0, 1], 20)
    even = Predictions.from_arrays(np.full((3, 40, 2), 0.5), labels, np.arange(40) // 2 % 4)
    combiner = StackingNonneg().fit(even)
    assert np.isinf(combiner.penalty_[0])
    assert combiner.scale_[0] == pytest.approx(1)
    np.testing.assert_allclose(
        combiner.predict(even).proba, Geometric().fit(even).predict(even).proba, atol=1e-7
    )


def test_is_better_than_the_geometric_mean_out_of_fold(library):
    from ensembler.evaluation.cross_fit import cross_fit

    predictions = library(n_samples=600)
    log_loss = METRICS["log_loss"]
    assert (
        cross_fit(StackingNonneg(), predictions, log_loss).score
        < cross_fit(Geometric(), predictions, log_loss).score
    )
