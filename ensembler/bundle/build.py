"""From the store's Cells to members: for the test column, for latencies, and for the export."""

from __future__ import annotations

from pathlib import Path

from ..cells import StoredCell
from ..store import RunStore
from ..training.backbone import describe, hidden_widths
from ..training.candidate import COLLAPSED, EVERY_ROW, Candidate
from .export import MemberSource
from .member import FoldWeights, Member


def build_member(store: RunStore, candidate: Candidate, image_size: int) -> Member:
    """The member that averages a candidate's fold models, or is the one model of what was trained on every row.

    A frozen body is not in the Cells: it is read from the weights file that training read.
    """
    manifest = store.manifest()
    cells = stored_models(store, candidate)
    folds = [FoldWeights(cell.weights(), cell.temperature) for cell in cells]
    body = Path(manifest["weights_files"][candidate.weights]) if candidate.frozen_body else None
    return Member(
        candidate.backbone,
        manifest["classes"],
        image_size,
        folds,
        body_file=body,
        hidden=() if body else hidden_widths(candidate.recipe),
        mirror=candidate.recipe.tta and body is None,
    )


def member_source(store: RunStore, candidate: Candidate, image_size: int) -> MemberSource:
    """The same with the files that an export copies."""
    cells = stored_models(store, candidate)
    return MemberSource(
        name=candidate.name,
        architecture=candidate.backbone,
        weights=candidate.weights,
        licence=describe(candidate.backbone).licence,
        member=build_member(store, candidate, image_size),
        folds=[(cell.weights_file, cell.temperature) for cell in cells],
    )


def stored_models(store: RunStore, candidate: Candidate) -> list[StoredCell]:
    """The Cells whose weights are deployed."""
    folds = (EVERY_ROW,) if candidate.kind in COLLAPSED else range(store.manifest()["k"])
    return [store.cell(candidate.id, fold) for fold in folds]
