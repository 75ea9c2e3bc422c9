"""Every candidate as it would be deployed: its latency, its size, its answers on the test split."""

from __future__ import annotations

from typing import Any

import numpy as np

from .combiners.fold_models import average_folds
from .data.cache import DecodedImages
from .predictions import Predictions
from .store import RunStore


def deploy(store: RunStore, image_size: int, images: DecodedImages | None) -> bool:
    """Measures every candidate on the board and stores its costs and its test predictions.

    Both come from `bundle.member.Member`, which the exported bundle runs: what is scored is what is deployed.

    Args:
        store: of the run, its winner chosen.
        image_size: side of the images.
        images: with their test part; None without a test split.

    Returns:
        False when all of it was known already.
    """
    from .bundle.build import build_member

    candidates = store.candidates()
    wanted = [c.name for c in candidates]
    tested = images is None or images.test is None or _is_tested(store, wanted)
    if tested and set(wanted) == set(store.manifest().get("costs", {})):
        return False
    n_folds = store.manifest()["k"]
    costs: dict[str, Any] = {}
    proba = []
    latency: dict[tuple[Any, ...], float] = {}
    pixels = None if images is None or images.test is None else np.load(images.test, mmap_mode="r")
    for candidate in candidates:
        member = build_member(store, candidate, image_size)
        recipe = candidate.recipe
        # All that its latency depends on.
        kind = (candidate.backbone, member.frozen, recipe.tta, recipe.head_layers, recipe.head_width)
        if kind not in latency:
            latency[kind] = round(member.latency_ms(), 3)
        trained = sum(store.cell(candidate.id, fold).train_s for fold in range(n_folds))
        costs[candidate.name] = {
            "latency_ms": latency[kind],
            "params": member.params,
            "train_s": round(trained, 3),
        }
        if pixels is not None:
            proba.append(member.predict_folds(pixels))
    if images is not None and proba:
        table = images.table.test
        by_fold = np.stack(proba)
        averaged = Predictions.from_arrays(
            average_folds(by_fold),
            table.labels,
            members=wanted,
            classes=table.classes,
            sample_ids=table.ids.tolist(),
            split="test",
        )
        store.write_test(averaged, by_fold)
    store.update_manifest(costs=costs)
    return True


def _is_tested(store: RunStore, candidates: list[str]) -> bool:
    """Whether the fold models of just these candidates have answered; an older run holds their averages alone."""
    known = store.test_predictions()
    return known is not None and list(known.members) == candidates and store.test_by_fold() is not None
