"""Which of the search's candidates are cross-validated, and in which order they are considered."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..metrics import Metric
from ..training.candidate import Candidate

#: A score is near the best one if it is at least this share of the way from chance to it.
NEAR_SHARE = 0.85

T = TypeVar("T", bound=Hashable)

_ORDER = {"finished": 0, "stopped": 1}


@dataclass(frozen=True)
class Ranking:
    """Candidates of a search.

    Attributes:
        best_first: by monitor score; those that a scheduler stopped come after those that ended.
        must: the best of every backbone, best first.
    """

    best_first: tuple[Candidate, ...]
    must: tuple[Candidate, ...]

    @property
    def turn(self) -> list[Candidate]:
        """The order in which they are considered: one of every backbone, then the best of the rest."""
        return [*self.must, *(c for c in self.best_first if c not in self.must)]

    def kept(self, keep: int) -> list[Candidate]:
        """The `keep` first in turn, more where there are more backbones; best first."""
        chosen = set(self.turn[: max(keep, len(self.must))])
        return [c for c in self.best_first if c in chosen]


def rank(trials: Iterable[tuple[Candidate, Mapping[str, Any]]], metric: Metric) -> Ranking:
    """Ranks the candidates of a search.

    Stopped trials come last: the scheduler has found them weak, and their fold is still to be trained. Equal scores
    are ordered by content: numbers depend on what an earlier, killed run had finished.

    Args:
        trials: candidates with their records (`status`, `score`); failed ones are passed over.
        metric: direction of the scores.
    """
    scored = [(c, t) for c, t in trials if t["status"] in _ORDER and t["score"] is not None]
    scored.sort(key=lambda t: (_ORDER[t[1]["status"]], -metric.improvement(t[1]["score"], 0.0), t[0].id))
    best_first = tuple(dict.fromkeys(candidate for candidate, _ in scored))
    return Ranking(best_first, _first_of_each(best_first))


def chance_score(metric: Metric, labels: NDArray[np.int64], n_classes: int) -> float:
    """The score of always answering with the class frequencies."""
    frequencies = np.bincount(labels, minlength=n_classes) / len(labels)
    return metric(labels, np.tile(frequencies, (len(labels), 1)))


def near_best(scores: Mapping[T, float], metric: Metric, chance: float) -> list[T]:
    """Those whose score comes near the best one; all of them where none is better than chance.

    >>> from ensembler.metrics import get_metric
    >>> near_best({"a": 0.90, "b": 0.80, "c": 0.60}, get_metric("accuracy"), chance=0.1)
    ['a', 'b']
    """
    gains = {key: metric.improvement(score, chance) for key, score in scores.items()}
    most = max(gains.values(), default=0.0)
    return [key for key, gain in gains.items() if gain >= NEAR_SHARE * most or most <= 0]


def _first_of_each(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    first: dict[tuple[str, str], Candidate] = {}
    for candidate in candidates:
        first.setdefault((candidate.backbone, candidate.weights), candidate)
    return tuple(first.values())
