"""A combiner over fold models: what was cross-validated is what answers."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ensembler.combiners import Combiner, make_combiner
from ensembler.combiners.fold_models import average_folds, combine_folds
from ensembler.errors import CombinerError
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions

MEMBERS, CLASSES = ["a", "b"], ["x", "y", "z"]


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float32]:
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True), np.float32)


def _world(n: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Labels, and (members, folds, n, classes) of fold models that share a signal and err by themselves."""
    labels = rng.integers(3, size=n)
    signal = 1.5 * np.eye(3)[labels] + rng.normal(size=(n, 3))
    own = rng.normal(size=(2, 5, n, 3)) * np.array([1.0, 1.6])[:, None, None, None]
    return labels, _softmax(signal + own)


def _fitted(key: str, rng: np.random.Generator) -> tuple[Combiner, Predictions]:
    labels, proba = _world(1500, rng)
    fold = np.arange(1500) % 5
    oof = Predictions.from_arrays(
        proba[:, fold, np.arange(1500)], labels, fold, members=MEMBERS, classes=CLASSES
    )
    return make_combiner(key).fit(oof), oof


def test_for_a_weighted_mean_the_order_makes_no_difference() -> None:
    rng = np.random.default_rng(0)
    combiner, _ = _fitted("greedy", rng)
    labels, proba = _world(200, rng)
    averaged = Predictions.from_arrays(
        average_folds(proba), labels, members=MEMBERS, classes=CLASSES, split="test"
    )
    np.testing.assert_allclose(
        combine_folds(combiner, proba, MEMBERS, CLASSES),
        combiner.predict(averaged).proba[0],
        atol=1e-6,
    )


def test_a_stacker_is_given_what_it_was_fitted_on() -> None:
    """Each fold's answer is as good as cross-validation said; their average is better."""
    rng = np.random.default_rng(1)
    combiner, oof = _fitted("stacking", rng)
    labels, proba = _world(4000, rng)
    loss = METRICS["log_loss"]
    by_fold = loss(labels, combine_folds(combiner, proba, MEMBERS, CLASSES))
    one = [loss(labels, combine_folds(combiner, proba[:, [f]], MEMBERS, CLASSES)) for f in range(5)]
    assert by_fold < min(one)
    assert np.mean(one) == pytest.approx(loss(oof.labels, combiner.predict(oof).proba[0]), abs=0.03)


def test_one_fold_is_the_combiner_itself_and_members_are_matched_by_name() -> None:
    rng = np.random.default_rng(2)
    combiner, oof = _fitted("stacking", rng)
    rows = oof.proba[:, None]
    expected = combiner.predict(oof).proba[0]
    np.testing.assert_array_equal(combine_folds(combiner, rows, MEMBERS, CLASSES), expected)
    swapped = combine_folds(combiner, rows[::-1], MEMBERS[::-1], CLASSES)
    np.testing.assert_array_equal(swapped, expected)
    with pytest.raises(CombinerError, match="unknown"):
        combine_folds(combiner, rows, ["a", "other"], CLASSES)
