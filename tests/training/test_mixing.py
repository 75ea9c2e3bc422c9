"""Mixed images carry mixed labels, in the same shares."""

from __future__ import annotations

import pytest
import torch

from ensembler.training.mixing import mix


def _batch(n: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Image i is i everywhere and of class i: what is mixed can be read off."""
    images = torch.arange(n, dtype=torch.float32)[:, None, None, None].expand(n, 3, 20, 30).clone()
    return images, torch.eye(n)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_labels_sum_to_one_inputs_stay_and_the_seed_decides(mixup: float, cutmix: float) -> None:
    images, targets = _batch()
    before = images.clone(), targets.clone()
    mixed, labels = mix(images, targets, mixup, cutmix, _generator())
    torch.testing.assert_close(labels.sum(1), torch.ones(32))
    assert (labels >= 0).all()
    assert torch.equal(images, before[0])
    assert torch.equal(targets, before[1])
    again = mix(images, targets, mixup, cutmix, _generator())
    assert torch.equal(mixed, again[0])
    assert torch.equal(labels, again[1])
    assert not torch.equal(mixed, mix(images, targets, mixup, cutmix, _generator(1))[0])


def test_mixup_blends_pixels_and_labels_in_one_share_an_image() -> None:
    images, targets = _batch()
    mixed, labels = mix(images, targets, 1.0, 0.0, _generator())
    values = torch.arange(32, dtype=torch.float32)
    torch.testing.assert_close(mixed[:, 0, 0, 0], labels @ values)
    assert len(labels.max(1).values.unique()) > 20  # each its own share


def test_cutmix_counts_the_pixels_it_pastes() -> None:
    images, targets = _batch()
    mixed, labels = mix(images, targets, 0.0, 1.0, _generator())
    own = (mixed == images).float().mean((1, 2, 3))
    torch.testing.assert_close(labels.diagonal(), own)
    assert ((mixed == images).any(0)).any()
    pasted = [(mixed[i] != images[i])[0] for i in range(32)]
    for mask in pasted:  # a rectangle: the outer product of its rows and columns
        assert torch.equal(mask, mask.any(1)[:, None] & mask.any(0)[None, :])
    assert len({float(m.float().mean()) for m in pasted}) > 15


def test_with_both_on_each_batch_is_of_one_kind_and_both_kinds_come() -> None:
    images, targets = _batch()
    kinds = set()
    for seed in range(20):
        mixed, _ = mix(images, targets, 1.0, 1.0, _generator(seed))
        kinds.add(bool((mixed == mixed.round()).all()))  # CutMix leaves whole numbers
    assert kinds == {True, False}


def test_off_is_off_and_draws_nothing() -> None:
    images, targets = _batch()
    generator = _generator()
    mixed, labels = mix(images, targets, 0.0, 0.0, generator)
    assert mixed is images
    assert labels is targets
    assert torch.equal(generator.get_state(), _generator().get_state())


def _shares(mixup: float, cutmix: float, n: int = 2000) -> torch.Tensor:
    """What each image keeps of itself."""
    _, labels = mix(torch.zeros(n, 3, 16, 16), torch.eye(n), mixup, cutmix, _generator())
    return labels.diagonal()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_the_shares_of_mixup_are_of_its_beta_distribution(alpha: float) -> None:
    shares = _shares(alpha, 0.0)
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(shares.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.15)


def test_each_image_is_mixed_into_one_other() -> None:
    """The partners are a permutation, so no image of a batch counts more than another."""
    _, labels = mix(torch.zeros(64, 3, 16, 16), torch.eye(64), 1.0, 0.0, _generator())
    others = labels.clone().fill_diagonal_(0) > 0
    assert int(others.sum(0).max()) == int(others.sum(1).max()) == 1
    assert int(others.sum()) > 55


def test_a_large_alpha_of_cutmix_pastes_half_an_image_less_what_hangs_over() -> None:
    shares = _shares(0.0, 100.0)
    assert 0.5 <= float(shares.mean()) < 0.75
    assert float(shares.min()) > 0.25


def test_boxes_come_from_everywhere() -> None:
    images, targets = _batch(400)
    mixed, _ = mix(images, targets, 0.0, 1.0, _generator())
    pasted = (mixed != images)[:, 0].float().mean(0)  # how often each pixel is pasted
    assert float(pasted.min()) > 0.1
    assert float(pasted.max()) < 0.6
