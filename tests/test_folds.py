"""Folds: disjoint, complete, stratified, groups whole, and errors that say what to change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ensembler.errors import DataError
from ensembler.folds import Folds, make_folds, stratified_slice


def assert_partition(folds: Folds, n: int) -> None:
    held_out = np.concatenate([fold.holdout for fold in folds])
    np.testing.assert_array_equal(np.sort(held_out), np.arange(n))
    for number, fold in enumerate(folds):
        together = np.concatenate([fold.train, fold.monitor, fold.holdout])
        np.testing.assert_array_equal(np.sort(together), np.arange(n))
        assert min(map(len, (fold.train, fold.monitor, fold.holdout))) > 0
        for part in (fold.train, fold.monitor, fold.holdout):
            assert part.dtype == np.int64
            assert (np.diff(part) > 0).all()
        assert (folds.assignment[fold.holdout] == number).all()
    assert folds.assignment.dtype == np.int16


def assert_groups_whole(folds: Folds, groups: NDArray[np.str_]) -> None:
    for fold in folds:
        parts = [set(groups[part]) for part in (fold.train, fold.monitor, fold.holdout)]
        assert sum(map(len, parts)) == len(set.union(*parts))


def assert_trainable(folds: Folds, labels: NDArray[np.int64]) -> None:
    for fold in folds:
        rest = labels[np.concatenate([fold.train, fold.monitor])]
        repeated = np.flatnonzero(np.bincount(rest) >= 2)
        assert set(repeated) <= set(labels[fold.train].tolist())


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(5, 40), min_size=2, max_size=6),
    k=st.integers(2, 5),
    seed=st.integers(0, 2**31),
    fraction=st.sampled_from([0.05, 0.15, 0.3, 0.5]),
)
def test_stratified_folds(counts: list[int], k: int, seed: int, fraction: float) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    folds = make_folds(labels, k, seed, monitor_fraction=fraction)
    assert len(folds) == k
    assert_partition(folds, len(labels))
    assert_trainable(folds, labels)
    for fold in folds:
        per_class = np.bincount(labels[fold.holdout], minlength=len(counts))
        assert (np.abs(per_class - np.array(counts) / k) < 1).all()
        rest = np.array(counts) - per_class
        watched = np.bincount(labels[fold.monitor], minlength=len(counts))
        assert (np.abs(watched - rest * fraction) <= 1).all()


@settings(max_examples=20, deadline=None)
@given(
    n_groups=st.integers(20, 60),
    n_classes=st.integers(2, 4),
    k=st.integers(2, 4),
    seed=st.integers(0, 2**31),
    stratify=st.booleans(),
)
def test_grouped_folds(n_groups: int, n_classes: int, k: int, seed: int, stratify: bool) -> None:
    draw = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(n_groups), draw.integers(1, 6, n_groups))
    labels = np.concatenate([np.arange(n_classes), draw.integers(0, n_classes, len(numbers) - n_classes)])
    labels[: 2 * len(labels) // 3] = np.arange(2 * len(labels) // 3) % n_classes  # no class too rare
    groups = np.array([f"patient {g}" for g in numbers])
    folds = make_folds(labels, k, seed, groups=groups, stratify=stratify)
    assert_partition(folds, len(labels))
    assert_groups_whole(folds, groups)
    assert_trainable(folds, labels)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), fraction=st.sampled_from([0.1, 0.15, 0.3]), pure=st.booleans())
def test_the_monitor_of_groups_is_near_its_share(seed: int, fraction: float, pure: bool) -> None:
    draw = np.random.default_rng(seed)
    groups = np.repeat(np.arange(90), draw.integers(1, 5, 90))
    labels = groups % 3 if pure else draw.integers(0, 3, len(groups))
    rows = stratified_slice(labels, fraction, seed, groups=groups)
    share = np.bincount(labels[rows], minlength=3) / np.bincount(labels)
    assert np.abs(share - fraction).max() < 0.03


def test_stratification_beats_chance_with_groups() -> None:
    draw = np.random.default_rng(0)
    groups = np.repeat(np.arange(120), 4)
    labels = np.repeat((draw.random(120) < 0.2).astype(int), 4)
    folds = make_folds(labels, 4, 0, groups=groups)
    shares = [labels[fold.holdout].mean() for fold in folds]
    assert np.ptp(shares) < 0.02


def test_folds_without_stratification() -> None:
    labels = np.array([0] * 39 + [1])  # a class of one cannot be stratified, nor trained on when held out
    labels[:3] = 1
    folds = make_folds(labels, 5, 0, stratify=False)
    assert_partition(folds, 40)
    assert [len(fold.holdout) for fold in folds] == [8] * 5


def test_predefined_folds_are_numbered_anew_in_ascending_order() -> None:
    labels = np.tile([0, 1], 12)
    predefined = np.repeat([30, 7, 12], 8)
    folds = make_folds(labels, 99, predefined=predefined)
    assert folds.assignment.tolist() == [2] * 8 + [0] * 8 + [1] * 8
    assert_partition(folds, 24)
    assert folds[2].holdout.tolist() == list(range(8))


def test_the_seed_decides() -> None:
    labels = np.tile([0, 1, 2], 30)
    groups = np.repeat(np.arange(45), 2)
    for options in ({}, {"stratify": False}, {"groups": groups}, {"groups": groups, "stratify": False}):
        first, again, other = (make_folds(labels, 3, seed, **options) for seed in (1, 1, 2))
        assert (first.assignment == again.assignment).all()
        assert all((a.monitor == b.monitor).all() for a, b in zip(first, again, strict=True))
        assert (first.assignment != other.assignment).any()


def test_known_answer_that_must_be_the_same_on_every_machine() -> None:
    folds = make_folds(np.tile([0, 1], 6), 3, seed=0, monitor_fraction=0.25)
    assert folds.assignment.tolist() == [2, 0, 1, 1, 0, 2, 1, 0, 0, 1, 2, 2]
    assert [fold.monitor.tolist() for fold in folds] == [[6, 11], [4, 5], [3, 8]]


def test_tiny_data_still_have_a_monitor() -> None:
    folds = make_folds([0, 0, 1, 1], 2)
    assert_partition(folds, 4)


def test_a_slice_of_most_groups_leaves_one() -> None:
    assert len(stratified_slice(np.array([0, 1]), 0.9, 0, groups=["a", "b"])) == 1


def test_a_slice_keeps_one_group_of_each_class() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1, 0, 1])
    groups = np.array(["a", "a", "a", "b", "b", "b", "c", "c"])
    for seed in range(5):
        assert stratified_slice(labels, 0.4, seed, groups=groups).tolist() == [6, 7]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": [0, 1] * 4, "k": 1}, "k is 1; at least 2"),
        ({"labels": [0], "k": 2}, "1 images for 2 folds"),
        (
            {"labels": [0] * 9 + [1] * 2, "k": 3, "class_names": ["cat", "dog"]},
            r"class 'dog': 2 images for 3 folds; add images, lower k",
        ),
        (
            {"labels": [0] * 9, "k": 3, "class_names": ["cat", "dog"]},
            r"class 'dog': 0 images for 3 folds",
        ),
        ({"labels": [0, 1] * 4, "k": 3, "groups": [0] * 4 + [1] * 4}, "groups: 2 for 3 folds"),
        ({"labels": [0, 1] * 4, "k": 2, "groups": [0, 1]}, "groups: 2 values for 8 images"),
        (
            {"labels": [0] * 4 + [1] * 4, "k": 2, "groups": ["a", "b", "a", "b", "c", "c", "c", "c"]},
            "class '1': all its images are held out in fold",
        ),
        ({"labels": [0, 1] * 4, "k": 2, "predefined": [3] * 8}, r"only \[3\]; at least 2 folds"),
        ({"labels": [0, 1] * 4, "k": 2, "predefined": [0, 1] * 3 + [1, -1]}, "-1 in row 7"),
        ({"labels": [0, 1] * 4, "k": 2, "predefined": [0.5] * 8}, "float64 values; expected integers"),
        ({"labels": [0, 1] * 4, "k": 2, "predefined": [0, 1]}, "predefined folds: 2 values for 8"),
        (
            {"labels": [0, 1] * 4, "k": 2, "predefined": [0] * 4 + [1] * 4, "groups": ["a", "b"] * 4},
            "group 'a': lies in folds 0 and 1",
        ),
        ({"labels": [0, 1] * 4, "k": 2, "monitor_fraction": 1.0}, "fraction 1.0; expected one between"),
        (
            {"labels": [0, 1] * 2, "k": 2, "predefined": [0, 0, 1, 1], "groups": ["a", "a", "b", "b"]},
            "monitor slice of fold 0: every group holds all images",
        ),
        ({"labels": [0, 0], "k": 2, "stratify": False}, "monitor slice of fold 0: 1 image to take it from"),
        (
            {
                "labels": [1, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0],
                "k": 5,
                "groups": [1, 0, 1, 1, 2, 0, 1, 3, 4, 2, 0, 3, 2, 2, 0, 4, 4, 0, 4, 1, 0, 0],
            },
            "fold 3 of 5 would be empty; lower k",
        ),
    ],
)
def test_errors_name_the_value_and_the_way_out(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make_folds(**arguments)  # type: ignore[arg-type]
