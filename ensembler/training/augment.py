"""Augmentation of a whole batch on its device, without per-image Python.

The standard policy is one affine warp and one colour matrix. Rotation, scale, aspect, translation and flip compose
into one 2 x 3 matrix an image and cost one interpolation; brightness, contrast, saturation, hue and the backbone's
normalisation compose into one 3 x 4 colour matrix and cost one product. The others are in `policies.py`. Parameters
are drawn on the CPU from a seeded generator: the same seed gives every device the same augmentation.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ConfigError, did_you_mean
from . import policies
from .operations import LUMA, erase, sampling_grid
from .recipe import RECIPE_CHOICES, Recipe

#: Ranges at strength 1. Angles in radians, lengths in halves of the image, colours as factors around 1.
ROTATION = math.radians(15)
SCALE = (0.75, 1.05)  # below 1 the warp zooms in, as a crop does
ASPECT = 0.1
TRANSLATION = 0.1
BRIGHTNESS = 0.25
CONTRAST = 0.25
SATURATION = 0.25
HUE = math.radians(10)

#: Random erasing: share of the image that a rectangle has, and its height in widths.
ERASED_AREA = (0.02, 0.33)
ERASED_ASPECT = (0.3, 1 / 0.3)


#: Bytes of pixels that a CPU takes through all steps at a time, so that each finds them in the cache: half the time.
CACHE_BYTES = 2**20


class BatchAugment:
    """Turns uint8 images into normalised floats, augmented or not.

    Args:
        mean: RGB mean of pixels in [0, 1], as the backbone was pretrained with.
        std: RGB standard deviation, likewise.
        strength: factor on every range of the standard policy; 0 normalises only.
        flip: mirror half of the images left to right.
        policy: "standard", "trivial" (TrivialAugment) or "rand" (RandAugment).
        rand_ops: operations that RandAugment applies to each image.
        rand_magnitude: of each of them, in [0, 30].
        erasing: probability that a rectangle of an image is set to the mean.

    Raises:
        ConfigError: a policy that there is not.
    """

    def __init__(
        self,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        strength: float = 1.0,
        flip: bool = True,
        *,
        policy: str = "standard",
        rand_ops: int = 2,
        rand_magnitude: float = 9.0,
        erasing: float = 0.0,
    ) -> None:
        known = RECIPE_CHOICES["policy"]
        if policy not in known:
            raise ConfigError(f"policy: unknown policy {policy!r}; {did_you_mean(policy, known)}")
        self.strength = strength
        self.flip = flip
        self.policy = policy
        self.rand_ops = rand_ops
        self.rand_magnitude = rand_magnitude
        self.erasing = erasing
        scale = 1 / (255 * torch.tensor(std))
        self._normalise = torch.cat(
            [torch.diag(scale), (-torch.tensor(mean) / torch.tensor(std))[:, None]], 1
        )

    @classmethod
    def from_recipe(
        cls, mean: tuple[float, float, float], std: tuple[float, float, float], recipe: Recipe
    ) -> BatchAugment:
        """As a recipe wants it."""
        return cls(
            mean,
            std,
            recipe.augment,
            recipe.flip,
            policy=recipe.policy,
            rand_ops=recipe.rand_ops,
            rand_magnitude=recipe.rand_magnitude,
            erasing=recipe.erasing,
        )

    def plain(self, images: Tensor) -> Tensor:
        """Normalises uint8 (batch, height, width, 3) to float32 (batch, 3, height, width), channels_last."""
        matrix = self._normalise.to(images.device)
        pixels = images.to(torch.float32) * matrix.diagonal()
        pixels += matrix[:, 3]
        return pixels.permute(0, 3, 1, 2)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augments and normalises uint8 (batch, height, width, 3) to float32 (batch, 3, height, width).

        The generator is one of the CPU. Erasing draws last, and only where it is on.
        """
        if self.policy != "standard":
            pixels = self._by_policy(images, generator)
        elif self.strength == 0 and not self.flip:
            pixels = self.plain(images)
        else:
            pixels = self._standard(images, generator)
        if self.erasing:
            n, height, width = images.shape[:3]
            boxes = erased_boxes(n, height, width, self.erasing, generator)
            erase(pixels, boxes.to(images.device, non_blocking=True))
        return pixels

    def _standard(self, images: Tensor, generator: torch.Generator) -> Tensor:
        n = images.shape[0]
        warp = self.affine(n, generator).to(images.device, non_blocking=True)
        colour = self.colour(n, generator).to(images.device, non_blocking=True)
        if images.device.type != "cpu":
            return _warped(images, warp, colour)
        height, width = images.shape[1:3]
        few = max(1, CACHE_BYTES // (12 * height * width))
        pixels = torch.empty((n, 3, height, width), memory_format=torch.channels_last)
        for start in range(0, n, few):
            rows = slice(start, start + few)
            pixels[rows] = _warped(images[rows], warp[rows], colour[rows])
        return pixels

    def _by_policy(self, images: Tensor, generator: torch.Generator) -> Tensor:
        n = images.shape[0]
        mirrored = torch.rand(n, generator=generator) < 0.5
        if self.policy == "trivial":
            draws = policies.trivial_augment(n, generator)
        else:
            draws = policies.rand_augment(n, self.rand_ops, self.rand_magnitude, generator)
        planes = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        if self.flip:
            rows = mirrored.nonzero()[:, 0].to(images.device, non_blocking=True)
            planes.index_copy_(0, rows, planes.index_select(0, rows).flip(3))
        matrix = self._normalise.to(images.device)
        scale, offset = matrix.diagonal()[:, None, None], matrix[:, 3, None, None]
        planes = policies.apply(planes, draws, fill=(-offset / scale).flatten())
        return planes.mul_(scale).add_(offset)

    def affine(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, 2, 3) matrices from output to input coordinates in [-1, 1]."""
        s = self.strength

        def draw(width: float) -> Tensor:
            return (torch.rand(n, generator=generator) * 2 - 1) * width

        angle = draw(ROTATION * s)
        low, high = 1 - (1 - SCALE[0]) * s, 1 + (SCALE[1] - 1) * s
        zoom = torch.rand(n, generator=generator) * (high - low) + low
        aspect = torch.exp(draw(ASPECT * s) / 2)
        x, y = draw(TRANSLATION * s), draw(TRANSLATION * s)
        mirrored = torch.rand(n, generator=generator) < 0.5
        sign = torch.where(mirrored, -1.0, 1.0) if self.flip else torch.ones(n)
        cos, sin = torch.cos(angle), torch.sin(angle)
        row_x = torch.stack([cos * zoom * aspect * sign, -sin * zoom / aspect, x], 1)
        row_y = torch.stack([sin * zoom * aspect * sign, cos * zoom / aspect, y], 1)
        return torch.stack([row_x, row_y], 1)

    def colour(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, 3, 4) matrices from RGB in 0..255 to normalised RGB."""
        s = self.strength

        def factor(width: float) -> Tensor:
            return 1 + (torch.rand(n, generator=generator) * 2 - 1) * width * s

        brightness, contrast, saturation = factor(BRIGHTNESS), factor(CONTRAST), factor(SATURATION)
        hue = (torch.rand(n, generator=generator) * 2 - 1) * HUE * s
        grey = LUMA.expand(3, 3)
        turn = saturation[:, None, None] * _hue_rotation(hue)
        matrix = grey + turn @ (torch.eye(3) - grey)
        gain = (brightness * contrast)[:, None, None]
        offset = (255 * 0.5 * (1 - contrast))[:, None, None].expand(n, 3, 1)
        coloured = torch.cat([gain * matrix, offset], 2)
        result = self._normalise[:, :3] @ coloured
        result[:, :, 3] += self._normalise[:, 3]
        return result


def _warped(images: Tensor, warp: Tensor, colour: Tensor) -> Tensor:
    """Images (n, height, width, 3) through an affine map and a colour matrix each: float32 (n, 3, height, width)."""
    n, height, width = images.shape[:3]
    # Planes rather than pixels: a 3 x 3 product over whole planes takes a ninth of the time.
    planes = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    coloured = torch.baddbmm(colour[:, :, 3:], colour[:, :, :3], planes.view(n, 3, -1)).view(planes.shape)
    grid = sampling_grid(warp, height, width)
    return F.grid_sample(coloured, grid, mode="bilinear", padding_mode="border", align_corners=False)


def erased_boxes(n: int, height: int, width: int, p: float, generator: torch.Generator) -> Tensor:
    """One box an image for random erasing (Zhong et al. 2020): int64 (n, 4) of row, column, height, width.

    With probability 1 - p a box is empty. The aspect is drawn on a log scale, so that flat and upright boxes are
    equally frequent; one at which the box does not fit into the image is cut to the nearest that does, where the
    paper draws again.
    """

    def draw(low: float, high: float) -> Tensor:
        return torch.rand(n, generator=generator) * (high - low) + low

    erased = draw(0, 1) < p
    area = draw(*ERASED_AREA)
    aspect = torch.exp(draw(math.log(ERASED_ASPECT[0]), math.log(ERASED_ASPECT[1])))
    aspect = aspect.clamp(area * height / width, height / width / area)
    tall = torch.round(torch.sqrt(area * aspect * height * width)).clamp(1, height)
    wide = torch.round(torch.sqrt(area / aspect * height * width)).clamp(1, width)
    top, left = torch.floor(draw(0, 1) * (height - tall + 1)), torch.floor(draw(0, 1) * (width - wide + 1))
    return (torch.stack([top, left, tall, wide], 1) * erased[:, None]).long()


def _hue_rotation(angle: Tensor) -> Tensor:
    """(n, 3, 3) rotations of RGB around the grey axis (Rodrigues' formula)."""
    cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    k = 1 / math.sqrt(3)
    cross = torch.tensor([[0, -k, k], [k, 0, -k], [-k, k, 0]])
    return cos * torch.eye(3) + sin * cross + (1 - cos) / 3
