"""The linear algebra behind heads on frozen features: the normal equations of each fold, from shared sums.

A fold's Gram matrix is a sum over its rows, and most rows train the same folds as many others do. So the sums are
taken once for each set of rows that train the same folds, and added up a fold. They are added and never subtracted:
"the sum of all rows less the held-out ones" would leave rounding errors of the holdout rows in the head that is
about to be judged on them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import NonFiniteLossError

#: A set of rows smaller than this is added to each of its folds row by row, instead of as a matrix of its own: adding
#: a matrix (width, width) costs about as much as the products of a few dozen rows.
SHARED_ROWS = 64

#: Rows turned into float64 at a time.
CHUNK_ROWS = 8192

#: Columns of a Gram matrix filled at a time.
PANEL = 64

#: A feature whose variance is this small beside its mean square is constant: what is left is rounding.
CONSTANT = 1e-12


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalues of the Gram matrix of a fold's train rows, standardised, and the basis of its eigenvectors.

    Penalised heads need no other directions, and in these their problem is nearly a separate one for each. It is a
    change of basis and not a solution, so float32 does.

    Attributes:
        mean: float32 (width,).
        scale: float32 (width,), one over the standard deviation; 0 for a constant feature.
        vectors: float32 (width, rank), orthonormal; rank <= min(rows, width).
        values: float32 (rank,), none negative.
    """

    mean: Tensor
    scale: Tensor
    vectors: Tensor
    values: Tensor

    def project(self, features: Tensor) -> Tensor:
        """float32 (rows, rank) of raw features (rows, width): standardised, then in the basis of the eigenvectors."""
        return ((features - self.mean) * self.scale) @ self.vectors


@dataclass(frozen=True, eq=False)
class Normal:
    """The normal equations of least squares on a fold's train rows, standardised, with one-hot targets.

    With X the standardised rows (rows, width) they are X'X W = X'Y, or, where there are more features than rows,
    XX' A = Y with W = X'A: the smaller of the two.

    Attributes:
        matrix: float64 (size, size), X'X or XX'; only its upper triangle means anything.
        right: float64 (size, classes), X'Y or the centred Y.
        dual: X float64 (rows, width) where `matrix` is XX', else None.
        rows: number of train rows.
        mean: float64 (width,).
        scale: float64 (width,), one over the standard deviation; 0 for a constant feature.
        shares: float64 (classes,), of each class among the rows.
    """

    matrix: Tensor
    right: Tensor
    dual: Tensor | None
    rows: int
    mean: Tensor
    scale: Tensor
    shares: Tensor

    def standardise(self, features: Tensor) -> Tensor:
        """float64 (rows, width) of raw features."""
        return (features.double() - self.mean) * self.scale

    def spectrum(self) -> Spectrum:
        """The basis in which a logistic head is found in few steps."""
        if self.dual is None:
            values, vectors = torch.linalg.eigh(self.matrix.float(), UPLO="U")
        else:  # here eigenvectors are made of those of XX' by a division: what is rounding has to be left out
            values, left = torch.linalg.eigh(self.matrix, UPLO="U")
            size = max(self.dual.shape)
            real = values > values[-1].clamp(min=0) * size * torch.finfo(values.dtype).eps
            values = values[real]
            vectors = self.dual.T @ (left[:, real] / values.sqrt())
        return Spectrum(self.mean.float(), self.scale.float(), vectors.float(), values.clamp(min=0).float())


def normal_equations(
    features: Tensor, labels: Tensor, train: Sequence[NDArray[np.int64]], n_classes: int
) -> list[Normal]:
    """Those of each fold.

    Args:
        features: float32 (samples, width).
        labels: int64 (samples,).
        train: for each fold the numbers of its train rows; any sets of rows.
        n_classes: columns of the heads, whether or not every class occurs.

    Raises:
        NonFiniteLossError: features of train rows that are not finite.
    """
    width = features.shape[1]
    narrow = [fold for fold, rows in enumerate(train) if len(rows) > width]
    none = functools.partial(_Sums.none, width, n_classes, features.device)
    sums = {fold: none() for fold in narrow}
    for rows, members in _blocks(len(labels), [train[fold] for fold in narrow]):
        if len(members) == 1:
            sums[narrow[members[0]]].add_rows(features, labels, rows)
            continue
        part = none()
        part.add_rows(features, labels, rows)
        for member in members:
            sums[narrow[member]].add(part)
    found = [
        _from_sums(sums[fold]) if fold in sums else _from_rows(features, labels, rows, n_classes)
        for fold, rows in enumerate(train)
    ]
    for one in found:
        if not torch.isfinite(one.matrix.diagonal()).all():
            raise NonFiniteLossError(
                "no head can be fitted: features of the backbone are not finite; take other weights"
            )
    return found


@dataclass(eq=False)
class _Sums:
    """The upper triangle of X'X, each class's sum (classes, width) and number of rows (classes,); all float64."""

    gram: Tensor
    class_sums: Tensor
    counts: Tensor

    @classmethod
    def none(cls, width: int, n_classes: int, device: torch.device) -> _Sums:
        shapes = ((width, width), (n_classes, width), (n_classes,))
        return cls(*(torch.zeros(shape, dtype=torch.float64, device=device) for shape in shapes))

    def add_rows(self, features: Tensor, labels: Tensor, rows: NDArray[np.int64]) -> None:
        index = torch.from_numpy(rows).to(features.device)
        for part in torch.split(index, CHUNK_ROWS):
            x = features[part].double()
            y = _one_hot(labels[part], len(self.counts))
            for start in range(0, x.shape[1], PANEL):  # a symmetric product, for which torch has no call
                stop = start + PANEL
                self.gram[start:stop, start:].addmm_(x[:, start:stop].T, x[:, start:])
            self.class_sums.addmm_(y.T, x)
            self.counts += y.sum(0)

    def add(self, other: _Sums) -> None:
        self.gram += other.gram
        self.class_sums += other.class_sums
        self.counts += other.counts


def _one_hot(labels: Tensor, n_classes: int) -> Tensor:
    return torch.nn.functional.one_hot(labels, n_classes).double()


def _blocks(
    samples: int, train: Sequence[NDArray[np.int64]]
) -> Iterator[tuple[NDArray[np.int64], list[int]]]:
    """Sets of rows with the folds that they train: the large sets that several folds share, then each fold's rest."""
    trains = np.zeros((samples, len(train)), bool)
    for fold, rows in enumerate(train):
        trains[rows, fold] = True
    patterns, pattern_of, counts = np.unique(trains, axis=0, return_inverse=True, return_counts=True)
    shared = (counts >= SHARED_ROWS) & (patterns.sum(1) > 1)
    for number in np.flatnonzero(shared):
        yield np.flatnonzero(pattern_of == number), np.flatnonzero(patterns[number]).tolist()
    alone = ~shared[pattern_of]
    for fold in range(len(train)):
        yield np.flatnonzero(trains[:, fold] & alone), [fold]


def _scale(variance: Tensor, mean_square: Tensor) -> Tensor:
    varies = variance > CONSTANT * mean_square
    return torch.where(varies, torch.where(varies, variance, 1.0).rsqrt(), 0.0)


def _from_sums(sums: _Sums) -> Normal:
    n = float(sums.counts.sum())
    total = sums.class_sums.sum(0)
    mean, square = total / n, sums.gram.diagonal() / n
    scale = _scale(square - mean.square(), square)
    matrix = sums.gram.addr_(mean, mean, alpha=-n).mul_(scale[:, None]).mul_(scale)
    centred = (sums.class_sums - sums.counts[:, None] * mean) * scale
    return Normal(matrix, centred.T, None, int(n), mean, scale, sums.counts / n)


def _from_rows(features: Tensor, labels: Tensor, rows: NDArray[np.int64], n_classes: int) -> Normal:
    index = torch.from_numpy(rows).to(features.device)
    x, y = features[index].double(), _one_hot(labels[index], n_classes)
    mean = x.mean(0)
    centred = x - mean
    scale = _scale(centred.square().mean(0), x.square().mean(0))
    centred *= scale
    shares = y.mean(0)
    return Normal(centred @ centred.T, y - shares, centred, len(rows), mean, scale, shares)
