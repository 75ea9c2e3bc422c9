"""From the store's Cells to members: for the test column, for latencies, and for the export."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import comparison
from ..cells import StoredCell
from ..combiners.cascade import Cascade
from ..data.cache import pixel_folder
from ..evaluation.trade_off import TradeOff, trade_off
from ..store import RunStore
from ..training.backbone import hidden_widths
from ..training.blueprint import describe
from ..training.candidate import COLLAPSED, EVERY_ROW, Candidate
from .choose import Chosen, choices
from .export import MemberSource, TooSlowError, write_bundle
from .member import FoldWeights, Member
from .monitor.make import make_reference
from .options import ExportOptions

if TYPE_CHECKING:
    from .graph.check import Sample

#: Out-of-fold images that a graph is held against PyTorch with, and those where a change of the scores is told too.
SAMPLE, SCORED_SAMPLE = 64, 256


def export_run(
    store: RunStore,
    *,
    experiment: str,
    image_size: int,
    oof_pixels: Callable[[], Path],
    test_pixels: Callable[[], Path | None],
    path: Path | None,
    ensemble: str | None,
    options: ExportOptions,
) -> Path:
    """Writes a row of the leaderboard as a bundle; with a limit on the latency alone, the first row that keeps to it.

    Args:
        store: of the run.
        experiment: its name.
        image_size: side of the images.
        oof_pixels, test_pixels: find the decoded images, for a run whose cache is gone.
        path: where to; `bundles/<experiment>-<row>` where it is None.
        ensemble: the row; the recommended one where it is None.
        options: formats, precision, limits.

    Raises:
        BundleError: see `choices` and `write_bundle`.
    """
    board = comparison.read_leaderboard(store)
    manifest = store.manifest()
    refused: list[TooSlowError] = []
    for one in choices(store, board, ensemble, options):
        try:
            return write_bundle(
                path or Path("bundles") / f"{experiment}-{one.row['name']}",
                experiment=experiment,
                row=one.row,
                verdict=board.verdict.sentence,
                classes=manifest["classes"],
                image_size=image_size,
                members=[
                    member_source(store, candidate, image_size, name) for name, candidate in one.members
                ],
                combiner=one.combiner,
                data={
                    "images": manifest["images"],
                    "test_images": manifest["test_images"],
                    "fingerprint": manifest["identity"]["fingerprint"],
                    "image_size": image_size,
                    "k": manifest["k"],
                },
                versions=manifest["machine"]["versions"],
                sample=_sampler(
                    store, one, oof_pixels, SAMPLE if options.precision == "fp32" else SCORED_SAMPLE
                ),
                reference=partial(
                    make_reference,
                    store,
                    one,
                    stored=options.precision == "fp32",
                    oof_pixels=oof_pixels,
                    test_pixels=test_pixels,
                ),
                options=options,
                curve=_curve(store, one),
            )
        except TooSlowError as error:
            refused.append(error)
            print(f"warning: {error}", file=sys.stderr)
    raise refused[0]


def _curve(store: RunStore, one: Chosen) -> list[TradeOff]:
    if not isinstance(one.combiner, Cascade):
        return []
    return trade_off(one.combiner, store.predictions().select(one.combiner.members_))


def _sampler(store: RunStore, one: Chosen, oof_pixels: Callable[[], Path], n: int) -> Callable[[], Sample]:
    """Draws out-of-fold images, the same each time."""

    def draw() -> Sample:
        from .graph.check import Sample

        manifest, table = store.manifest(), store.table()
        table = table[table["split"] == "oof"]
        known = pixel_folder() / manifest.get("pixels", {}).get("oof", "gone")
        pixels = np.load(known if known.is_file() else oof_pixels(), mmap_mode="r")
        rows = np.sort(np.random.default_rng(0).permutation(len(table))[:n])
        honest = all(candidate.kind not in COLLAPSED for _, candidate in one.members)
        fold = table["fold"].to_numpy(np.int64)[rows]
        return Sample(
            pixels=np.array(pixels[rows]),
            labels=np.array([manifest["classes"].index(label) for label in table["label"].to_numpy()[rows]]),
            fold=fold if honest else np.zeros_like(fold),
            honest=honest,
        )

    return draw


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


def member_source(
    store: RunStore, candidate: Candidate, image_size: int, name: str | None = None
) -> MemberSource:
    """The same with the files that an export copies, under its own name unless told otherwise."""
    cells = stored_models(store, candidate)
    return MemberSource(
        name=name or candidate.name,
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
