"""TrivialAugment and RandAugment on a batch: each image draws its own operations, each kind of operation runs once.

A policy draws on the CPU which operation each image gets in each round, and how much of it (`Draws`). `apply` then
goes through the rounds and gives each kind of operation the images that drew it, so the work grows with the images
and not with the fourteen kinds. Shears, translations and rotations of an image wait as one matrix until another
operation has to see the pixels: neighbours compose, and cost one interpolation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from . import operations

#: The operations of both papers; a `Draws` holds indices into them.
OPERATIONS = (
    "identity",
    "shear_x", "shear_y", "translate_x", "translate_y", "rotate",
    "brightness", "contrast", "saturation", "sharpness",
    "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip

_AFFINE = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
_COLOUR = ("brightness", "contrast", "saturation")

#: Both papers count magnitudes from 0 to 30.
LEVELS = 30


@dataclass(frozen=True)
class Ranges:
    """What the highest magnitude means.

    Attributes:
        shear: pixels to the side for each pixel down.
        translate: share of the side.
        translate_pixels: the most pixels, whatever the side.
        rotate: radians.
        enhance: distance from 1 of the factors of brightness, contrast, saturation and sharpness.
        posterize: bits that are lost.
    """

    shear: float
    translate: float
    translate_pixels: float
    rotate: float
    enhance: float
    posterize: int


#: The wide space of TrivialAugment, whose 32 pixels would be all of a small image: no more than a third here.
WIDE = Ranges(0.99, 1 / 3, 32, math.radians(135), 0.99, 6)

#: The space of RandAugment on ImageNet; its 150 pixels of 331 are a share here.
RAND = Ranges(0.3, 150 / 331, math.inf, math.radians(30), 0.9, 4)


@dataclass(frozen=True)
class Draws:
    """What a batch gets.

    Attributes:
        operation: int64 (rounds, n), indices into `OPERATIONS`.
        level: float32 (rounds, n), magnitudes in [0, 1].
        sign: float32 (rounds, n), -1 or 1, for the operations that have two directions.
        ranges: what a magnitude of 1 means.
    """

    operation: Tensor
    level: Tensor
    sign: Tensor
    ranges: Ranges


def trivial_augment(n: int, generator: torch.Generator) -> Draws:
    """One operation an image, of a magnitude that is drawn from all (Müller & Hutter 2021, the wide space)."""
    operation = torch.randint(len(OPERATIONS), (1, n), generator=generator)
    level = torch.randint(LEVELS + 1, (1, n), generator=generator) / LEVELS
    return Draws(operation, level, _signs(1, n, generator), WIDE)


def rand_augment(n: int, rounds: int, magnitude: float, generator: torch.Generator) -> Draws:
    """Several operations an image, all of one magnitude in [0, 30] (Cubuk et al. 2020)."""
    operation = torch.randint(len(OPERATIONS), (rounds, n), generator=generator)
    level = torch.full((rounds, n), magnitude / LEVELS)
    return Draws(operation, level, _signs(rounds, n, generator), RAND)


def _signs(rounds: int, n: int, generator: torch.Generator) -> Tensor:
    return torch.where(torch.rand(rounds, n, generator=generator) < 0.5, -1.0, 1.0)


def apply(planes: Tensor, draws: Draws, fill: Tensor) -> Tensor:
    """Applies what was drawn, in place.

    Args:
        planes: float32 (n, 3, height, width) of values in 0..255, on any device; they are changed.
        draws: of n images, on the CPU.
        fill: (3,), the colour of what comes from outside of an image.

    Returns:
        The planes.
    """
    height, width = planes.shape[2:]
    waiting = torch.eye(3).repeat(planes.shape[0], 1, 1)
    warped = torch.zeros(planes.shape[0], dtype=torch.bool)
    for operation, level, sign in zip(draws.operation, draws.level, draws.sign, strict=True):
        moves = _is(operation, *_AFFINE)
        seen = warped & ~moves & ~_is(operation, "identity")
        _warp(planes, seen, waiting, fill)
        waiting[seen], warped = torch.eye(3), (warped | moves) & ~seen
        waiting = waiting @ warp_matrices(operation, level * sign, draws.ranges, height, width)
        _retouch(planes, operation, level, sign, draws.ranges)
    _warp(planes, warped, waiting, fill)
    return planes


def warp_matrices(operation: Tensor, amount: Tensor, ranges: Ranges, height: int, width: int) -> Tensor:
    """(n, 3, 3) matrices from output to input coordinates in [-1, 1]; the identity where nothing moves.

    Shears keep the first row or column in place, as in the papers; rotations turn around the centre, against
    the clock where the amount is positive.

    Args:
        operation: (n,) indices into `OPERATIONS`.
        amount: (n,) signed magnitudes in [-1, 1].
        ranges: what a magnitude of 1 means.
        height: of the images.
        width: of the images.
    """

    def of(name: str, most: float) -> Tensor:
        return torch.where(_is(operation, name), amount * most, 0.0)

    shear_x, shear_y = of("shear_x", ranges.shear), of("shear_y", ranges.shear)
    angle = of("rotate", ranges.rotate)
    cos, sin = torch.cos(angle), torch.sin(angle)
    tall = height / width  # lengths along y in units of lengths along x
    move_x = of("translate_x", min(ranges.translate, ranges.translate_pixels / width))
    move_y = of("translate_y", min(ranges.translate, ranges.translate_pixels / height))
    zero, one = torch.zeros_like(amount), torch.ones_like(amount)
    row_x = torch.stack([cos, (shear_x - sin) * tall, shear_x * tall - 2 * move_x], 1)
    row_y = torch.stack([(shear_y + sin) / tall, cos, shear_y / tall - 2 * move_y], 1)
    return torch.stack([row_x, row_y, torch.stack([zero, zero, one], 1)], 1)


def _is(operation: Tensor, *names: str) -> Tensor:
    return torch.isin(operation, torch.tensor([OPERATIONS.index(name) for name in names]))


def _warp(planes: Tensor, which: Tensor, matrices: Tensor, fill: Tensor) -> None:
    rows = which.nonzero()[:, 0]
    if not len(rows):
        return
    warp = matrices[rows, :2].to(planes.device, non_blocking=True)
    rows = rows.to(planes.device, non_blocking=True)
    colour = fill[:, None, None]
    # What is read from outside is 0, so the fill has to be 0 while pixels are read.
    moved = operations.affine(planes.index_select(0, rows).sub_(colour), warp)
    planes.index_copy_(0, rows, moved.add_(colour))


def _retouch(planes: Tensor, operation: Tensor, level: Tensor, sign: Tensor, ranges: Ranges) -> None:
    """The operations of one round that move no pixel, each on the images that drew it."""
    factor = 1 + level * sign * ranges.enhance
    brightness, contrast, saturation = (torch.where(_is(operation, k), factor, 1.0) for k in _COLOUR)
    bits = 8 - torch.round(level * ranges.posterize)
    for function, names, parameters in (
        (operations.enhance, _COLOUR, (brightness, contrast, saturation)),
        (operations.sharpness, ("sharpness",), (factor,)),
        (operations.posterize, ("posterize",), (bits,)),
        (operations.solarize, ("solarize",), (255 * (1 - level),)),
        (operations.autocontrast, ("autocontrast",), ()),
        (operations.equalize, ("equalize",), ()),
    ):
        rows = _is(operation, *names).nonzero()[:, 0]
        if len(rows):
            drawn = [p[rows].to(planes.device, non_blocking=True) for p in parameters]
            rows = rows.to(planes.device, non_blocking=True)
            planes.index_copy_(0, rows, function(planes.index_select(0, rows), *drawn))
