"""The image operations of augmentation policies, on float batches (n, 3, height, width) of values in 0..255.

Each takes one parameter an image, as a tensor (n,) on the device of the planes, and returns new planes. They are
those of AutoAugment (Cubuk et al. 2019), which Pillow defined; what differs is that values stay float between two
operations, and are rounded only where an operation is made of whole numbers (posterize, equalize).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LUMA = torch.tensor([0.299, 0.587, 0.114])


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


def affine(planes: Tensor, warp: Tensor) -> Tensor:
    """Reads each image through a (n, 2, 3) matrix from output to input coordinates; 0 outside of the image."""
    grid = sampling_grid(warp, planes.shape[2], planes.shape[3])
    return F.grid_sample(planes, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def enhance(planes: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """Factors around 1: of all values, of the distance to the image's mean grey, of that to each pixel's grey.

    They are one 3 x 4 matrix, so values are cut off at 0 and 255 once, not after each factor.
    """
    luma = LUMA.to(planes.device)
    mean_grey = planes.mean((2, 3)) @ luma
    eye = torch.eye(3, device=planes.device)
    matrix = luma.expand(3, 3) + saturation[:, None, None] * (eye - luma)
    gain, offset = brightness * contrast, brightness * (1 - contrast) * mean_grey
    flat = torch.baddbmm(offset[:, None, None], gain[:, None, None] * matrix, planes.flatten(2))
    return flat.clamp_(0, 255).view(planes.shape)


def sharpness(planes: Tensor, factor: Tensor) -> Tensor:
    """Away from (above 1) or towards a blurred image; the outermost pixels have no blur and stay.

    The blur is Pillow's: the mean of 3 x 3 pixels in which the one in the middle counts five times.
    """
    inner = planes[:, :, 1:-1, 1:-1]
    rows = planes[:, :, :-2] + planes[:, :, 1:-1] + planes[:, :, 2:]
    box = rows[:, :, :, :-2] + rows[:, :, :, 1:-1] + rows[:, :, :, 2:]
    blurred = (box + 4 * inner) / 13
    result = planes.clone()
    result[:, :, 1:-1, 1:-1] = torch.lerp(blurred, inner, factor[:, None, None, None]).clamp_(0, 255)
    return result


def posterize(planes: Tensor, bits: Tensor) -> Tensor:
    """Keeps the highest of the eight bits."""
    step = torch.exp2(8 - bits)[:, None, None, None]
    return planes.round().div_(step).floor_().mul_(step)


def solarize(planes: Tensor, threshold: Tensor) -> Tensor:
    """Inverts the values that reach a threshold."""
    return torch.where(planes >= threshold[:, None, None, None], 255 - planes, planes)


def autocontrast(planes: Tensor) -> Tensor:
    """Stretches each channel of each image to 0..255; a channel of one value stays."""
    low, high = planes.amin((2, 3), keepdim=True), planes.amax((2, 3), keepdim=True)
    flat = high == low
    scale = torch.where(flat, 1.0, 255 / (high - low))
    return (planes - torch.where(flat, 0.0, low)).mul_(scale)


def equalize(planes: Tensor) -> Tensor:
    """Flattens the histogram of each channel of each image; a channel of one value stays.

    As Pillow does: a value goes to the number of pixels below it in units of `step`, the 255th part of all pixels
    but those of the highest value.
    """
    values = planes.round().to(torch.int64).flatten(2).flatten(0, 1)
    channels = values.shape[0]
    counts = torch.zeros(channels, 256, dtype=torch.int64, device=planes.device)
    counts.scatter_add_(1, values, torch.ones_like(values))
    up_to = counts.cumsum(1)
    highest = values.amax(1, keepdim=True)
    step = (values.shape[1] - counts.gather(1, highest)) // 255
    table = ((up_to - counts + step // 2) // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=planes.device))
    return table.gather(1, values).to(planes.dtype).view(planes.shape)


def erase(planes: Tensor, boxes: Tensor) -> Tensor:
    """Sets to 0 a box an image, in place: (n, 4) of first row, first column, height and width."""
    top, left, height, width = boxes.T[:, :, None]
    rows = torch.arange(planes.shape[2], device=planes.device)
    columns = torch.arange(planes.shape[3], device=planes.device)
    inside_rows = (rows >= top) & (rows < top + height)
    inside_columns = (columns >= left) & (columns < left + width)
    return planes.masked_fill_((inside_rows[:, :, None] & inside_columns[:, None])[:, None], 0)
