"""Augmentation of a whole batch on its device: one affine warp, one colour matrix, no per-image Python.

Rotation, scale, aspect, translation and flip compose into one 2 x 3 matrix an image and cost one interpolation;
brightness, contrast, saturation, hue and the backbone's normalisation compose into one 3 x 4 colour matrix and
cost one product. Parameters are drawn on the CPU from a seeded generator: the same seed gives the same pixels on
every device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .recipe import Recipe

#: Ranges at strength 1. Angles in radians, lengths in halves of the image, colours as factors around 1.
ROTATION = math.radians(15)
SCALE = (0.75, 1.05)  # below 1 the warp zooms in, as a crop does
ASPECT = 0.1
TRANSLATION = 0.1
BRIGHTNESS = 0.25
CONTRAST = 0.25
SATURATION = 0.25
HUE = math.radians(10)

_LUMA = torch.tensor([0.299, 0.587, 0.114])


class BatchAugment:
    """Turns uint8 images into normalised floats, augmented or not.

    Args:
        mean: RGB mean of pixels in [0, 1], as the backbone was pretrained with.
        std: RGB standard deviation, likewise.
        strength: factor on every range; 0 normalises only.
        flip: mirror half of the images left to right.
    """

    def __init__(
        self,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        strength: float = 1.0,
        flip: bool = True,
    ) -> None:
        self.strength = strength
        self.flip = flip
        scale = 1 / (255 * torch.tensor(std))
        self._normalise = torch.cat(
            [torch.diag(scale), (-torch.tensor(mean) / torch.tensor(std))[:, None]], 1
        )

    @classmethod
    def from_recipe(
        cls, mean: tuple[float, float, float], std: tuple[float, float, float], recipe: Recipe
    ) -> BatchAugment:
        """As a recipe wants it."""
        return cls(mean, std, recipe.augment, recipe.flip)

    def plain(self, images: Tensor) -> Tensor:
        """Normalises uint8 (batch, height, width, 3) to float32 (batch, 3, height, width), channels_last."""
        matrix = self._normalise.to(images.device)
        pixels = images.to(torch.float32) * matrix.diagonal()
        pixels += matrix[:, 3]
        return pixels.permute(0, 3, 1, 2)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augments and normalises uint8 (batch, height, width, 3) to float32 (batch, 3, height, width)."""
        if self.strength == 0 and not self.flip:
            return self.plain(images)
        n = images.shape[0]
        warp = self.affine(n, generator).to(images.device, non_blocking=True)
        colour = self.colour(n, generator).to(images.device, non_blocking=True)
        # Planes rather than pixels: a 3 x 3 product over whole planes takes a ninth of the time.
        planes = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        coloured = torch.baddbmm(colour[:, :, 3:], colour[:, :, :3], planes.view(n, 3, -1)).view(planes.shape)
        grid = sampling_grid(warp, images.shape[1], images.shape[2])
        return F.grid_sample(coloured, grid, mode="bilinear", padding_mode="border", align_corners=False)

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
        grey = _LUMA.expand(3, 3)
        turn = saturation[:, None, None] * _hue_rotation(hue)
        matrix = grey + turn @ (torch.eye(3) - grey)
        gain = (brightness * contrast)[:, None, None]
        offset = (255 * 0.5 * (1 - contrast))[:, None, None].expand(n, 3, 1)
        coloured = torch.cat([gain * matrix, offset], 2)
        result = self._normalise[:, :3] @ coloured
        result[:, :, 3] += self._normalise[:, 3]
        return result


def sampling_grid(warp: Tensor, height: int, width: int) -> Tensor:
    """Where each output pixel is read: (n, height, width, 2) in [-1, 1], as `grid_sample` wants it.

    `affine_grid` multiplies a matrix for each pixel; an affine map is a sum of what a row and a column give.

    Args:
        warp: (n, 2, 3) from output to input coordinates.
        height: of the output.
        width: of the output.
    """
    x = (torch.arange(width, device=warp.device) * 2 + 1) / width - 1
    y = (torch.arange(height, device=warp.device) * 2 + 1) / height - 1
    along = warp[:, :, 0, None] * x
    down = warp[:, :, 1, None] * y + warp[:, :, 2, None]
    return along.transpose(1, 2)[:, None] + down.transpose(1, 2)[:, :, None]


def _hue_rotation(angle: Tensor) -> Tensor:
    """(n, 3, 3) rotations of RGB around the grey axis (Rodrigues' formula)."""
    cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    k = 1 / math.sqrt(3)
    cross = torch.tensor([[0, -k, k], [k, 0, -k], [-k, k, 0]])
    return cos * torch.eye(3) + sin * cross + (1 - cos) / 3
