"""What the rows of a boosted candidate weigh, and that a fold's weights know nothing of its holdout."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from ensembler.training.candidate import CellJob, CellResult, TrainingData
from ensembler.training.emphasis import FLATTEST, LIMITS, flattened, fold_emphasis, loss_weights, row_loss
from ensembler.training.loop import train_cell

Job = Callable[..., CellJob]
CPU = torch.device("cpu")


# ---------------------------------------------------------------------- arithmetic


def test_weights_have_mean_one_and_grow_with_the_loss_within_their_limits() -> None:
    rng = np.random.default_rng(0)
    for scale in (1e-7, 1.0, 1e3):
        loss = scale * rng.exponential(size=500) ** 3
        weights = loss_weights(loss)
        assert weights.mean() == pytest.approx(1, abs=1e-9)
        assert weights.min() >= LIMITS[0]
        assert weights.max() <= LIMITS[1]
        assert (np.diff(weights[np.argsort(loss)]) >= 0).all()
        inside = (weights > LIMITS[0]) & (weights < LIMITS[1])
        assert inside.sum() > 50
        ratio = weights[inside] / loss[inside]
        np.testing.assert_allclose(ratio, ratio[0])  # in proportion


def test_an_error_weighs_more_than_a_right_answer_by_hand() -> None:
    np.testing.assert_allclose(loss_weights(np.array([0.1, 0.1, 0.1, 0.5])), [0.5, 0.5, 0.5, 2.5])
    one_outlier = loss_weights(np.array([0.1] * 99 + [50.0]))
    assert one_outlier[-1] == LIMITS[1]
    np.testing.assert_allclose(one_outlier[:-1], (100 - LIMITS[1]) / 99)


@pytest.mark.parametrize("loss", [0.0, 0.7])
def test_rows_of_equal_loss_weigh_the_same(loss: float) -> None:
    np.testing.assert_allclose(loss_weights(np.full(10, loss)), 1)


def test_weights_of_a_loss_that_is_almost_all_zero_still_have_mean_one() -> None:
    weights = loss_weights(np.array([0.0] * 999 + [1.0]))
    assert weights.mean() == pytest.approx(1)
    assert weights[-1] == LIMITS[1]


def test_probabilities_are_flattened_to_a_loss_and_their_order_stays() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 300)
    logits = rng.normal(size=(300, 4))
    logits[np.arange(300), labels] += 4
    proba = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    own = row_loss(proba, labels).mean()
    flat = flattened(proba, labels, 0.6)
    assert own < 0.5
    assert row_loss(flat, labels).mean() == pytest.approx(0.6, abs=1e-9)
    np.testing.assert_allclose(flat.sum(1), 1)
    np.testing.assert_array_equal(np.argsort(flat, 1), np.argsort(proba, 1))
    np.testing.assert_array_equal(flattened(proba, labels, own / 2), proba)  # loses as much already
    flattest = flattened(proba, labels, 99.0)
    np.testing.assert_allclose(np.log(flattest[0] / flattest[0, 0]), (logits[0] - logits[0, 0]) / FLATTEST)


# ---------------------------------------------------------------------- in a fold


def _boosted(parts: Sequence[CellJob], fold: int = 0, **changes: Any) -> CellJob:
    ids = tuple(part.candidate.id for part in parts)
    recipe = dataclasses.replace(parts[0].candidate.recipe, **changes)
    candidate = dataclasses.replace(parts[0].candidate, recipe=recipe, kind="boosted", parts=ids)
    return CellJob(candidate, fold)


def _same(a: CellResult, b: CellResult) -> bool:
    losses = [[(e.train_loss, e.monitor_loss) for e in r.history] for r in (a, b)]
    return (
        losses[0] == losses[1]
        and a.temperature == b.temperature
        and all(np.array_equal(a.weights[k], b.weights[k]) for k in a.weights)
    )


def test_rows_that_the_ensemble_gets_wrong_weigh_more(
    data: TrainingData, job: Job, finish: Callable[..., TrainingData]
) -> None:
    labels = data.labels.copy()
    train, monitor, holdout = data.folds[0]
    wrong = train[:3]
    labels[wrong] = (labels[wrong] + 1) % 3  # no network that has learned the colours believes these
    data = dataclasses.replace(data, labels=labels)
    parts = [job(epochs=n, augment=0.0) for n in (6, 7)]
    emphasis = fold_emphasis(_boosted(parts), finish(data, *parts), CPU)
    assert emphasis.dtype == np.float32
    assert emphasis[train].mean() == pytest.approx(1, abs=1e-6)
    assert not emphasis[monitor].any()
    assert not emphasis[holdout].any()
    right = np.setdiff1d(train, wrong)
    assert emphasis[wrong].min() > emphasis[right].max()
    assert emphasis[wrong].mean() > 1.5 * emphasis[right].mean()


def test_a_fold_s_weights_and_cell_know_nothing_of_its_holdout(
    data: TrainingData, job: Job, finish: Callable[..., TrainingData]
) -> None:
    """Every model of that fold is trained again on the changed data; the Cells of other folds are not even there."""
    holdout = data.folds[0][2]
    labels, pixels = data.labels.copy(), np.load(data.pixels)
    labels[holdout] = (labels[holdout] + 1) % 3
    pixels[holdout] = 7
    np.save(data.pixels.with_name("changed.npy"), pixels)
    changed = dataclasses.replace(data, labels=labels, pixels=data.pixels.with_name("changed.npy"))
    parts = [job(epochs=1), job("full", epochs=2)]
    before, after = finish(data, *parts), finish(changed, *parts)
    boosted = _boosted(parts)
    np.testing.assert_array_equal(fold_emphasis(boosted, before, CPU), fold_emphasis(boosted, after, CPU))
    first, second = train_cell(boosted, before), train_cell(boosted, after)
    assert _same(first, second)
    assert not np.array_equal(first.proba, second.proba)  # other pixels, the same network


def test_weights_change_what_is_learned_and_who_it_is(
    data: TrainingData, job: Job, finish: Callable[..., TrainingData], monkeypatch: pytest.MonkeyPatch
) -> None:
    part = job(epochs=3)
    ready = finish(data, part)
    boosted = _boosted([part])
    weighed = train_cell(boosted, ready)
    ones = np.ones(len(data.labels), np.float32)
    monkeypatch.setattr("ensembler.training.emphasis.fold_emphasis", lambda *_: ones)
    plain = train_cell(boosted, ready)
    assert not _same(weighed, plain)
    monkeypatch.undo()
    assert boosted.candidate.id != part.candidate.id
    assert boosted.candidate.name.startswith("test_resnet-full-boosted-")
    other = dataclasses.replace(boosted.candidate, parts=("someone else",))
    assert other.id != boosted.candidate.id
    assert boosted.key("x") != dataclasses.replace(boosted, source="another part's temperature").key("x")


@pytest.mark.parametrize("changes", [{"mixup": 0.4}, {"class_weights": "balanced"}, {"focal": 2.0}])
def test_weights_go_with_every_loss(
    changes: dict[str, Any], data: TrainingData, job: Job, finish: Callable[..., TrainingData]
) -> None:
    part = job(epochs=1)
    ready = finish(data, part)
    result = train_cell(_boosted([part], **changes), ready)
    assert np.isfinite(result.history[-1].train_loss)
    assert _same(result, train_cell(_boosted([part], **changes), ready))
