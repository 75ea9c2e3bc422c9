import numpy as np
import pytest

from ensembler.combiners.greedy import Greedy, greedy_weights
from ensembler.metrics import METRICS


def test_improves_on_the_best_member_in_sample(library):
    predictions = library()
    log_loss = METRICS["log_loss"]
    combined = Greedy().fit(predictions).predict(predictions).proba[0]
    assert log_loss(predictions.labels, combined) < min(
        log_loss(predictions.labels, p) for p in predictions.proba
    )


def test_one_round_is_the_best_member(library):
    predictions = library()
    scores = [METRICS["accuracy"](predictions.labels, p) for p in predictions.proba]
    weights = Greedy(metric="accuracy", rounds=1).fit(predictions).weights_
    assert int(weights.argmax()) == int(np.argmax(scores))
    assert weights.max() == 1


def test_a_tie_prefers_a_member_already_chosen(library):
    one = library(n_members=1)
    copies = one.with_proba(np.repeat(one.proba, 3, axis=0), ["a", "b", "c"])
    np.testing.assert_array_equal(Greedy().fit(copies).weights_, [1, 0, 0])


def test_a_tie_on_accuracy_goes_to_the_lower_log_loss(library):
    labels = np.array([0, 1, 0, 1])
    sure, unsure = 0.9 * np.eye(2)[labels] + 0.05, 0.2 * np.eye(2)[labels] + 0.4
    weights = greedy_weights(np.stack([unsure, sure]).astype(np.float32), labels, METRICS["accuracy"], 5)
    np.testing.assert_array_equal(weights, [0, 1])


def test_certain_errors_stay_finite_and_are_avoided():
    labels = np.zeros(70, np.int64)
    wrong, fair = np.eye(2)[np.ones(70, int)], np.full((70, 2), 0.5)
    weights = greedy_weights(np.stack([wrong, fair]).astype(np.float32), labels, METRICS["log_loss"], 10)
    np.testing.assert_array_equal(weights, [0, 1])


def test_a_millionth_is_not_worth_another_member():
    """The second member would lower the loss by less than six decimals show."""
    labels = np.zeros(4, np.int64)
    one = np.tile([0.6, 0.4], (4, 1))
    other = one + np.array([[1e-7, -1e-7]])
    weights = greedy_weights(np.stack([one, other]).astype(np.float32), labels, METRICS["log_loss"], 5)
    assert sorted(weights) == [0, 1]


def test_starts_from_the_best_members_by_themselves(library):
    predictions = library(n_members=6, n_samples=20, seed=8)
    log_loss = METRICS["log_loss"]

    def loss(picks):
        return log_loss(predictions.labels, predictions.proba[picks].astype(np.float64).mean(axis=0))

    ranking = sorted(range(6), key=lambda m: loss([m]))
    seen = [ranking[:n] for n in (1, 2, 3)] + [[*ranking[:3], m] for m in range(6)]
    best = min(seen, key=loss)
    weights = Greedy(rounds=1, initial=3).fit(predictions).weights_
    np.testing.assert_allclose(weights, np.bincount(best, minlength=6) / len(best))
    assert len(best) > 2


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("metric", ["log_loss", "brier"])
def test_removal_is_hardly_ever_worse_in_sample(library, metric, seed):
    predictions = library(n_members=8, n_samples=150, seed=seed)

    def loss(**options):
        fitted = Greedy(metric=metric, rounds=30, **options).fit(predictions)
        return METRICS[metric](predictions.labels, fitted.predict(predictions).proba[0])

    assert loss(removal=True) <= loss() + 2e-4


def test_patience_ends_the_search_where_more_rounds_would_go_on(library):
    predictions = library(n_members=8, n_samples=200)
    long, short = (Greedy(rounds=60, patience=p).fit(predictions).weights_ for p in (0, 1))
    fractions = [min(n for n in range(1, 61) if np.allclose(w * n, np.round(w * n))) for w in (long, short)]
    assert fractions[1] < fractions[0]


def test_ties_go_to_the_first_by_name_whatever_the_order(library):
    one = library(n_members=1)
    copies = one.with_proba(np.repeat(one.proba, 3, axis=0), ["b", "c", "a"])
    assert Greedy().fit(copies).used_members_ == ("a",)


def test_one_row_and_one_member(library):
    predictions = library(n_members=3)
    row = predictions.rows(np.array([0]))
    best = int(row.proba[:, 0, row.labels[0]].argmax())
    assert Greedy(initial=2).fit(row).used_members_ == (f"m{best}",)
    assert Greedy(removal=True).fit(predictions.select(["m1"])).weights_ == [1]
