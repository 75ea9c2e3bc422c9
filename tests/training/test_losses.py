"""The loss by hand, and what balanced means."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ensembler.training.candidate import TrainingData
from ensembler.training.losses import Goals, TrainingLoss, balanced_weights, epoch_order
from ensembler.training.recipe import Recipe

CPU = torch.device("cpu")
LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5], [0.3, 0.2, 0.1]])
LABELS = torch.tensor([0, 1, 0])
COUNTS = np.array([6, 3, 0])


def test_without_options_it_is_cross_entropy() -> None:
    loss = TrainingLoss(Recipe(label_smoothing=0.1), COUNTS, CPU)
    torch.testing.assert_close(loss(LOGITS, LABELS), F.cross_entropy(LOGITS, LABELS, label_smoothing=0.1))


def test_the_focal_loss_by_hand() -> None:
    loss = TrainingLoss(Recipe(label_smoothing=0.0, focal=2.0), COUNTS, CPU)
    p = LOGITS.softmax(1)[torch.arange(3), LABELS]
    torch.testing.assert_close(loss(LOGITS, LABELS), (-((1 - p) ** 2) * p.log()).mean())


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_vanishing_focal_weight_is_cross_entropy_for_hard_and_for_mixed_labels(smoothing: float) -> None:
    loss = TrainingLoss(Recipe(label_smoothing=smoothing, focal=1e-9), COUNTS, CPU)
    plain = TrainingLoss(Recipe(label_smoothing=smoothing), COUNTS, CPU)
    mixed = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.2, 0.0, 0.8]])
    torch.testing.assert_close(loss(LOGITS, LABELS), plain(LOGITS, LABELS))
    torch.testing.assert_close(loss(LOGITS, mixed), plain(LOGITS, mixed))


def test_class_weights_count_every_class_the_same_and_an_absent_one_not_at_all() -> None:
    weights = balanced_weights(COUNTS)
    np.testing.assert_allclose(weights * COUNTS, [4.5, 4.5, 0])
    assert weights @ COUNTS == pytest.approx(COUNTS.sum())
    each = F.cross_entropy(LOGITS, LABELS, reduction="none")
    w = torch.from_numpy(weights)[LABELS]
    for recipe in (Recipe(class_weights="balanced", label_smoothing=0.0, focal=f) for f in (0.0, 1e-9)):
        loss = TrainingLoss(recipe, COUNTS, CPU)(LOGITS, LABELS)
        torch.testing.assert_close(loss, (w * each).sum() / w.sum())


def test_natural_sampling_is_a_permutation_and_balanced_sampling_draws_every_class_equally() -> None:
    labels = np.array([0] * 900 + [1] * 90 + [2] * 10 + [1] * 500)
    train = np.arange(1000)  # the last 500 rows are not the fold's to see
    natural = epoch_order(train, labels, "natural", torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(np.sort(natural), train)
    drawn = epoch_order(train, labels, "balanced", torch.Generator().manual_seed(0))
    assert len(drawn) == 1000
    assert drawn.max() < 1000
    np.testing.assert_allclose(np.bincount(labels[drawn]) / 1000, 1 / 3, atol=0.05)
    again = epoch_order(train, labels, "balanced", torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(drawn, again)


MIXED = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.2, 0.0, 0.8]])


@pytest.mark.parametrize("targets", [LABELS, MIXED], ids=["hard", "mixed"])
@pytest.mark.parametrize("class_weights", ["none", "balanced"])
@pytest.mark.parametrize("focal", [0.0, 2.0])
def test_emphasis_of_one_changes_nothing_and_any_other_is_linear(
    targets: torch.Tensor, class_weights: str, focal: float
) -> None:
    loss = TrainingLoss(Recipe(class_weights=class_weights, focal=focal), COUNTS, CPU)
    plain = loss(LOGITS, targets)
    torch.testing.assert_close(loss(LOGITS, targets, torch.ones(3)), plain)
    torch.testing.assert_close(loss(LOGITS, targets, torch.full((3,), 2.5)), 2.5 * plain)
    parts = [loss(LOGITS, targets, torch.eye(3)[i]) for i in range(3)]
    torch.testing.assert_close(
        loss(LOGITS, targets, torch.tensor([0.25, 1.0, 4.0])), 0.25 * parts[0] + parts[1] + 4 * parts[2]
    )


def test_emphasis_by_hand() -> None:
    loss = TrainingLoss(Recipe(label_smoothing=0.0), COUNTS, CPU)
    each = F.cross_entropy(LOGITS, LABELS, reduction="none")
    emphasis = torch.tensor([0.5, 2.0, 0.5])
    torch.testing.assert_close(loss(LOGITS, LABELS, emphasis), (emphasis * each).sum() / 3)


def test_what_mixes_two_targets_mixes_their_emphasis() -> None:
    rows = np.arange(3)
    labels = np.array([0, 1, 2])
    data = TrainingData(
        Path("p"), labels, ("a", "b", "c"), (), "f", {}, Path("f"),
        emphasis=np.array([1.0, 3.0, 0.5], np.float32),
    )  # fmt: skip
    goals = Goals(data, CPU)
    columns = goals.columns(*goals.of(rows))
    targets, emphasis = goals.split(torch.lerp(columns[[1, 2, 0]], columns, 0.75))
    torch.testing.assert_close(targets[0], torch.tensor([0.75, 0.25, 0.0]))
    torch.testing.assert_close(emphasis, torch.tensor([1.5, 2.375, 0.625]))
    plain = Goals(dataclasses.replace(data, emphasis=None), CPU)
    targets, emphasis = plain.of(rows)
    assert emphasis is None
    torch.testing.assert_close(plain.split(plain.columns(targets, None))[0], torch.eye(3))
