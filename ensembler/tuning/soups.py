"""Which candidates go into one soup; `training/soup.py` cooks it."""

from __future__ import annotations

from collections.abc import Sequence

from ..training.candidate import Candidate
from ..training.recipe import Recipe


def soups_of(candidates: Sequence[Candidate]) -> list[Candidate]:
    """One soup for each backbone of which two candidates or more started from the same weights.

    Heads have to be of one shape, and prediction of one kind. Candidates of random weights start elsewhere each, and a
    head on frozen features is no network of its own.

    Args:
        candidates: with all their Cells.

    Returns:
        Soups in the order of their first candidates. Their recipe says no more than what prediction has to know.
    """
    groups: dict[tuple[str, str, Recipe], list[str]] = {}
    for one in candidates:
        if one.fine_tuned and one.weights != "random":
            width = one.recipe.head_width if one.recipe.head_layers else Recipe().head_width
            shape = Recipe(head_layers=one.recipe.head_layers, head_width=width, tta=one.recipe.tta)
            groups.setdefault((one.backbone, one.weights, shape), []).append(one.id)
    return [
        Candidate(backbone, weights, "soup", shape, "soup", tuple(sorted(ids)))
        for (backbone, weights, shape), ids in groups.items()
        if len(ids) > 1
    ]
