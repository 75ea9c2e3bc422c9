"""Images as a network sees them while it trains: each once as it is, and as its recipe augments it.

    python -m ensembler.training.preview --backbone NAME --recipe JSON --size 96 -o FOLDER IMAGE...

A command of its own, because augmentation needs torch and those who look at its pictures do not. The pictures go
through the very code that trains: decoder, augmentation, mixing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..atomic import write_folder
from ..data.decode import load_pixels
from ..errors import ConfigError, DataError, EnsemblerError, UnreadableImageError, printable
from .augment import BatchAugment
from .backbone import check_backbone, normalisation
from .mixing import mix
from .recipe import Recipe

#: What the folder says of itself; beside it lie `<image>-<draw>.png`, draw 0 is the plain image.
INDEX = "index.json"

#: Most images and most draws of each: nobody looks at more.
MOST_IMAGES, MOST_DRAWS = 24, 12


def augmented(
    pixels: NDArray[np.uint8], backbone: str, recipe: Recipe, draws: int, seed: int = 0
) -> NDArray[np.uint8]:
    """What an epoch after another would make of the same images.

    Args:
        pixels: uint8 (images, size, size, 3), as decoded for training.
        backbone: whose normalisation is applied, and taken back so that people see colours.
        recipe: says how to augment, and whether to mix images with each other.
        draws: how many epochs.
        seed: of all that is drawn.

    Returns:
        uint8 (draws, images, size, size, 3).
    """
    check_backbone(backbone)
    mean, std = normalisation(backbone)
    augment = BatchAugment.from_recipe(mean, std, recipe)
    generator = torch.Generator().manual_seed(seed)
    batch = torch.from_numpy(pixels)
    targets = torch.ones(len(pixels), 1)
    centre, scale = (torch.tensor(v)[:, None, None] for v in (mean, std))
    seen = []
    for _ in range(draws):
        images, _ = mix(augment(batch, generator), targets, recipe.mixup, recipe.cutmix, generator)
        colours = ((images * scale + centre) * 255).round().clamp(0, 255)
        seen.append(colours.permute(0, 2, 3, 1).to(torch.uint8).numpy())
    return np.stack(seen)


def write_previews(
    folder: Path,
    files: Sequence[Path],
    backbone: str,
    recipe: Recipe,
    size: int,
    draws: int = 4,
    seed: int = 0,
) -> None:
    """Writes the pictures of some images into a folder that appears whole or not at all.

    `index.json` says which of the files could be read: {"images": n, "draws": n, "shown": [positions in `files`],
    "unreadable": {position: reason}}.

    Raises:
        DataError: none of them can be read.
        StoreError: the folder cannot be written.
    """
    plain, shown, unreadable = [], [], {}
    for i, file in enumerate(files):
        try:
            if file.exists() and not file.is_file():  # a pipe would keep us waiting
                raise UnreadableImageError(f"{file}: is no plain file")
            plain.append(load_pixels(file, size))
            shown.append(i)
        except UnreadableImageError as error:
            unreadable[i] = str(error).removeprefix(printable(f"{file}: "))
    if not plain:
        reason = next(iter(unreadable.values()), "no image was named")
        raise DataError(
            f"{files[0] if files else 'images'}: {reason}; none of the {len(files)} images can be read: "
            "are they still where the run found them?"
        )
    pixels = np.stack(plain)
    versions = np.concatenate([pixels[None], augmented(pixels, backbone, recipe, draws, seed)])
    index = {"images": len(files), "draws": draws, "shown": shown, "unreadable": unreadable}

    def fill(scratch: Path) -> None:
        for draw, images in enumerate(versions):
            for i, image in zip(shown, images, strict=True):
                Image.fromarray(image).save(scratch / f"{i}-{draw}.png")
        (scratch / INDEX).write_text(json.dumps(index))

    write_folder(folder, fill, keep_if=lambda _: False)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command: 0 done, 2 the user can mend it, as one line on standard error says."""
    parser = argparse.ArgumentParser(prog="python -m ensembler.training.preview", description=__doc__)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--recipe", required=True, help="hyperparameters as JSON")
    parser.add_argument("--size", type=int, required=True, help="side of the pictures in pixels")
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("images", type=Path, nargs="+")
    args = parser.parse_args(argv)
    try:
        if not 1 <= args.draws <= MOST_DRAWS or len(args.images) > MOST_IMAGES or not 1 <= args.size <= 4096:
            raise ConfigError(
                f"{len(args.images)} images of {args.size} pixels, {args.draws} draws: at most {MOST_IMAGES} images "
                f"of 4096 pixels and {MOST_DRAWS} draws are shown"
            )
        write_previews(
            args.output, args.images, args.backbone, _recipe(args.recipe), args.size, args.draws, args.seed
        )
    except EnsemblerError as error:
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 2
    return 0


def _recipe(text: str) -> Recipe:
    try:
        return Recipe(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"--recipe: {text!r}: {error}; expected hyperparameters as a JSON object"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
