"""Which candidate is boosted next; `training/emphasis.py` weighs its rows."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

from ..metrics import Metric
from ..training.candidate import Candidate
from .arms import Arm


def next_boosted(
    ensemble: Sequence[Candidate],
    tried: Sequence[Candidate],
    scores: Mapping[str, float],
    arms: Sequence[Arm],
    metric: Metric,
    backbones: Sequence[str] = (),
) -> Candidate | None:
    """The default recipe of the best backbone that has been boosted least, on the errors of an ensemble.

    Strategy, weights and epochs are those of the backbone's best candidate.

    Args:
        ensemble: candidates so far, those boosted earlier among them, all with their Cells.
        tried: boosted earlier, whatever came of it.
        scores: of each, by id, on monitor rows.
        arms: that may be trained.
        metric: direction of the scores.
        backbones: that are boosted in this order, again from the first after the last; none leaves it to the scores.

    Returns:
        None where no candidate of the ensemble is of an arm, or none of a backbone that is asked for.
    """
    best_first = sorted(ensemble, key=lambda c: (-metric.improvement(scores[c.id], 0.0), c.id))
    defaults: dict[str, Candidate] = {}
    for candidate in best_first:
        arm = next((arm for arm in arms if arm.is_of(candidate)), None)
        if arm is not None:
            defaults.setdefault(candidate.backbone, arm.default.with_epochs(candidate.recipe.epochs))
    boosted = Counter(candidate.backbone for candidate in tried)
    turn = [name for name in backbones or defaults if name in defaults]
    if not turn:
        return None
    name = min(turn, key=lambda name: (boosted[name], turn.index(name)))
    parts = tuple(sorted(candidate.id for candidate in ensemble))
    return dataclasses.replace(defaults[name], kind="boosted", parts=parts)
