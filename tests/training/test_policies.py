"""TrivialAugment and RandAugment: what is drawn, and that a batch gets what each image alone would."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from ensembler.training import operations, policies
from ensembler.training.candidate import CellJob, TrainingData
from ensembler.training.loop import train_cell
from ensembler.training.policies import OPERATIONS, RAND, WIDE, Draws, Ranges

FILL = torch.tensor([120.0, 110.0, 100.0])


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _planes(n: int = 4, height: int = 24, width: int = 32) -> Tensor:
    return torch.randint(0, 256, (n, 3, height, width), generator=_generator()).float()


def _draws(rounds: list[list[tuple[str, float]]], ranges: Ranges = WIDE) -> Draws:
    """Rounds of (operation, signed level) of each image."""
    operation = torch.tensor([[OPERATIONS.index(name) for name, _ in images] for images in rounds])
    amount = torch.tensor([[level for _, level in images] for images in rounds])
    return Draws(operation, amount.abs(), torch.where(amount < 0, -1.0, 1.0), ranges)


def test_trivial_augment_draws_operations_magnitudes_and_signs_evenly() -> None:
    draws = policies.trivial_augment(14_000, _generator())
    assert draws.operation.shape == draws.level.shape == draws.sign.shape == (1, 14_000)
    counts = torch.bincount(draws.operation[0], minlength=14)
    assert len(counts) == len(OPERATIONS) == 14
    assert 850 < int(counts.min()) <= int(counts.max()) < 1150
    levels, times = torch.unique(draws.level, return_counts=True)
    torch.testing.assert_close(levels, torch.arange(31) / 30)
    assert int(times.min()) > 370
    assert abs(float(draws.sign.mean())) < 0.03
    assert draws.ranges is WIDE


def test_rand_augment_draws_each_round_anew_at_one_magnitude() -> None:
    draws = policies.rand_augment(5000, 3, 12.0, _generator())
    assert draws.operation.shape == (3, 5000)
    assert torch.unique(draws.level).tolist() == [pytest.approx(0.4)]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert 0.05 < float((draws.operation[a] == draws.operation[b]).float().mean()) < 0.1  # 1 in 14
        assert 0.45 < float((draws.sign[a] == draws.sign[b]).float().mean()) < 0.55
    assert draws.ranges is RAND


def _warp(name: str, amount: float, planes: Tensor, ranges: Ranges = WIDE) -> Tensor:
    operation = torch.tensor([OPERATIONS.index(name)])
    matrix = policies.warp_matrices(operation, torch.tensor([amount]), ranges, *planes.shape[2:])
    return operations.affine(planes, matrix[:, :2])


@pytest.mark.parametrize("amount", [-0.7, 0.3])
@pytest.mark.parametrize("name", ["shear_x", "shear_y", "translate_x", "translate_y", "rotate"])
@pytest.mark.parametrize("ranges", [WIDE, RAND], ids=["wide", "rand"])
def test_warps_are_those_of_torchvision(name: str, amount: float, ranges: Ranges) -> None:
    planes = _planes(1)
    slope = math.degrees(math.atan(ranges.shear * amount))
    move, shear = [0.0, 0.0], [0.0, 0.0]
    if name.startswith("shear"):
        shear["xy".index(name[-1])] = slope
    elif name.startswith("translate"):
        side = planes.shape[3] if name[-1] == "x" else planes.shape[2]
        move["xy".index(name[-1])] = ranges.translate * side * amount
    bilinear = InterpolationMode.BILINEAR
    if name == "rotate":
        expected = reference.rotate(planes, math.degrees(ranges.rotate) * amount, bilinear)
    else:
        expected = reference.affine(planes, 0.0, move, 1.0, shear, bilinear, center=[0.0, 0.0])
    torch.testing.assert_close(_warp(name, amount, planes, ranges), expected, atol=0.05, rtol=0)


def test_a_wide_translation_is_32_pixels_at_most() -> None:
    image = torch.zeros(1, 3, 4, 224)
    image[..., 100] = 1
    assert int(_warp("translate_x", 1.0, image)[0, 0, 2].argmax()) == 132
    small = torch.zeros(1, 3, 4, 48)
    small[..., 20] = 1
    assert int(_warp("translate_x", 1.0, small)[0, 0, 2].argmax()) == 36


def test_a_whole_turn_of_small_ones_comes_back_and_costs_one_interpolation() -> None:
    """Neighbouring warps compose: two that undo each other leave every pixel as it was."""
    planes = _planes(2)
    rounds = [[("rotate", 0.5), ("shear_x", 0.6)], [("identity", 1.0), ("identity", 1.0)],
              [("rotate", -0.5), ("shear_x", -0.6)]]  # fmt: skip
    out = policies.apply(planes.clone(), _draws(rounds), FILL)
    torch.testing.assert_close(out, planes, atol=0.05, rtol=0)


def test_the_order_of_the_rounds_is_kept_around_other_operations() -> None:
    """A warp brings in the fill colour: an operation after it sees that, one before it does not."""
    white = torch.full((2, 3, 24, 32), 255.0)
    rounds = [[("translate_x", 1.0), ("solarize", 1.0)], [("solarize", 1.0), ("translate_x", 1.0)]]
    after, before = policies.apply(white, _draws(rounds), FILL)
    torch.testing.assert_close(after[:, 5, 2], 255 - FILL)
    torch.testing.assert_close(before[:, 5, 2], FILL)
    assert float(after[:, 5, 30].max()) == float(before[:, 5, 30].max()) == 0


def test_a_chain_is_that_of_torchvision() -> None:
    planes = _planes(1)
    rounds = [[("equalize", 0.0)], [("posterize", 0.5)], [("solarize", 0.5)], [("brightness", -0.5)]]
    out = policies.apply(planes.clone(), _draws(rounds), FILL)
    image = reference.posterize(reference.equalize(planes[0].byte()), 5)
    image = reference.solarize(image, 127.5)
    torch.testing.assert_close(out[0], image.float() * (1 - 0.99 * 0.5))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("brightness", lambda x: reference.adjust_brightness(x, 1.495)),
        ("contrast", lambda x: reference.adjust_contrast(x, 1.495)),
        ("saturation", lambda x: reference.adjust_saturation(x, 1.495)),
        ("sharpness", lambda x: reference.adjust_sharpness(x, 1.495)),
        ("posterize", lambda x: reference.posterize(x, 5)),
        ("solarize", lambda x: reference.solarize(x, 127.5)),
        ("autocontrast", reference.autocontrast),
        ("equalize", reference.equalize),
        ("identity", lambda x: x),
    ],
)
def test_each_operation_reaches_its_image_with_its_magnitude(name: str, expected: object) -> None:
    """Half of the highest magnitude, within the rounding of torchvision's whole numbers."""
    planes = (_planes(3) / 2 + 30).round()
    others = [("identity", 0.0), (name, 0.5), ("identity", 0.0)]
    out = policies.apply(planes.clone(), _draws([others]), FILL)
    assert torch.equal(out[0], planes[0])
    assert torch.equal(out[2], planes[2])
    wanted = expected(planes[1].byte()).float()  # type: ignore[operator]
    torch.testing.assert_close(out[1], wanted, atol=1.9, rtol=0)
    assert (name == "identity") == torch.equal(out[1], planes[1])


@pytest.mark.parametrize("policy", ["trivial", "rand"])
def test_a_batch_gets_what_each_image_alone_would(policy: str) -> None:
    planes = _planes(60)
    draws = (
        policies.trivial_augment(60, _generator(1))
        if policy == "trivial"
        else policies.rand_augment(60, 3, 20.0, _generator(1))
    )
    batch = policies.apply(planes.clone(), draws, FILL)
    alone = torch.cat(
        [
            policies.apply(
                planes[i : i + 1].clone(),
                Draws(draws.operation[:, [i]], draws.level[:, [i]], draws.sign[:, [i]], draws.ranges),
                FILL,
            )
            for i in range(60)
        ]
    )
    torch.testing.assert_close(batch, alone, atol=1e-2, rtol=0)
    assert not torch.allclose(batch, planes, atol=1)


def test_magnitude_zero_leaves_all_but_the_operations_without_one() -> None:
    planes = _planes(400, 8, 8).clamp(max=254)
    draws = policies.rand_augment(400, 1, 0.0, _generator())
    changed = (policies.apply(planes.clone(), draws, FILL) - planes).abs().amax((1, 2, 3)) > 1e-2
    without = torch.tensor([OPERATIONS[i] in ("autocontrast", "equalize") for i in draws.operation[0]])
    assert not (changed & ~without).any()
    assert changed.any()


@pytest.mark.parametrize("policy", ["trivial", "rand"])
def test_a_cell_follows_its_policy_and_has_the_same_bits_each_time(
    policy: str, data: TrainingData, job: Callable[..., CellJob]
) -> None:
    first, again, standard = (
        train_cell(job(policy=p, erasing=0.25, mixup=0.2, cutmix=1.0), data)
        for p in (policy, policy, "standard")
    )
    np.testing.assert_array_equal(first.proba, again.proba)
    assert not np.array_equal(first.proba, standard.proba)
