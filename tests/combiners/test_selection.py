"""The fast searches against the method as the paper tells it: every candidate ensemble averaged and scored in full."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensembler.combiners.selection import Library, select
from ensembler.metrics import METRICS

FAST = ["log_loss", "accuracy", "brier"]


def plain(proba, labels, metric, rounds, initial=0, removal=False, patience=0):
    log_loss = METRICS["log_loss"]

    def rank(picks, preferred, member):
        mean = proba[picks].astype(np.float64).mean(axis=0)
        loss = -metric.sign * metric(labels, mean)
        loss = np.inf if np.isnan(loss) else round(loss, 6)
        return loss, not preferred, round(log_loss(labels, mean), 11), member

    def without(picks, member):
        rest = picks.copy()
        rest.remove(member)
        return rest

    members = range(len(proba))
    picks, trajectory, seen = [], [], []
    alone = sorted(rank([m], False, m) for m in members)
    for *_, member in alone[:initial]:
        picks = [*picks, member]
        trajectory.append(rank(picks, False, member)[0])
        seen.append(picks)
    best_round = 0
    for number in range(rounds):
        loss, _, _, member = min(rank([*picks, m], m in picks, m) for m in members)
        picks = [*picks, member]
        while removal and set(picks) != {member}:
            shorter = min(rank(without(picks, m), picks.count(m) == 1, m) for m in set(picks) - {member})
            if shorter[0] >= loss:
                break
            loss, picks = shorter[0], without(picks, shorter[3])
        if not trajectory or loss < min(trajectory):
            best_round = number
        elif patience and number - best_round >= patience:
            break
        trajectory.append(loss)
        seen.append(picks)
    return np.bincount(seen[int(np.argmin(trajectory))], minlength=len(proba))


def made(rng, n_members, n_samples, n_classes, kind):
    """A library that is smooth, or full of certainties, or full of equal values and copies."""
    labels = rng.integers(n_classes, size=n_samples)
    logits = rng.normal(size=(n_samples, n_classes)) + rng.normal(size=(n_members, n_samples, n_classes))
    logits += 1.5 * np.eye(n_classes)[labels]
    proba = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    if kind == "certain":
        proba = np.eye(n_classes)[proba.argmax(axis=2)]
    elif kind == "coarse":
        proba = np.maximum(np.round(proba * 4), 0.25 * np.eye(n_classes)[0])
        proba /= proba.sum(axis=2, keepdims=True)
        proba[-1] = proba[0]
    return proba.astype(np.float32), labels


@pytest.mark.parametrize("metric", [*FAST, "macro_f1"])
@pytest.mark.parametrize("kind", ["smooth", "certain", "coarse"])
@pytest.mark.parametrize(
    "options",
    [{}, {"initial": 3}, {"removal": True}, {"initial": 99, "removal": True}, {"patience": 2}],
    ids=str,
)
def test_picks_the_same_as_the_plain_search(metric, kind, options):
    rng = np.random.default_rng(5)
    for n_members, n_samples, n_classes in ((6, 101, 4), (3, 1, 3), (5, 40, 2)):
        proba, labels = made(rng, n_members, n_samples, n_classes, kind)
        found = select(Library(proba, labels).objective(METRICS[metric]), 12, **options)
        expected = plain(proba, labels, METRICS[metric], 12, **options)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("metric", FAST)
@settings(max_examples=40, deadline=None)
@given(
    n_members=st.integers(2, 12),
    n_samples=st.integers(1, 70),
    n_classes=st.sampled_from([2, 3, 40]),
    kind=st.sampled_from(["smooth", "certain", "coarse"]),
    rounds=st.integers(1, 25),
    removal=st.booleans(),
    seed=st.integers(0, 999),
)
def test_any_library_gives_the_picks_of_the_plain_search(
    metric, n_members, n_samples, n_classes, kind, rounds, removal, seed
):
    proba, labels = made(np.random.default_rng(seed), n_members, n_samples, n_classes, kind)
    found = select(Library(proba, labels).objective(METRICS[metric]), rounds, removal=removal)
    np.testing.assert_array_equal(found, plain(proba, labels, METRICS[metric], rounds, removal=removal))


@pytest.mark.parametrize("metric", [*FAST, "macro_f1"])
@pytest.mark.parametrize("kind", ["smooth", "coarse"])
def test_a_bag_is_the_search_over_copies_of_its_rows_and_members(metric, kind):
    rng = np.random.default_rng(1)
    proba, labels = made(rng, 7, 90, 3, kind)
    library = Library(proba, labels)
    for _ in range(5):
        members = np.sort(rng.choice(7, 4, replace=False))
        rows = rng.integers(90, size=90)
        found = select(library.objective(METRICS[metric], members, rows), 15)
        np.testing.assert_array_equal(
            found, plain(proba[members][:, rows], labels[rows], METRICS[metric], 15)
        )


def test_a_larger_library_where_most_candidates_are_skipped():
    rng = np.random.default_rng(0)
    proba, labels = made(rng, 40, 1500, 5, "smooth")
    for metric in FAST:
        objective = Library(proba, labels).objective(METRICS[metric])
        np.testing.assert_array_equal(select(objective, 20), plain(proba, labels, METRICS[metric], 20))


@pytest.mark.parametrize("metric", ["log_loss", "accuracy"])
def test_what_is_skipped_could_not_have_won(metric):
    """A loss that is given is the loss; one that is not is above the best."""
    rng = np.random.default_rng(3)
    proba, labels = made(rng, 60, 400, 4, "smooth")
    objective = Library(proba, labels).objective(METRICS[metric])
    skipped = 0
    for _ in range(20):
        told, exact = objective.after_adding(), objective.losses(np.arange(60), 1)
        given_ = np.isfinite(told)
        np.testing.assert_allclose(told[given_], exact[given_], rtol=1e-12)
        assert (exact[~given_] > exact.min() + 1e-6).all()
        skipped += (~given_).sum()
        objective.add(int(exact.argmin()))
    assert skipped > 300


@pytest.mark.parametrize("metric", METRICS)
def test_losses_are_those_of_the_metric(metric):
    rng = np.random.default_rng(2)
    proba, labels = made(rng, 5, 80, 3, "smooth")
    objective = Library(proba, labels).objective(METRICS[metric])
    for member in (1, 1, 4):
        objective.add(member)
    sign = METRICS[metric].sign
    added = [
        -sign * METRICS[metric](labels, proba[[1, 1, 4, m]].astype(float).mean(axis=0)) for m in range(5)
    ]
    removed = [
        -sign * METRICS[metric](labels, proba[picks].astype(float).mean(axis=0)) for picks in ([1, 4], [1, 1])
    ]
    np.testing.assert_allclose(objective.losses(np.arange(5), 1), added, rtol=1e-12)
    np.testing.assert_allclose(objective.losses(np.array([1, 4]), -1), removed, rtol=1e-12)


def test_removal_lets_go_of_what_later_picks_made_worthless():
    """The best single member is a compromise between two experts, who together are better than it."""
    labels = np.array([0, 0, 1, 1] * 50)
    expert = np.arange(200) < 100
    own = np.stack([np.where(expert, 0.95, 0.45), np.where(expert, 0.45, 0.95), np.full(200, 0.68)])
    proba = np.empty((3, 200, 2), np.float32)
    proba[:, np.arange(200), labels], proba[:, np.arange(200), 1 - labels] = own, 1 - own
    library = Library(proba, labels)
    first = select(library.objective(METRICS["log_loss"]), 1)
    np.testing.assert_array_equal(first, [0, 0, 1])
    np.testing.assert_array_equal(select(library.objective(METRICS["log_loss"]), 4), [1, 1, 2])
    with_removal = select(library.objective(METRICS["log_loss"]), 4, removal=True)
    np.testing.assert_array_equal(with_removal, [1, 1, 0])


def test_an_undefined_metric_leaves_the_choice_to_log_loss():
    rng = np.random.default_rng(0)
    proba, _ = made(rng, 4, 30, 2, "smooth")
    labels = np.zeros(30, np.int64)
    losses = [METRICS["log_loss"](labels, slab) for slab in proba]
    counts = select(Library(proba, labels).objective(METRICS["roc_auc"]), 1)
    assert counts[int(np.argmin(losses))] == 1


def test_the_library_is_left_as_it_was():
    proba, labels = made(np.random.default_rng(0), 4, 50, 3, "smooth")
    before = proba.copy(), labels.copy()
    library = Library(proba, labels)
    for metric in (*FAST, "macro_f1"):
        tables = library.true.copy(), library.lead.copy()
        select(library.objective(METRICS[metric]), 8, removal=True)
        np.testing.assert_array_equal(library.true, tables[0])
        np.testing.assert_array_equal(library.lead, tables[1])
    np.testing.assert_array_equal(proba, before[0])
    np.testing.assert_array_equal(labels, before[1])
