"""The fold models of a candidate beside the networks that could take their place, on the test split.

`tuning/collapse.py` trains them; here they answer, through `bundle.member.Member`, which an exported bundle runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .cells import StoredCell
from .data.cache import DecodedImages
from .metrics import get_metric
from .store import RunStore
from .training.candidate import Candidate, digest

if TYPE_CHECKING:
    from .tuning.collapse import Option


def measure_collapse(
    store: RunStore, options: Sequence[Option], image_size: int, images: DecodedImages
) -> list[dict[str, Any]]:
    """Compares the fold models of some candidates with what could take their place, and stores the rows.

    Args:
        store: of the run, after `deploy`.
        options: trained, see `tuning/collapse.py`.
        image_size: side of the images.
        images: with a test part.

    Returns:
        A row an option: `candidate`, `way`, `deployed` (the name of what runs), on the test split `accuracy`,
        `log_loss` and the run's metric, `latency_ms` of one image at batch 1, `bytes` of weights, `train_s` of all
        Cells whose weights are in it, and `note`. Numbers are None where an option could not be had, and `note` is why.
    """
    asked = digest([[o.of.id, o.way, o.reason, [c.key for c in _models(store, o.deployed)]] for o in options])
    known = store.collapse()
    if known.get("asked") == asked:
        return list(known["rows"])
    assert images.test is not None
    pixels = np.load(images.test, mmap_mode="r")
    names = dict.fromkeys(("accuracy", "log_loss", store.manifest()["metric"]))
    rows = []
    for option in options:
        row: dict[str, Any] = {"candidate": option.of.name, "way": option.way, "deployed": None, **names}
        row |= {"latency_ms": None, "bytes": None, "train_s": None, "note": option.reason}
        if option.deployed is not None:
            proba, latency_ms = _answers(store, option.deployed, image_size, pixels)
            row |= {name: get_metric(name)(images.table.test.labels, proba) for name in names}
            row |= {"deployed": option.deployed.name, "latency_ms": latency_ms}
            row |= _price(store, option.deployed)
        rows.append(row)
    store.write_collapse({"asked": asked, "rows": rows})
    return rows


def _models(store: RunStore, candidate: Candidate | None) -> list[StoredCell]:
    from .bundle.build import stored_models

    return [] if candidate is None else stored_models(store, candidate)


def _answers(
    store: RunStore, candidate: Candidate, image_size: int, pixels: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], float]:
    """Test probabilities (images, classes), and milliseconds of one image."""
    from .bundle.build import build_member

    known, costs = store.test_predictions(), store.manifest()["costs"]
    if known is not None and candidate.name in costs:
        return known.proba[known.index(candidate.name)], costs[candidate.name]["latency_ms"]
    member = build_member(store, candidate, image_size)
    return member.predict(pixels), round(member.latency_ms(), 3)


def _price(store: RunStore, candidate: Candidate) -> dict[str, Any]:
    manifest = store.manifest()
    cells = _models(store, candidate)
    files = [cell.weights_file for cell in cells]
    if candidate.frozen_body:
        files.append(Path(manifest["weights_files"][candidate.weights]))
    inside = [store.cell(part, fold) for part in candidate.parts for fold in range(manifest["k"])]
    averaged = inside if candidate.kind == "fold-soup" else []
    return {
        "bytes": sum(file.stat().st_size for file in files),
        "train_s": round(sum(cell.train_s for cell in [*cells, *averaged]), 3),
        "note": "; ".join(dict.fromkeys(note for cell in cells for note in cell.notes)),
    }


def collapse_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as plain text, the fold models of each candidate first."""
    lines = [("candidate", "deployed as", "accuracy", "log loss", "ms", "MB", "train s", "")]
    for row in rows:
        numbers = ("-",) * 5
        if row["deployed"] is not None:
            numbers = (
                f"{row['accuracy']:.4f}",
                f"{row['log_loss']:.4f}",
                f"{row['latency_ms']:.1f}",
                f"{row['bytes'] / 1e6:.1f}",
                f"{row['train_s']:.0f}",
            )
        lines.append((row["candidate"] if row["way"] == "folds" else "", row["way"], *numbers, row["note"]))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
