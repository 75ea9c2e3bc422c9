"""A bundle at work: images in, probabilities out, without the run that it came from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ..combiners import Combiner, from_state
from ..combiners.fold_models import average_folds, combine_folds
from ..data.decode import load_pixels
from ..errors import BundleError, CombinerError, WeightsError
from .layout import inside, read_index
from .member import FoldWeights, Member

if TYPE_CHECKING:
    import pandas as pd

ImageLike = Path | str | bytes | Image.Image | NDArray[np.uint8]

#: Images decoded and held at a time.
CHUNK = 256


class Bundle:
    """An exported winner.

    >>> bundle = Bundle.load("bundles/clothing")          # doctest: +SKIP
    >>> bundle.predict(["a.jpg", "b.jpg"]).round(2)       # doctest: +SKIP
    array([[0.91, 0.02, ...
    """

    def __init__(
        self,
        classes: Sequence[str],
        image_size: int,
        members: dict[str, Member],
        combiner: Combiner | None,
        index: dict[str, Any],
    ) -> None:
        self.classes = tuple(classes)
        self.image_size = image_size
        self.members = members
        self.combiner = combiner
        self.index = index

    @classmethod
    def load(cls, path: str | Path) -> Bundle:
        """Checks every file's digest, then builds the members.

        Raises:
            BundleError: a missing, altered or foreign file; names it.
        """
        folder = Path(path)
        index = read_index(folder)
        try:
            members = {m["name"]: _member(folder, m, index) for m in index["members"]}
            state = index["combiner"]
            combiner = None
            if state is not None:
                combiner = from_state(state, load_file(_checked(folder, "combiner.safetensors", index)))
        except (KeyError, TypeError, ValueError, SafetensorError, CombinerError, WeightsError) as error:
            raise BundleError(f"{folder}: cannot be used ({error}); export again") from error
        return cls(index["classes"], index["image_size"], members, combiner, index)

    @property
    def name(self) -> str:
        """The row of the leaderboard that was exported."""
        return str(self.index["name"])

    def predict(self, images: Iterable[ImageLike]) -> NDArray[np.float32]:
        """Probabilities float32 (images, classes) of files, encoded bytes, PIL images or uint8 RGB arrays.

        Raises:
            UnreadableImageError: naming the first image that does not decode.
        """
        parts, chunk = [], []
        for image in images:
            chunk.append(load_pixels(_readable(image), self.image_size))
            if len(chunk) == CHUNK:
                parts.append(self.predict_pixels(np.stack(chunk)))
                chunk = []
        if chunk:
            parts.append(self.predict_pixels(np.stack(chunk)))
        return np.concatenate(parts) if parts else np.empty((0, len(self.classes)), np.float32)

    def predict_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities (images, classes) of uint8 images (images, size, size, 3) at the bundle's own size."""
        return self.combine(self.fold_probabilities(pixels))

    def fold_probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(members, folds, images, classes): what each fold model of each member says."""
        return np.stack([member.predict_folds(pixels) for member in self.members.values()])

    def votes(self, proba: NDArray[np.float32]) -> NDArray[np.float32]:
        """(members, folds, images, classes) to (members, images, classes): what each member says by itself."""
        return average_folds(proba)

    def combine(self, proba: NDArray[np.float32]) -> NDArray[np.float32]:
        """(members, folds, images, classes) to (images, classes); see `combiners.fold_models`."""
        if self.combiner is None:
            alone: NDArray[np.float32] = average_folds(proba)[0]
            return alone
        return combine_folds(self.combiner, proba, list(self.members), self.classes)

    def frame(self, paths: Sequence[Path | str], proba: NDArray[np.float32]) -> pd.DataFrame:
        """Columns path, label, confidence, and one a class."""
        import pandas as pd

        best = proba.argmax(1)
        head = {
            "path": [str(p) for p in paths],
            "label": [self.classes[i] for i in best],
            "confidence": proba[np.arange(len(best)), best],
        }
        return pd.concat([pd.DataFrame(head), pd.DataFrame(proba, columns=list(self.classes))], axis=1)


def _member(folder: Path, entry: dict[str, Any], index: dict[str, Any]) -> Member:
    folds = [
        FoldWeights(load_file(_checked(folder, f["file"], index)), float(f["temperature"]))
        for f in entry["folds"]
    ]
    body = load_file(_checked(folder, entry["body"], index)) if entry["body"] else None
    return Member(
        entry["architecture"],
        index["classes"],
        index["image_size"],
        folds,
        body=body,
        mean=entry["mean"],
        std=entry["std"],
        hidden=entry.get("hidden", ()),
        mirror=entry.get("mirror", False),
    )


def _checked(folder: Path, name: str, index: dict[str, Any]) -> Path:
    """A file whose digest `read_index` has compared."""
    if name not in index["files"]:
        raise BundleError(f"{folder / str(name)}: the index holds no digest of it; export again")
    return inside(folder, name)


def _readable(image: ImageLike) -> Path | bytes | Image.Image:
    if isinstance(image, str):
        return Path(image)
    return Image.fromarray(image) if isinstance(image, np.ndarray) else image
