"""From the store's Cells to members: for the test column, for latencies, and for the export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..store import RunStore
from ..training.candidate import Candidate
from .member import FoldWeights, Member


def build_member(
    store: RunStore,
    candidate: Candidate,
    n_folds: int,
    classes: Sequence[str],
    image_size: int,
    weights_files: Mapping[str, Path],
) -> Member:
    """The member that averages a candidate's fold models.

    Args:
        store: of the run.
        candidate: trained on every fold.
        n_folds: k.
        classes: in column order.
        image_size: side of the images.
        weights_files: `Candidate.weights` -> file; needed where the body was frozen and thus not stored.
    """
    cells = [store.cell(candidate.id, fold) for fold in range(n_folds)]
    folds = [FoldWeights(cell.weights(), cell.temperature) for cell in cells]
    body = weights_files[candidate.weights] if candidate.strategy == "probe" else None
    return Member(candidate.backbone, classes, image_size, folds, body_file=body)
