"""A bundle at work: images in, probabilities out, without the run that it came from.

Where the bundle has a graph, onnxruntime, numpy and Pillow are all that is imported; see `session`. A bundle of
safetensors files alone needs PyTorch; see `networks`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..data.decode import load_pixels
from ..errors import BundleError
from .layout import INDEX, BundleFiles, open_bundle
from .progress import Progress

if TYPE_CHECKING:
    import pandas as pd

ImageLike = Path | str | bytes | Image.Image | NDArray[np.uint8]

#: What runs a bundle: its graph, or its networks in PyTorch; the graph where there is one, unless told otherwise.
Engine = Literal["onnx", "torch"]

#: Images decoded and held at a time.
CHUNK = 256


class Answers(Protocol):
    """What runs a bundle."""

    def answer(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What the ensemble says, (images, classes), and its fold models, (members, folds, images, classes)."""

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The former alone, with no more networks than that takes."""

    def combine(self, proba: NDArray[np.float32]) -> NDArray[np.float32]:
        """(members, folds, images, classes) to (images, classes)."""


class Bundle:
    """An exported winner.

    >>> bundle = Bundle.load("bundles/clothing")          # doctest: +SKIP
    >>> bundle.predict(["a.jpg", "b.jpg"]).round(2)       # doctest: +SKIP
    array([[0.91, 0.02, ...

    Attributes:
        classes: in column order.
        image_size: side of the square that every image is brought to.
        members: names, in the order of `votes`.
        index: what `bundle.json` says.
    """

    def __init__(self, index: dict[str, Any], engine: Answers) -> None:
        self.index = index
        self.classes: tuple[str, ...] = tuple(index["classes"])
        self.image_size: int = index["image_size"]
        self.members = tuple(str(member["name"]) for member in index["members"])
        self._engine = engine

    @classmethod
    def load(cls, path: str | Path, *, engine: Engine | None = None, threads: int = 0) -> Bundle:
        """Checks every file's digest, then builds what runs.

        Args:
            path: the folder or the .zip that `ensembler export` wrote.
            engine: None: the graph where there is one.
            threads: that the graph may use; 0: one a core.

        Raises:
            BundleError: a missing, altered or foreign file; names it. A library that is missing.
        """
        files = open_bundle(Path(path))
        try:
            return cls(files.index, _engine(files, engine, threads))
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise BundleError(f"{files.where(INDEX)}: cannot be used ({error}); export again") from error

    @property
    def name(self) -> str:
        """The row of the leaderboard that was exported."""
        return str(self.index["name"])

    def predict(self, images: Iterable[ImageLike], *, progress: bool = False) -> NDArray[np.float32]:
        """Probabilities float32 (images, classes) of files, encoded bytes, PIL images or uint8 RGB arrays.

        Args:
            images: as many as there are; no more than `CHUNK` of them are held at a time.
            progress: draw a line on standard error that tells how far it is.

        Raises:
            UnreadableImageError: naming the first image that does not decode.
        """
        parts, chunk = [np.empty((0, len(self.classes)), np.float32)], []
        total = len(images) if isinstance(images, Sequence) else None
        with Progress(total, shown=progress) as bar:
            for image in images:
                chunk.append(load_pixels(_readable(image), self.image_size))
                if len(chunk) == CHUNK:
                    parts.append(self.predict_pixels(np.stack(chunk)))
                    bar.add(len(chunk))
                    chunk = []
            if chunk:
                parts.append(self.predict_pixels(np.stack(chunk)))
                bar.add(len(chunk))
        return np.concatenate(parts)

    def predict_frame(self, paths: Sequence[Path | str], *, progress: bool = False) -> pd.DataFrame:
        """The same as a table; see `frame`. Needs pandas."""
        return self.frame(paths, self.predict(paths, progress=progress))

    def predict_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities (images, classes) of uint8 images (images, size, size, 3) at the bundle's own size.

        Of a cascade only the members are run that an image needs.
        """
        return self._engine.predict(self._checked(pixels))

    def answer(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The same, and what each member says by itself, (members, images, classes), in one pass of all members."""
        proba, said = self._engine.answer(self._checked(pixels))
        return proba, self.votes(said)

    def fold_probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(members, folds, images, classes): what each fold model of each member says."""
        return self._engine.answer(self._checked(pixels))[1]

    def votes(self, proba: NDArray[np.float32]) -> NDArray[np.float32]:
        """(members, folds, images, classes) to (members, images, classes): what each member says by itself."""
        return np.asarray(proba.mean(axis=1, dtype=np.float64), np.float32)

    def combine(self, proba: NDArray[np.float32]) -> NDArray[np.float32]:
        """(members, folds, images, classes) to (images, classes), the ensemble's answer."""
        if self.index["combiner"] is None:
            alone: NDArray[np.float32] = self.votes(proba)[0]
            return alone
        return self._engine.combine(proba)

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

    def _checked(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        size = self.image_size
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (size, size, 3):
            raise ValueError(
                f"pixels: {pixels.dtype} {pixels.shape}; expected uint8 (images, {size}, {size}, 3); predict() takes "
                "images of any size"
            )
        return pixels


def _engine(files: BundleFiles, wanted: Engine | None, threads: int) -> Answers:
    has_graph = files.index.get("graph") is not None
    if wanted == "onnx" and not has_graph:
        raise BundleError(f"{files.where(INDEX)}: holds no graph; export with --format onnx or both")
    if wanted != "torch" and has_graph:
        from .session import GraphSession

        return GraphSession(files, threads)
    if not any(member["folds"] for member in files.index["members"]):
        raise BundleError(
            f"{files.where(INDEX)}: holds no weights for PyTorch; export with --format torch or both"
        )
    try:
        from .networks import Networks
    except ImportError as error:
        raise BundleError(
            f"{files.where(INDEX)}: needs PyTorch ({error}); pip install 'ensembler[train]', or export with "
            "--format onnx"
        ) from error
    return Networks.load(files)


def _readable(image: ImageLike) -> Path | bytes | Image.Image:
    if isinstance(image, str):
        return Path(image)
    return Image.fromarray(image) if isinstance(image, np.ndarray) else image
