"""Does the monitor keep its word? Alarms on halves of the same images, and on changed copies, with a real bundle.

    python benchmarks/monitor.py BUNDLE IMAGES [--draws 100]

IMAGES is a folder of images that the run did not train on (the test split), one folder a class. Prints

- alarms among `--draws` random halves of the bundle's own reference, each held against the other half; expect at most
  5 of 100;
- alarms among as many random halves of IMAGES held against the whole reference: the same, where IMAGES come from where
  the training images came from;
- alarms on blurred, noisy, recoloured and class-shifted copies of random halves of IMAGES; expect one every time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measure import commit, verdict
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from ensembler.bundle import Bundle
from ensembler.bundle.images import decoded, find_images
from ensembler.bundle.monitor.drift import measure_drift
from ensembler.bundle.monitor.features import Sample, concatenate
from ensembler.bundle.monitor.observe import observe
from ensembler.bundle.monitor.reference import read_reference

Pixels = NDArray[np.uint8]


def blurred(pixels: Pixels) -> Pixels:
    """By a Gaussian of a hundredth of the side."""
    radius = pixels.shape[1] / 96
    return np.stack([np.array(Image.fromarray(p).filter(ImageFilter.GaussianBlur(radius))) for p in pixels])


def noisy(pixels: Pixels) -> Pixels:
    """With Gaussian noise of 12 grey levels."""
    noise = np.random.default_rng(0).normal(0, 12, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def recoloured(pixels: Pixels) -> Pixels:
    """Warmer: red up and blue down by a tenth."""
    warm: Pixels = np.clip(pixels * np.array([1.1, 1.0, 0.9]), 0, 255).astype(np.uint8)
    return warm


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "blurred": blurred,
    "noisy": noisy,
    "recoloured": recoloured,
}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--draws", type=int, default=100)
    options = parser.parse_args()

    bundle, reference = Bundle.load(options.bundle), read_reference(options.bundle)
    chunks = list(decoded(find_images([options.images]), bundle.image_size, chunk=256))
    pixels = np.concatenate([chunk.pixels for chunk in chunks])
    labels = np.array([path.parent.name for chunk in chunks for path in chunk.paths])

    def look(images: Pixels) -> Sample:
        return concatenate(
            observe(bundle, images[i : i + 256], reference.folds)[0] for i in range(0, len(images), 256)
        )

    plain = look(pixels)
    rng = np.random.default_rng(0)
    print(
        f"commit {commit()}, {bundle.name}: {len(reference.sample)} rows of reference, {len(pixels)} images"
    )

    def alarms(draw: Callable[[int], tuple[Sample, Sample]]) -> int:
        return sum(measure_drift(*draw(i), seed=i).alarm for i in range(options.draws))

    def halves(_: int) -> tuple[Sample, Sample]:
        rows = rng.permutation(len(reference.sample))
        return reference.sample.select(rows[: len(rows) // 2]), reference.sample.select(
            rows[len(rows) // 2 :]
        )

    def half(sample: Sample) -> Sample:
        return sample.select(rng.permutation(len(sample))[: len(sample) // 2])

    began = time.perf_counter()
    found = alarms(halves)
    seconds = (time.perf_counter() - began) / options.draws
    bar = 0.05 * options.draws
    print(
        f"halves of the reference: {found} of {options.draws}, bar {bar:g}: {verdict(found, bar, False)} "
        f"({seconds:.1f} s each)"
    )
    found = alarms(lambda _: (reference.sample, half(plain)))
    print(f"halves of the images: {found} of {options.draws}, bar {bar:g}: {verdict(found, bar, False)}")
    for name, change in CHANGES.items():
        changed = look(change(pixels))
        found = alarms(lambda _, changed=changed: (reference.sample, half(changed)))  # type: ignore[misc]
        print(
            f"{name}: {found} of {options.draws}, bar {options.draws}: {verdict(found, options.draws, True)}"
        )
    kept = np.flatnonzero(np.isin(labels, np.unique(labels)[: max(1, len(np.unique(labels)) // 2)]))
    found = alarms(lambda _: (reference.sample, half(plain.select(kept))))
    print(
        f"half of the classes: {found} of {options.draws}, bar {options.draws}: {verdict(found, options.draws, True)}"
    )


if __name__ == "__main__":
    main()
