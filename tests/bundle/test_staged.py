"""A cascade runs what an image needs, and says what all of it would have said."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ensembler.bundle.staged import Stages
from ensembler.combiners.cascade import Cascade
from ensembler.combiners.fold_models import combine_folds
from ensembler.predictions import Predictions

MEMBERS, CLASSES = ("a", "b", "c"), ("x", "y", "z")


def said_by(n: int, folds: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(members, folds, n, classes) and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    logits = rng.normal(size=(3, folds, n, 3)) + 2.5 * np.eye(3)[labels]
    proba = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    return proba.astype(np.float32), labels


def fitted(**options: object) -> Cascade:
    said, labels = said_by(500, 1)
    rows = Predictions.from_arrays(
        said[:, 0], labels, members=MEMBERS, classes=CLASSES, fold=np.arange(500) % 2
    )
    return Cascade(**options).fit(rows)  # type: ignore[arg-type]


def stages_of(cascade: Cascade, together: tuple[bool, ...] = (False, False, False)) -> Stages:
    return Stages(tuple(map(int, cascade.order_)), tuple(map(float, cascade.thresholds_)), together)


class Recorded:
    """Answers from a table, and counts how often each network ran for each image."""

    def __init__(self, said: NDArray[np.float32]) -> None:
        self.said, self.runs = said, np.zeros(said.shape[:3], np.int64)

    def __call__(self, rows: NDArray[np.intp], wanted: NDArray[np.bool_]) -> NDArray[np.float32]:
        self.runs[:, :, rows] += wanted[:, :, None]
        blank = np.full_like(self.said[:, :, rows], np.nan)
        blank[wanted] = self.said[wanted][:, rows]
        return blank


@pytest.mark.parametrize("folds", [1, 4])
@pytest.mark.parametrize("max_loss", [0.0, 0.02, 1.0])
def test_it_says_what_the_combiner_says_of_all_members(folds: int, max_loss: float) -> None:
    cascade = fitted(max_loss=max_loss)
    said, _ = said_by(200, folds, seed=1)
    run = Recorded(said)
    found = stages_of(cascade).answer(run, 200, folds, 3)
    np.testing.assert_allclose(found, combine_folds(cascade, said, MEMBERS, CLASSES), atol=1e-7)
    assert found.dtype == np.float32


def test_no_network_runs_twice_and_only_where_its_fold_is_unsure() -> None:
    cascade = fitted(max_loss=0.02)
    said, labels = said_by(200, 4, seed=1)
    run = Recorded(said)
    stages_of(cascade).answer(run, 200, 4, 3)
    assert run.runs.max() == 1
    for fold in range(4):
        rows = Predictions.from_arrays(said[:, fold], labels, members=MEMBERS, classes=CLASSES, split="test")
        asked = cascade.stages_(rows)
        for stage, member in enumerate(cascade.order_):
            np.testing.assert_array_equal(run.runs[member, fold] == 1, asked > stage)
    assert run.runs.mean() < 0.8, "nothing was saved"


def test_fold_models_that_share_a_body_run_together() -> None:
    cascade = fitted(max_loss=0.02)
    said, _ = said_by(200, 4, seed=1)
    alone, shared = Recorded(said), Recorded(said)
    one = stages_of(cascade).answer(alone, 200, 4, 3)
    two = stages_of(cascade, (True, True, True)).answer(shared, 200, 4, 3)
    np.testing.assert_array_equal(one, two)
    assert shared.runs.max() == 1
    assert (shared.runs == shared.runs[:, :1]).all()
    assert (shared.runs >= alone.runs).all()


def test_it_goes_through_json() -> None:
    stages = Stages((2, 0, 1), (0.75, np.inf), (False, True, False))
    record = stages.to_index()
    assert record["thresholds"] == [0.75, None]
    assert Stages.from_index(record) == stages


@pytest.mark.parametrize(
    "changes",
    [
        {"order": [0, 0, 1]},
        {"order": [0, 1]},
        {"order": [0, 1, 3]},
        {"thresholds": [0.5]},
        {"thresholds": ["x", 1]},
        {"together": [True]},
        {"order": None},
    ],
)
def test_what_is_no_cascade_is_refused(changes: dict[str, object]) -> None:
    record = Stages((2, 0, 1), (0.75, 0.5), (False, True, False)).to_index()
    with pytest.raises((KeyError, TypeError, ValueError)):
        Stages.from_index(record | changes)


def test_when_all_is_answered_nobody_is_asked() -> None:
    said = np.full((3, 2, 5, 3), [0.9, 0.06, 0.04], np.float32)
    run = Recorded(said)
    found = Stages((1, 0, 2), (0.8, 0.8), (False, True, False)).answer(run, 5, 2, 3)
    np.testing.assert_allclose(found, said[1, 0], atol=1e-7)
    assert run.runs.sum(axis=(1, 2)).tolist() == [0, 10, 0]


def test_a_fold_that_is_sure_of_every_image_is_not_asked_for_another() -> None:
    said = np.full((3, 2, 5, 3), [0.5, 0.3, 0.2], np.float32)
    said[1, 0] = [0.9, 0.06, 0.04]
    run = Recorded(said)
    found = Stages((1, 0, 2), (0.8, 0.8), (False, False, False)).answer(run, 5, 2, 3)
    np.testing.assert_allclose(found, (said[1, 0] + said[1, 1]) / 2, atol=1e-7)
    assert run.runs.sum(axis=2).tolist() == [[0, 5], [5, 5], [0, 5]]
