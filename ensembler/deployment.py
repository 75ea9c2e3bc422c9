"""Every candidate as it would be deployed: its latency, its size, its answers on the test split."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    names = [c.name for c in store.candidates()]
    pixels = None
    if images is not None and images.test is not None and not _is_tested(store, names):
        pixels = np.load(images.test, mmap_mode="r")
    measured = set(names) == set(store.manifest().get("costs", {}))
    if measured and pixels is None:
        return False
    costs, proba = _visit(store, image_size, not measured, pixels)
    if images is not None and proba:
        table = images.table.test
        by_fold = np.stack(proba)
        averaged = Predictions.from_arrays(
            average_folds(by_fold),
            table.labels,
            members=names,
            classes=table.classes,
            sample_ids=table.ids.tolist(),
            split="test",
        )
        store.write_test(averaged, by_fold)
    if costs:
        store.update_manifest(costs=costs)
    return True


def measure_costs(store: RunStore, image_size: int) -> None:
    """The costs alone, for ensembles that are searched under a limit; reads no image."""
    if {c.name for c in store.candidates()} != set(store.manifest().get("costs", {})):
        store.update_manifest(costs=_visit(store, image_size, True, None)[0])


def _visit(
    store: RunStore, image_size: int, measure: bool, pixels: NDArray[np.uint8] | None
) -> tuple[dict[str, Any], list[NDArray[np.float32]]]:
    """Builds each candidate once: its costs by name, and what its fold models say of the pixels."""
    from .bundle.build import build_member

    n_folds = store.manifest()["k"]
    costs: dict[str, Any] = {}
    proba = []
    latency: dict[tuple[Any, ...], dict[str, float]] = {}
    for candidate in store.candidates():
        member = build_member(store, candidate, image_size)
        if pixels is not None:
            proba.append(member.predict_folds(pixels))
        if not measure:
            continue
        recipe = candidate.recipe
        # All that its latency depends on.
        kind = (candidate.backbone, member.frozen, recipe.tta, recipe.head_layers, recipe.head_width)
        if kind not in latency:
            latency[kind] = {
                "latency_ms": round(member.latency_ms(), 3),
                "latency_32_ms": round(member.latency_ms(32, repeats=3), 3),
            }
        trained = sum(store.cell(candidate.id, fold).train_s for fold in range(n_folds))
        costs[candidate.name] = {
            **latency[kind],
            "params": member.params,
            "flops": member.flops,
            "weights_bytes": member.weights_bytes,
            "train_s": round(trained, 3),
        }
    return costs, proba


def _is_tested(store: RunStore, candidates: list[str]) -> bool:
    """Whether the fold models of just these candidates have answered; an older run holds their averages alone."""
    known = store.test_predictions()
    return known is not None and list(known.members) == candidates and store.test_by_fold() is not None
