"""Which fitted rows are near a row: in what the members say of it, or in the features of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import CombinerError
from ..predictions import Predictions
from .base import Combiner, Proba
from .meta import required_features

Space = Literal["predictions", "features"]
Points = NDArray[np.float32]

#: Rows whose distances to all others are held at a time.
CHUNK = 512


@dataclass(eq=False, kw_only=True)
class NeighbourCombiner(Combiner):
    """A combiner that looks up rows near the one it answers for; the base of those that do.

    Attributes:
        space: `predictions`: the distance of two rows is that of Hellinger between what each member says of
            them, taken together: the Euclidean one of the square roots of their probabilities. `features`: the
            Euclidean one of `Predictions.features` as they are; an ensemble that needs them cannot be
            exported, because a bundle has its members' probabilities alone.
        max_rows: rows that are kept to be looked up, 1 or more; drawn where there are more.
        seed: of that draw.
        points_: float32 (rows, dims), the fitted rows.
    """

    learned: ClassVar[tuple[str, ...]] = ("points_",)
    by_name: ClassVar[bool] = True

    space: Space = "predictions"
    max_rows: int = 20_000
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("max_rows", int, 1)
        self._require("seed", int, 0)
        if self.space not in get_args(Space):
            raise CombinerError(
                f"{self.name}: space is {self.space!r}; expected one of {', '.join(get_args(Space))}"
            )

    @property
    def needs_features(self) -> bool:
        """Whether they are where the rows lie."""
        return self.space == "features"

    def _kept(self, predictions: Predictions) -> Predictions:
        """The rows that are kept: all, or `max_rows` of them in their order."""
        if predictions.n_samples <= self.max_rows:
            return predictions
        drawn = np.random.default_rng(self.seed).choice(predictions.n_samples, self.max_rows, replace=False)
        return predictions.rows(np.sort(drawn))

    def _locate(self, predictions: Predictions) -> Points:
        """Where the rows lie: float32 (samples, dims)."""
        if self.space == "predictions":
            return hellinger_points(predictions.proba)
        return required_features(predictions, f"{self.label}: space 'features'").astype(np.float32)

    def _neighbours(self, predictions: Predictions, points: Points, k: int) -> NDArray[np.intp]:
        """Positions in `points` of the k nearest to each row, nearest first."""
        queries = self._locate(predictions)
        if queries.shape[1] != points.shape[1]:
            raise CombinerError(
                f"{self.label}: fitted on {points.shape[1]} features, given {queries.shape[1]}; give those of "
                "the same backbone"
            )
        return nearest(queries, points, k)


def hellinger_points(proba: Proba) -> Points:
    """(members, samples, classes) to (samples, members x classes), whose Euclidean distance is Hellinger's.

    Squared, it is the mean over the members of the squared distance of Hellinger, in [0, 1].
    """
    roots = np.sqrt(np.maximum(proba, 0).transpose(1, 0, 2) / np.float32(2 * len(proba)))
    return roots.reshape(len(roots), -1)


def nearest(queries: Points, points: Points, k: int) -> NDArray[np.intp]:
    """The k nearest of `points` to each query, or all where there are fewer: (queries, k), nearest first.

    Of points as near as each other the first comes first; but which of them are among the k at all, where
    more are tied for the last place, is left to the sort.
    """
    k = min(k, len(points))
    found = np.empty((len(queries), k), np.intp)
    sizes = np.einsum("ij,ij->i", points, points)
    for start in range(0, len(queries), CHUNK):
        rows = slice(start, start + CHUNK)
        distance = sizes - 2 * (queries[rows] @ points.T)  # less the query's own size, the same for all
        close = np.sort(np.argpartition(distance, k - 1, axis=1)[:, :k], axis=1)
        order = np.argsort(np.take_along_axis(distance, close, axis=1), axis=1, kind="stable")
        found[rows] = np.take_along_axis(close, order, axis=1)
    return found
