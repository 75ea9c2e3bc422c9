"""A bundle's safetensors files at work: PyTorch, timm and the combiners themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from ..combiners import Combiner, from_state
from ..combiners.fold_models import average_folds, combine_folds
from ..errors import BundleError, CombinerError, WeightsError
from .layout import COMBINER, BundleFiles
from .member import FoldWeights, Member


class Networks:
    """Members one after another, then the combiner: what `GraphSession` does in one graph.

    Args:
        members: by name.
        combiner: fitted; None for one member alone.
        classes: in column order.
    """

    def __init__(
        self, members: Mapping[str, Member], combiner: Combiner | None, classes: tuple[str, ...]
    ) -> None:
        self.members, self.combiner, self._classes = members, combiner, classes

    @classmethod
    def load(cls, files: BundleFiles) -> Networks:
        """Checks every file's digest, then builds the members.

        Raises:
            BundleError: names the file that cannot be used.
        """
        index = files.index
        files.verify()
        try:
            # All headers are read before a network is built from any of them.
            state = index["combiner"]
            learned = {} if state is None else _arrays(files, COMBINER)
            weights = [_MemberArrays.read(files, entry) for entry in index["members"]]
            combiner = None if state is None else from_state(state, learned)
            members = {
                entry["name"]: _member(entry, arrays, index)
                for entry, arrays in zip(index["members"], weights, strict=True)
            }
        except (KeyError, TypeError, ValueError, CombinerError, WeightsError) as error:
            raise BundleError(
                f"{files.where('bundle.json')}: cannot be used ({error}); export again"
            ) from error
        return cls(members, combiner, tuple(index["classes"]))

    def answer(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What the ensemble says, (images, classes), and its fold models, (members, folds, images, classes)."""
        answers = [member.predict_folds(pixels) for member in self.members.values()]
        n_folds = max(map(len, answers))
        # One network beside the fold models of others says the same in each fold.
        said = np.stack([np.repeat(one, n_folds, 0) if len(one) < n_folds else one for one in answers])
        return self.combine(said), said

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the ensemble says, (images, classes)."""
        return self.answer(pixels)[0]

    def combine(self, proba: NDArray[np.float32]) -> NDArray[np.float32]:
        """(members, folds, images, classes) to (images, classes); see `combiners.fold_models`."""
        if self.combiner is None:
            alone: NDArray[np.float32] = average_folds(proba)[0]
            return alone
        return combine_folds(self.combiner, proba, list(self.members), self._classes)


@dataclass(frozen=True, eq=False)
class _MemberArrays:
    folds: list[FoldWeights]
    body: dict[str, NDArray[Any]] | None

    @classmethod
    def read(cls, files: BundleFiles, entry: dict[str, Any]) -> _MemberArrays:
        folds = [
            FoldWeights(_arrays(files, fold["file"]), float(fold["temperature"])) for fold in entry["folds"]
        ]
        return cls(folds, _arrays(files, entry["body"]) if entry["body"] else None)


def _member(entry: dict[str, Any], arrays: _MemberArrays, index: dict[str, Any]) -> Member:
    return Member(
        entry["architecture"],
        index["classes"],
        index["image_size"],
        arrays.folds,
        body=arrays.body,
        mean=entry["mean"],
        std=entry["std"],
        hidden=entry.get("hidden", ()),
        mirror=entry.get("mirror", False),
    )


def _arrays(files: BundleFiles, name: str) -> dict[str, NDArray[Any]]:
    content = files.read(name)
    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{files.where(name)}: its header lies ({error}); do not use it") from error
