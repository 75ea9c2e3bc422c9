"""`ensembler monitor`: a batch of new images in; a report, a line of history and an alarm out."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ...atomic import write_file
from ...errors import ConfigError
from ..runtime import Bundle
from .drift import THRESHOLD, Drift, measure_drift
from .history import append, read_history
from .labels import read_labels
from .observe import Batch, observe_files
from .reference import read_reference
from .report import report_page, sentence

#: Unreadable images that are named on standard error.
NAMED = 10


def monitor(
    bundle_path: str | Path,
    paths: list[Path],
    *,
    labels: str | None = None,
    threshold: float = THRESHOLD,
    output: Path | None = None,
) -> Drift:
    """Holds new images against the training data; writes `report-<n>.html` and a line of `history.jsonl`.

    Args:
        bundle_path: a bundle with a reference.
        paths: images, and folders of images.
        labels: a CSV with the columns path and label, or "folders" where each image lies in a folder of its class.
        threshold: rate of false alarms of a batch.
        output: folder; `monitor/<bundle>` unless told otherwise.

    Returns:
        What the tests found; `.alarm` says whether there is one.

    Raises:
        BundleError: the bundle has no reference.
        ConfigError: a threshold outside (0, 0.5].
        DataError: too few images, or labels that do not fit.
    """
    if not 0 < threshold <= 0.5:
        raise ConfigError(
            f"--threshold {threshold:g}: expected a rate of false alarms above 0, and at most 0.5"
        )
    reference = read_reference(bundle_path)
    bundle = Bundle.load(bundle_path)
    batch = observe_files(bundle, paths, reference.folds)
    for _, reason in batch.unreadable[:NAMED]:
        print(f"warning: left out: {reason}", file=sys.stderr)
    if len(batch.unreadable) > NAMED:
        print(f"warning: {len(batch.unreadable)} images cannot be read", file=sys.stderr)
    drift = measure_drift(
        reference.sample,
        batch.sample,
        threshold=threshold,
        right=_right(batch, labels, bundle),
        expected=_expected(bundle),
    )
    folder = output or Path("monitor") / bundle.name
    history = [*read_history(folder), _record(bundle, batch, drift)]
    page = report_page(bundle.name, bundle.classes, reference, batch, drift, history)
    report = folder / f"report-{len(history):04d}.html"
    write_file(report, lambda stream: stream.write(page.encode()))
    append(folder, history[-1])
    _print(drift, len(batch.paths))
    print(f"report: {report}", file=sys.stderr)
    return drift


def _right(batch: Batch, labels: str | None, bundle: Bundle) -> tuple[int, int] | None:
    if labels is None:
        return None
    truth = read_labels(labels, batch.paths, bundle.classes)
    known = truth >= 0
    return int((batch.proba.argmax(1) == truth)[known].sum()), int(known.sum())


def _expected(bundle: Bundle) -> tuple[int, int] | None:
    """Right answers out of fold, and of how many."""
    accuracy, n = bundle.index["scores"].get("accuracy"), bundle.index["data"].get("images")
    return None if accuracy is None or not n else (round(accuracy * n), int(n))


def _record(bundle: Bundle, batch: Batch, drift: Drift) -> dict[str, object]:
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "bundle": bundle.name,
        "images": len(batch.paths),
        "unreadable": len(batch.unreadable),
        "confidence": float(np.mean(batch.proba.max(1))),
        **drift.to_dict(),
    }


def _print(drift: Drift, n: int) -> None:
    for test in drift.tests:
        mark = "  ALARM" if test.alarm else ""
        print(f"{test.name:<20} {test.method:<6} {test.statistic:>10.4g}   p {test.adjusted:<8.4g}{mark}")
    if drift.accuracy is not None:
        found = drift.accuracy
        interval = f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
        print(f"accuracy {interval} of {found.n:,}; {found.expected:.3f} expected")
    print(sentence(drift, n))
