"""Which backbones go on to the search: `screen: {keep: 4}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..training.candidate import Candidate, TrainingData, digest
from .ledger import SweepStore

#: The fold whose train rows are known and whose monitor rows are asked, as in the search.
FOLD = 0


def dropped_backbones(
    keep: int, probes: Sequence[Candidate], data: TrainingData, store: SweepStore
) -> dict[str, str]:
    """Backbones that do not go on, with the reason; decided once and kept in the manifest."""
    asked = digest([keep, sorted({probe.backbone for probe in probes}), data.fingerprint])
    screened = store.manifest().get("screened", {})
    if screened.get("asked") != asked:
        screened = {"asked": asked, **rank_screened(score_backbones(probes, data), keep)}
        store.update_manifest(screened=screened)
    dropped: dict[str, str] = screened["dropped"]
    return dropped


def score_backbones(probes: Sequence[Candidate], data: TrainingData) -> dict[str, tuple[float, float]]:
    """(k nearest neighbours, linear head) of each backbone, more is better: the negative log loss on monitor rows.

    Args:
        probes: of the stage before, which has left the frozen features; one whose features are missing, because its
            probe failed, has no scores.
        data: what they were made from.
    """
    from ..training.screening import knn_score, linear_score

    train, monitor, _ = data.folds[FOLD]
    scores: dict[str, tuple[float, float]] = {}
    for probe in probes:
        file = data.features_file(probe)
        if probe.backbone in scores or not file.is_file():
            continue
        features = np.load(file, mmap_mode="r")
        given = (features, data.labels, train, monitor, len(data.classes))
        scores[probe.backbone] = (-knn_score(*given).log_loss, -linear_score(*given).log_loss)
    return scores


def rank_screened(scores: Mapping[str, tuple[float, float]], keep: int) -> dict[str, Any]:
    """The backbones to go on with and why the others do not; for the manifest.

    Args:
        scores: of `score_backbones`.
        keep: how many go on; those of different families first.

    Returns:
        `kept`: names, best first; `dropped`: name -> reason; `scores`: name -> the two scores.
    """
    from ..training.portfolio import PORTFOLIO, family_of
    from ..training.screening import rank_backbones

    top1 = {entry.name: entry.top1 for entry in PORTFOLIO if entry.top1 is not None}
    families = {name: family_of(name) for name in scores}
    knn, linear = ({name: score[i] for name, score in scores.items()} for i in range(2))
    kept = rank_backbones(knn, linear, top1, families, keep)
    dropped = {
        name: f"dropped by screening: log loss of frozen features {-near:.3f} (neighbours) and {-line:.3f} (linear), "
        f"{families[name]}; kept are {', '.join(kept)}"
        for name, (near, line) in scores.items()
        if name not in kept
    }
    return {"kept": kept, "dropped": dropped, "scores": {name: list(score) for name, score in scores.items()}}
