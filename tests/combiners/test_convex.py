import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from ensembler.combiners.convex import Convex, _nonnegative_optimum, convex_weights
from ensembler.combiners.greedy import Greedy
from ensembler.metrics import METRICS, PROBA_EPS, true_class_proba

LOG_LOSS = METRICS["log_loss"]


def slsqp(true):
    """The same problem by a general solver."""
    n = len(true)
    found = minimize(
        lambda w: -np.log(w @ true).mean(),
        np.full(n, 1 / n),
        jac=lambda w: -(true @ (1 / (w @ true))) / true.shape[1],
        method="SLSQP",
        bounds=[(0, 1)] * n,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(n)},
        options={"ftol": 1e-16, "maxiter": 1000},
    )
    return found.x / found.x.sum()


def gap(true, weights):
    """No weights on the simplex have a mean log loss that is lower by more."""
    held = np.maximum(true, PROBA_EPS)
    return (held @ (1 / (weights @ held)) / true.shape[1]).max() - 1


@pytest.mark.parametrize(("n_members", "n_samples"), [(2, 300), (5, 300), (12, 3000)])
@pytest.mark.parametrize("seed", [0, 1])
def test_agrees_with_slsqp(library, n_members, n_samples, seed):
    predictions = library(n_members=n_members, n_samples=n_samples, seed=seed)
    true = true_class_proba(predictions.labels, predictions.proba)
    weights = convex_weights(true)
    np.testing.assert_allclose(weights, slsqp(true), atol=1e-6)
    assert gap(true, weights) < 1e-8


def test_two_members_with_an_answer_on_paper():
    """Of three rows the first member gives 0.8, 0.8, 0.2 and the second 0.4, 0.4, 0.6.

    With w the first one's weight the slope is 2 * 0.4 / (0.4 + 0.4 w) - 0.4 / (0.6 - 0.4 w): zero where
    2 (0.6 - 0.4 w) = 0.4 + 0.4 w, at w = 2 / 3.
    """
    weights = convex_weights(np.array([[0.8, 0.8, 0.2], [0.4, 0.4, 0.6]]))
    np.testing.assert_allclose(weights, [2 / 3, 1 / 3], atol=1e-7)


@settings(max_examples=60, deadline=None)
@given(
    n_members=st.integers(1, 15),
    n_samples=st.integers(1, 60),
    kind=st.sampled_from(["smooth", "certain", "coarse", "copies"]),
    seed=st.integers(0, 9999),
)
def test_reaches_the_optimum_whatever_the_library(n_members, n_samples, kind, seed):
    rng = np.random.default_rng(seed)
    true = rng.beta(2, 1, size=(n_members, n_samples))
    if kind == "certain":
        true = np.round(true)
    elif kind == "coarse":
        true = np.round(true * 3) / 3
    elif kind == "copies":
        true[n_members // 2 :] = true[0]
    before = true.copy()
    weights = convex_weights(true)
    np.testing.assert_array_equal(true, before)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    assert gap(true, weights) < 1e-7


def test_identical_members_share_their_weight(library):
    one = library(n_members=3)
    copies = one.with_proba(one.proba[[0, 1, 0, 2, 0]], ["a", "b", "c", "d", "e"])
    alone, shared = Convex().fit(one).weights_, Convex().fit(copies).weights_
    np.testing.assert_allclose(shared[[0, 2, 4]], alone[0] / 3, atol=1e-6)
    np.testing.assert_allclose(shared[[1, 3]], alone[1:], atol=1e-6)


def test_is_at_least_as_good_in_sample_as_any_selection(library):
    predictions = library(n_members=10, n_samples=200)
    losses = [
        LOG_LOSS(predictions.labels, combiner.fit(predictions).predict(predictions).proba[0])
        for combiner in (Convex(), Greedy(rounds=200))
    ]
    assert losses[0] <= losses[1] + 1e-6
    assert losses[1] - losses[0] < 1e-3


def test_many_members_and_rows():
    rng = np.random.default_rng(0)
    shared, width = rng.normal(size=10_000), rng.uniform(0.5, 2, size=(100, 1))
    true = 1 / (1 + np.exp(-1 - shared - rng.normal(size=(100, 10_000)) * width))
    weights = convex_weights(true)
    assert gap(true, weights) < 1e-9
    assert (weights > 0).sum() < 50


def test_a_curvature_that_rounding_has_turned_round_does_not_hold_it_up():
    """What the slope asks for is what the solution refuses: it would be tried again for ever."""
    np.testing.assert_array_equal(_nonnegative_optimum(-np.eye(2), np.ones(2), np.zeros(2)), [0, 0])
