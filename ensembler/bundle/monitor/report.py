"""What a batch was found to be, as one HTML file that loads nothing."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from .drawing import ALARM, OLD, bars, course, histograms
from .drift import Drift, unlike
from .features import LOOKS
from .observe import Batch
from .reference import Reference

_STYLE = f"""
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse }} td, th {{ border: 1px solid #ccc; padding: .3rem .6rem; text-align: left }}
.verdict {{ padding: .6rem 1rem; border-left: .4rem solid {OLD}; background: #f3f6f9 }}
.alarm {{ border-color: {ALARM}; background: #fdf1ea }} td.alarm {{ border-left: .4rem solid {ALARM} }}
.figures {{ display: flex; flex-wrap: wrap; gap: 1rem }}
svg {{ max-width: 100%; height: auto; background: #fff }} svg text {{ font: 12px system-ui, sans-serif; fill: #333 }}
svg text.s {{ font-size: 10px }} svg text.t {{ font-weight: 600 }}
.old {{ color: {OLD} }} .new {{ color: #8a5d00 }}
"""


def report_page(
    name: str,
    classes: Sequence[str],
    reference: Reference,
    batch: Batch,
    drift: Drift,
    history: Sequence[dict[str, Any]],
) -> str:
    """The whole page.

    Args:
        name: of the bundle.
        classes: in column order.
        reference: what the batch was held against.
        batch: new images.
        drift: what the tests found.
        history: of all batches, this one last.
    """
    old, new = reference.sample, batch.sample
    shares = [(np.bincount(s.predicted, minlength=len(classes)) / len(s)).tolist() for s in (old, new)]
    figures = [
        histograms(old.confidence, new.confidence, "Confidence", "probability of the first choice"),
        bars(shares[0], shares[1], classes, "Predicted classes"),
    ]
    if old.disagreement.shape[1] > 1:
        apart = [np.sqrt(np.maximum(s.disagreement.mean(1), 0)) for s in (old, new)]
        figures.append(
            histograms(apart[0], apart[1], "Disagreement of the members", "root of the divergence")
        )
    figures += [
        histograms(old.looks[:, i], new.looks[:, i], LOOKS[i].capitalize(), LOOKS[i])
        for i in _moved(old, new)
    ]
    if len(history) > 1:
        smallest = [min(test["adjusted"] for test in record["tests"]) for record in history]
        alarms = [bool(record["alarm"]) for record in history]
        figures.append(course(smallest, alarms, drift.threshold, "Smallest corrected p-value"))
    rows = "".join(
        f"<tr><td{' class=alarm' if t.alarm else ''}>{html.escape(t.name)}</td><td>{t.method}</td>"
        f"<td>{t.statistic:.4g}</td><td>{t.p_value:.4g}</td><td>{t.adjusted:.4g}</td>"
        f"<td>{'<b>alarm</b>' if t.alarm else ''}</td></tr>"
        for t in drift.tests
    )
    far = "".join(f"<li><code>{html.escape(str(batch.paths[i]))}</code></li>" for i in unlike(old, new, 10))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(name)}: monitor</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>{_STYLE}</style></head><body>
<h1>{html.escape(name)}: {len(new):,} new images</h1>
<p class="verdict{" alarm" if drift.alarm else ""}">{html.escape(sentence(drift, len(new)))}</p>
{_accuracy(drift)}
<p><b class="old">Blue</b>: {len(old):,} images that the networks had not seen in training.
<b class="new">Orange, dashed</b>: the new ones.{_unreadable(batch)}</p>
<div class="figures">{"".join(figures)}</div>
<h2>Tests</h2>
<table><tr><th>of</th><th>test</th><th>statistic</th><th>p</th><th>corrected</th><th></th></tr>{rows}</table>
<p>An alarm is a corrected p-value (Holm) of at most {drift.threshold:g}: so often a batch of images like the old ones
raises one. Population stability index: confidence {drift.psi_confidence:.3f}, predicted classes
{drift.psi_classes:.3f} (below 0.1 little has changed, above 0.25 much has).</p>
<h2>Least like the old images</h2><ol>{far}</ol>
</body></html>
"""


def sentence(drift: Drift, n: int) -> str:
    """The verdict."""
    moved = [test.name for test in drift.tests if test.alarm]
    if not moved:
        return f"No alarm: {n:,} images are like those of the training data, as far as the tests can tell."
    verb = "differ" if len(moved) > 1 else "differs"
    return f"Alarm: {', '.join(moved)} of {n:,} images {verb} from the training data."


def _accuracy(drift: Drift) -> str:
    found = drift.accuracy
    if found is None:
        return ""
    return (
        f"<p>Accuracy {found.value:.3f} [{found.low:.3f}, {found.high:.3f}] on {found.n:,} labelled images; "
        f"{found.expected:.3f} out of fold at the export.</p>"
    )


def _unreadable(batch: Batch) -> str:
    n = len(batch.unreadable)
    return f" {n:,} more could not be read." if n else ""


def _moved(old: Any, new: Any) -> list[int]:
    """The three columns of the look whose means are farthest apart."""
    spread = old.looks.std(0) + 1e-6
    apart = np.abs(new.looks.mean(0) - old.looks.mean(0)) / spread
    return [int(i) for i in np.argsort(-apart, kind="stable")[:3]]
