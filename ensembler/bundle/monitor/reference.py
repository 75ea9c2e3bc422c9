"""What the bundle's networks made of images that they had not seen in training: what new images are held against.

Where its honesty comes from. The k fold models that a bundle ships have, between them, been trained on every
training image, so their average is surer of those than of any new image, and a monitor that compared the two would
raise alarms for ever. So a row of the reference holds what the models of *one* fold say, of an image of *that* fold's
holdout, which these models have not seen in training, early stopping or calibration: the out-of-fold row of the
leaderboard. A new image, which no model has seen, is given the models of one fold as well, drawn by the content of
its pixels. If it comes from where the training images came from, its row has the same distribution as a row of the
reference, exactly; the tests then raise no more false alarms than they say. (Folds are stratified by class, which
makes the reference's classes a little more even than chance would; a group of related images, of which the tests know
nothing, counts as so many independent ones.)

What is compared is the mean of the members, not the combiner: the combiner that is deployed has been fitted to the
labels of the very rows that make up the reference, and some combiners remember them.

A bundle that runs networks which were trained on every row (`--collapse`) has no such rows. Its reference is what it
answers on the test split, and where there is none, it has no reference and cannot be monitored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BundleError
from .features import LOOKS, Sample

#: File in the bundle.
REFERENCE = "reference.safetensors"

#: Rows, at most.
MAX_ROWS = 2000


@dataclass(frozen=True, eq=False)
class Reference:
    """Rows of images that the networks had not seen.

    Attributes:
        sample: what is looked at.
        labels: int64 (rows,), true classes.
        folds: how many fold models a member has where each row was answered by those of one fold; 0 where all answered
            together (the test split).
    """

    sample: Sample
    labels: NDArray[np.int64]
    folds: int

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As they are written."""
        return {
            "looks": self.sample.looks,
            "proba": self.sample.proba.astype(np.float16),
            "disagreement": self.sample.disagreement.astype(np.float16),
            "labels": self.labels.astype(np.int32),
            "folds": np.array([self.folds], np.int32),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], n_classes: int, n_members: int) -> Reference:
        """The same read again.

        Raises:
            ValueError: they do not fit together, or not the bundle.
        """
        sample = Sample(*(arrays[k].astype(np.float32) for k in ("looks", "proba", "disagreement")))
        labels, folds = arrays["labels"].astype(np.int64), int(arrays["folds"][0])
        n = len(labels)
        shapes = (n, len(LOOKS)), (n, n_classes), (n, n_members)
        if (sample.looks.shape, sample.proba.shape, sample.disagreement.shape) != shapes or folds < 0:
            raise ValueError(f"arrays of other shapes than {shapes}")
        if not all(np.isfinite(a).all() for a in (sample.looks, sample.proba, sample.disagreement)):
            raise ValueError("values that are not finite")
        if n and not 0 <= labels.min() <= labels.max() < n_classes:
            raise ValueError("labels beyond the classes")
        return cls(sample, labels, folds)


def attach(folder: Path, reference: Reference) -> None:
    """Adds a reference to a bundle that is being written, with its digest in the index."""
    from safetensors.numpy import save

    from ..layout import INDEX, file_digest

    # Not by save_file, whose files nobody but their owner may read.
    (folder / REFERENCE).write_bytes(
        save({k: np.ascontiguousarray(v) for k, v in reference.arrays().items()})
    )
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    index["files"][REFERENCE] = file_digest(folder / REFERENCE)
    (folder / INDEX).write_text(json.dumps(index, indent=1, allow_nan=False), encoding="utf-8")


def read_reference(bundle: str | Path) -> Reference:
    """The reference of a bundle, its digest compared.

    Raises:
        BundleError: it has none, or one that is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    from ..layout import open_bundle

    files = open_bundle(Path(bundle))
    if REFERENCE not in files.index["files"]:
        raise BundleError(
            f"{bundle}: holds no reference to monitor with; export it again, from a run whose images are still there "
            "(a bundle of networks that were trained on every row needs a test split)"
        )
    index = files.index
    try:
        return Reference.from_arrays(
            load(files.read(REFERENCE)), len(index["classes"]), len(index["members"])
        )
    except (SafetensorError, KeyError, ValueError, IndexError) as error:
        raise BundleError(f"{files.where(REFERENCE)}: cannot be used ({error}); export again") from error
