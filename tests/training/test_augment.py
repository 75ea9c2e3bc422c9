"""Augmentation: what it must not change, and that it changes each image by itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ensembler.errors import ConfigError
from ensembler.training import augment as module
from ensembler.training.augment import BatchAugment, _hue_rotation, erased_boxes
from ensembler.training.recipe import Recipe

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _images(n: int = 6, size: int = 20, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8))


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _reference(images: Tensor) -> Tensor:
    return ((images.float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)


def test_plain_is_the_normalisation_of_torchvision() -> None:
    torch.testing.assert_close(
        BatchAugment(MEAN, STD).plain(_images()), _reference(_images()), atol=1e-5, rtol=1e-5
    )


def test_no_strength_and_no_flip_is_plain() -> None:
    augment = BatchAugment(MEAN, STD, strength=0, flip=False)
    assert torch.equal(augment(_images(), _generator()), augment.plain(_images()))


def test_the_same_seed_gives_the_same_pixels_and_another_seed_others() -> None:
    augment = BatchAugment(MEAN, STD)
    first = augment(_images(), _generator(3))
    assert torch.equal(first, augment(_images(), _generator(3)))
    assert not torch.allclose(first, augment(_images(), _generator(4)))


def test_a_flip_alone_is_an_exact_mirror_of_about_half_the_images() -> None:
    augment = BatchAugment(MEAN, STD, strength=0, flip=True)
    images = _images(64)
    out, plain = augment(images, _generator()), augment.plain(images)
    kept = torch.tensor([torch.allclose(a, b, atol=1e-4) for a, b in zip(out, plain, strict=True)])
    mirrored = torch.tensor(
        [torch.allclose(a, b.flip(2), atol=1e-4) for a, b in zip(out, plain, strict=True)]
    )
    assert torch.equal(kept, ~mirrored)
    assert 20 < int(mirrored.sum()) < 44


def test_without_flip_no_image_is_mirrored() -> None:
    warp = BatchAugment(MEAN, STD, flip=False).affine(500, _generator())
    assert (warp[:, 0, 0] > 0).all()
    flipped = BatchAugment(MEAN, STD, flip=True).affine(500, _generator())[:, 0, 0] < 0
    assert 200 < int(flipped.sum()) < 300


def test_flipping_changes_nothing_else() -> None:
    plain = BatchAugment(MEAN, STD, flip=False).affine(50, _generator())
    flipped = BatchAugment(MEAN, STD, flip=True).affine(50, _generator())
    assert torch.equal(plain.abs()[:, :, 1:], flipped.abs()[:, :, 1:])
    assert torch.equal(plain[:, :, 0].abs(), flipped[:, :, 0].abs())


def test_the_colour_matrix_of_no_change_is_the_normalisation() -> None:
    augment = BatchAugment(MEAN, STD, strength=0)
    matrix = augment.colour(4, _generator())
    pixels = torch.rand(4, 3, 100) * 255
    out = matrix[:, :, :3] @ pixels + matrix[:, :, 3:]
    expected = (pixels / 255 - torch.tensor(MEAN)[:, None]) / torch.tensor(STD)[:, None]
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("angle", [-1.0, 0.2, math.pi])
def test_a_turn_of_the_hue_keeps_greys_and_lengths(angle: float) -> None:
    turn = _hue_rotation(torch.tensor([angle]))[0]
    torch.testing.assert_close(turn @ torch.ones(3), torch.ones(3))
    torch.testing.assert_close(turn @ turn.T, torch.eye(3), atol=1e-6, rtol=0)
    assert torch.linalg.det(turn) == pytest.approx(1)


def test_a_third_of_a_turn_of_the_hue_moves_red_to_green() -> None:
    turn = _hue_rotation(torch.tensor([2 * math.pi / 3]))[0]
    torch.testing.assert_close(turn @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]), atol=1e-6, rtol=0)


def test_a_grey_image_stays_grey() -> None:
    augment = BatchAugment((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    grey = torch.full((8, 16, 16, 3), 90, dtype=torch.uint8)
    out = augment(grey, _generator())
    assert float((out.amax(1) - out.amin(1)).max()) < 1e-4
    assert len(torch.unique(out[:, 0, 0, 0])) > 4  # brightness and contrast did change


def test_each_image_draws_its_own_parameters() -> None:
    augment = BatchAugment(MEAN, STD)
    same = _images(1).expand(5, -1, -1, -1).contiguous()
    out = augment(same, _generator())
    for i in range(5):
        for j in range(i):
            assert not torch.allclose(out[i], out[j], atol=1e-2)
    warp, colour = augment.affine(100, _generator()), augment.colour(100, _generator())
    assert len(torch.unique(warp[:, 0, 0])) == len(torch.unique(colour[:, 0, 0])) == 100


def test_an_image_does_not_depend_on_the_pixels_beside_it() -> None:
    augment = BatchAugment(MEAN, STD)
    images, others = _images(4), _images(4, seed=1)
    others[0] = images[0]
    torch.testing.assert_close(augment(images, _generator())[0], augment(others, _generator())[0])


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_strength_scales_the_ranges(strength: float) -> None:
    augment = BatchAugment(MEAN, STD, strength=strength, flip=False)
    warp = augment.affine(4000, _generator())
    shift = warp[:, :, 2].abs().max()
    assert shift <= module.TRANSLATION * strength
    assert shift > 0.9 * module.TRANSLATION * strength
    angle = torch.atan2(warp[:, 1, 0], warp[:, 0, 0]).abs().max()
    assert angle <= module.ROTATION * strength + 1e-5
    assert angle > 0.9 * module.ROTATION * strength


def test_a_rotation_matrix_turns_by_its_angle(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ASPECT", "TRANSLATION"):
        monkeypatch.setattr(module, name, 0.0)
    monkeypatch.setattr(module, "SCALE", (1.0, 1.0))
    linear = BatchAugment(MEAN, STD, flip=False).affine(50, _generator())[:, :, :2]
    torch.testing.assert_close(
        linear @ linear.transpose(1, 2), torch.eye(2).expand(50, 2, 2), atol=1e-5, rtol=0
    )


def test_the_input_is_not_changed() -> None:
    images = _images()
    before = images.clone()
    BatchAugment(MEAN, STD)(images, _generator())
    assert torch.equal(images, before)


POLICIES = ("standard", "trivial", "rand")


@pytest.mark.parametrize("policy", POLICIES)
def test_each_policy_keeps_the_shape_and_the_input_and_follows_the_seed(policy: str) -> None:
    augment = BatchAugment(MEAN, STD, policy=policy, erasing=0.5)
    images = _images(32)
    before = images.clone()
    out = augment(images, _generator(3))
    assert out.shape == (32, 3, 20, 20)
    assert out.dtype == torch.float32
    assert torch.equal(images, before)
    assert torch.equal(out, augment(images, _generator(3)))
    assert not torch.allclose(out, augment(images, _generator(4)))
    lowest, highest = _reference(
        torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 1, 1, 3)
    )
    if policy != "standard":  # whose colours may leave the range
        assert (out >= lowest - 1e-4).all()
        assert (out <= highest + 1e-4).all()


@pytest.mark.parametrize("policy", POLICIES)
def test_no_policy_mixes_images_of_a_batch(policy: str) -> None:
    augment = BatchAugment(MEAN, STD, policy=policy, rand_ops=3, erasing=0.5)
    images, others = _images(64), _images(64, seed=1)
    others[::3] = images[::3]
    first, second = augment(images, _generator()), augment(others, _generator())
    torch.testing.assert_close(first[::3], second[::3], atol=1e-4, rtol=0)


def test_a_policy_without_flip_differs_by_the_mirror_alone() -> None:
    """At magnitude 0 hardly anything else happens, and what does happen does not know left from right."""
    images, options = _images(200), {"rand_ops": 1, "rand_magnitude": 0.0}
    turned = BatchAugment(MEAN, STD, policy="rand", **options)(images, _generator())
    straight = BatchAugment(MEAN, STD, flip=False, policy="rand", **options)(images, _generator())
    pairs = list(zip(turned, straight, strict=True))
    same = torch.tensor([torch.allclose(a, b, atol=1e-3) for a, b in pairs])
    mirrored = torch.tensor([torch.allclose(a, b.flip(2), atol=1e-3) for a, b in pairs])
    assert torch.equal(same, ~mirrored)
    assert 70 < int(mirrored.sum()) < 130


def test_an_unknown_policy_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown policy 'trivail'; did you mean 'trivial'"):
        BatchAugment(MEAN, STD, policy="trivail")


def test_a_recipe_hands_over_everything_that_it_says_about_augmentation() -> None:
    recipe = Recipe(augment=0.7, flip=False, policy="rand", rand_ops=3, rand_magnitude=12.0, erasing=0.2)
    by_recipe = BatchAugment.from_recipe(MEAN, STD, recipe)
    by_hand = BatchAugment(MEAN, STD, 0.7, False, policy="rand", rand_ops=3, rand_magnitude=12.0, erasing=0.2)
    assert torch.equal(by_recipe(_images(32), _generator()), by_hand(_images(32), _generator()))
    for change in ({"policy": "trivial"}, {"rand_ops": 1}, {"rand_magnitude": 3.0}, {"erasing": 0.9}):
        values = {"policy": "rand", "rand_ops": 3, "rand_magnitude": 12.0, "erasing": 0.2} | change
        other = BatchAugment(MEAN, STD, 0.7, False, **values)  # type: ignore[arg-type]
        assert not torch.equal(other(_images(32), _generator()), by_hand(_images(32), _generator()))


@pytest.mark.parametrize("policy", POLICIES)
def test_erasing_changes_the_erased_rectangles_and_nothing_else(policy: str) -> None:
    images = _images(64)
    whole = BatchAugment(MEAN, STD, policy=policy)(images, _generator())
    erased = BatchAugment(MEAN, STD, policy=policy, erasing=0.5)(images, _generator())
    gone = (erased == 0).all(1)
    torch.testing.assert_close(erased, torch.where(gone[:, None], 0.0, whole), atol=0, rtol=0)
    for mask in gone[gone.flatten(1).float().mean(1) > 0.015]:
        holes = (mask.any(1)[:, None] & mask.any(0)[None, :]).sum()
        assert int(mask.sum()) <= int(holes)
    assert 15 < int((gone.flatten(1).float().mean(1) > 0.015).sum()) < 49


def test_erasing_alone_cuts_holes_into_the_plain_image() -> None:
    augment = BatchAugment(MEAN, STD, strength=0, flip=False, erasing=1.0)
    images = _images(8)
    out, plain = augment(images, _generator()), augment.plain(images)
    gone = (out == 0).all(1)
    for mask in gone:
        assert torch.equal(mask, mask.any(1)[:, None] & mask.any(0)[None, :])  # one rectangle
        assert 0.01 < float(mask.float().mean()) < 0.36
    assert torch.equal(out, torch.where(gone[:, None], 0.0, plain))


def test_erased_boxes_have_the_areas_and_aspects_of_the_paper_and_lie_inside() -> None:
    boxes = erased_boxes(4000, 400, 300, 0.25, _generator())
    drawn = boxes[boxes[:, 2] > 0].double()
    assert 850 < len(drawn) < 1150
    assert (boxes[boxes[:, 2] == 0] == 0).all()
    top, left, height, width = drawn.T
    assert (drawn >= 0).all()
    assert (top + height <= 400).all()
    assert (left + width <= 300).all()
    area, aspect = height * width / (400 * 300), height / width
    assert 0.019 < area.min() < 0.03
    assert 0.32 < area.max() < 0.332
    assert 0.29 < aspect.min() < 0.32
    assert 3.1 < aspect.max() < 3.45
    assert 0.45 < float((aspect > 1).double().mean()) < 0.55  # no side is preferred
    assert top.std() > 60
    assert left.std() > 40
