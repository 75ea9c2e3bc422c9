"""A cascade at work: each image runs through no more networks than it takes to be sure.

The fold models of a candidate decide by themselves, as they do everywhere (`combiners.fold_models`): an image may be
answered by the first member's model of one fold, and need three members' models of another. So the answer is that of
the whole graph, and what is saved are the networks whose answer would not have been looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Images (rows), and which networks to run on them, bool (members, folds), to what these say:
#: float32 (members, folds, rows, classes), of the others anything.
Run = Callable[[NDArray[np.intp], NDArray[np.bool_]], NDArray[np.float32]]


@dataclass(frozen=True)
class Stages:
    """A fitted cascade of a bundle's members.

    Attributes:
        order: position of the member that each stage asks.
        thresholds: largest probability with which each stage but the last answers; infinite where it never does.
        together: of each member, whether its fold models are one network or share their body, and so run as one.
    """

    order: tuple[int, ...]
    thresholds: tuple[float, ...]
    together: tuple[bool, ...]

    @classmethod
    def from_index(cls, record: Mapping[str, Any]) -> Stages:
        """From JSON, where an infinite threshold is null.

        Raises:
            KeyError, TypeError, ValueError: it is not what `to_index` made.
        """
        limits = [np.inf if limit is None else float(limit) for limit in record["thresholds"]]
        order, together = tuple(map(int, record["order"])), tuple(map(bool, record["together"]))
        if sorted(order) != list(range(len(together))) or len(limits) != len(order) - 1:
            raise ValueError(
                f"cascade of {len(order)} stages, {len(limits)} thresholds, {len(together)} members"
            )
        return cls(order, tuple(limits), together)

    def to_index(self) -> dict[str, Any]:
        """JSON-able."""
        limits = [limit if np.isfinite(limit) else None for limit in self.thresholds]
        return {"order": list(self.order), "thresholds": limits, "together": list(self.together)}

    def answer(self, run: Run, n_images: int, n_folds: int, n_classes: int) -> NDArray[np.float32]:
        """Probabilities (images, classes); the numbers are those of `combiners.cascade`, sums in the same order."""
        sums = np.zeros((n_folds, n_images, n_classes))
        answers = np.zeros_like(sums)
        unsure = np.ones((n_folds, n_images), np.bool_)
        limits = [*self.thresholds, -np.inf]
        for stage, (member, limit) in enumerate(zip(self.order, limits, strict=True), 1):  # pragma: no branch
            for group in [np.arange(n_folds)] if self.together[member] else _alike(unsure):
                rows = np.flatnonzero(unsure[group].any(axis=0))
                if len(rows):
                    wanted = np.zeros((len(self.order), n_folds), np.bool_)
                    wanted[member, group] = True
                    sums[np.ix_(group, rows)] += run(rows, wanted)[member, group]
            mean = sums / stage
            done = unsure & (mean.max(axis=2) >= limit)
            answers[done] = mean[done]
            unsure &= ~done
            if not unsure.any():
                break
        # Like the combiner's own output, each row sums to one before folds are averaged.
        answers /= answers.sum(axis=2, keepdims=True)
        return np.asarray(answers.mean(axis=0), np.float32)


def _alike(unsure: NDArray[np.bool_]) -> list[NDArray[np.intp]]:
    """Folds that are unsure of the same images, and can be asked in one run."""
    groups: dict[bytes, list[int]] = {}
    for fold, row in enumerate(unsure):
        groups.setdefault(row.tobytes(), []).append(fold)
    return [np.array(group) for group in groups.values()]
