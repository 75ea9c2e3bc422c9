"""The batched image operations against torchvision's, which are Pillow's, and against known answers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from ensembler.training import operations


def _images(n: int = 5, height: int = 24, width: int = 32, seed: int = 0) -> Tensor:
    """Whole numbers in 0..255, images of different range and one without any."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, height, width), generator=generator, dtype=torch.uint8)
    images[1] = images[1] // 3 + 40
    images[2, 0] = 77
    images[3] = 130
    return images


FACTORS = torch.tensor([0.01, 0.4, 1.0, 1.3, 1.99])
ONES = torch.ones(5)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda x, f: operations.enhance(x, f, ONES, ONES), reference.adjust_brightness),
        (lambda x, f: operations.enhance(x, ONES, f, ONES), reference.adjust_contrast),
        (lambda x, f: operations.enhance(x, ONES, ONES, f), reference.adjust_saturation),
        (operations.sharpness, reference.adjust_sharpness),
    ],
    ids=["brightness", "contrast", "saturation", "sharpness"],
)
def test_factors_are_those_of_torchvision(
    ours: Callable[[Tensor, Tensor], Tensor], theirs: Callable[[Tensor, float], Tensor]
) -> None:
    """Without its rounding: torchvision is given floats in [0, 1]."""
    images = _images().float()
    expected = torch.stack([theirs(x / 255, float(f)) * 255 for x, f in zip(images, FACTORS, strict=True)])
    torch.testing.assert_close(ours(images, FACTORS), expected, atol=0.05, rtol=0)  # its luma has 4 digits


def test_posterize_keeps_the_bits_of_torchvision() -> None:
    images, bits = _images(), torch.tensor([2.0, 3.0, 4.0, 7.0, 8.0])
    expected = torch.stack([reference.posterize(x, int(b)) for x, b in zip(images, bits, strict=True)])
    assert torch.equal(operations.posterize(images.float(), bits), expected.float())


def test_posterize_takes_a_value_between_two_for_the_nearest() -> None:
    values = torch.tensor([127.4, 127.6, 191.999]).expand(1, 3, 1, 3)
    assert operations.posterize(values, torch.tensor([2.0]))[0, 0, 0].tolist() == [64, 128, 192]


def test_solarize_inverts_what_torchvision_inverts() -> None:
    images, thresholds = _images(), torch.tensor([0.0, 8.0, 128.0, 130.0, 255.0])
    expected = torch.stack([reference.solarize(x, float(t)) for x, t in zip(images, thresholds, strict=True)])
    assert torch.equal(operations.solarize(images.float(), thresholds), expected.float())


def test_autocontrast_stretches_as_torchvision_does() -> None:
    images = _images()
    expected = torch.stack([reference.autocontrast(x.float() / 255) * 255 for x in images])
    torch.testing.assert_close(operations.autocontrast(images.float()), expected, atol=1e-3, rtol=0)
    assert torch.equal(operations.autocontrast(images.float())[3], images[3].float())  # of one colour


@pytest.mark.parametrize("size", [(24, 32), (6, 7), (64, 64)])
def test_equalize_is_that_of_torchvision(size: tuple[int, int]) -> None:
    images = _images(5, *size)
    expected = torch.stack([reference.equalize(x) for x in images])
    assert torch.equal(operations.equalize(images.float()), expected.float())


def test_equalize_flattens_the_histogram() -> None:
    dark = (torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) ** 3 * 90).round()
    counts = torch.histc(operations.equalize(dark)[0, 0], 8, 0, 256)
    assert float(counts.max() / counts.min()) < 3
    assert float(torch.histc(dark[0, 0], 8, 0, 256).min()) == 0


@pytest.mark.parametrize("function", [operations.autocontrast, operations.equalize])
def test_statistics_are_those_of_each_image_alone(function: Callable[[Tensor], Tensor]) -> None:
    images = _images().float()
    assert torch.equal(function(images), torch.cat([function(x[None]) for x in images]))


def test_inputs_are_not_changed() -> None:
    images = _images().float()
    before = images.clone()
    for result in (
        operations.enhance(images, FACTORS, ONES, ONES),
        operations.sharpness(images, FACTORS),
        operations.posterize(images, ONES),
        operations.solarize(images, ONES),
        operations.autocontrast(images),
        operations.equalize(images),
    ):
        assert torch.equal(images, before)
        assert not torch.equal(result, before)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 9)])
def test_the_sampling_grid_is_that_of_affine_grid(height: int, width: int) -> None:
    warp = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.affine_grid(warp, [4, 3, height, width], align_corners=False)
    torch.testing.assert_close(operations.sampling_grid(warp, height, width), expected, atol=1e-5, rtol=1e-5)


def test_erase_sets_the_box_to_zero_and_leaves_the_rest() -> None:
    planes = torch.ones(2, 3, 6, 8)
    operations.erase(planes, torch.tensor([[1, 2, 3, 4], [0, 0, 0, 0]]))
    expected = torch.ones(2, 3, 6, 8)
    expected[0, :, 1:4, 2:6] = 0
    assert torch.equal(planes, expected)
