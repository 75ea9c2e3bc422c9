"""The report's figures as inline SVG: two histograms, pairs of bars, a history. They need no script and no font."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: Okabe & Ito (2008): told apart with every common colour blindness.
OLD, NEW, ALARM = "#0072B2", "#E69F00", "#D55E00"

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 460, 220, 44, 34, 12


def histograms(old: NDArray[np.float32], new: NDArray[np.float32], title: str, x: str, bins: int = 24) -> str:
    """Two distributions over each other: the share of each sample in each bin."""
    low, high = (float(f(np.concatenate([old, new]))) for f in (np.min, np.max))
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    shares = [np.histogram(v, edges)[0] / max(len(v), 1) for v in (old, new)]
    top = max(float(s.max()) for s in shares) or 1.0
    width = _WIDTH - _LEFT - 8
    parts = [_frame(title, x, top, [(0, f"{edges[0]:.2g}"), (width, f"{edges[-1]:.2g}")])]
    for share, colour, dash in zip(shares, (OLD, NEW), ("", "5 3"), strict=True):
        points = []
        for i, value in enumerate(share):
            y = _y(float(value), top)
            points += [
                f"{_LEFT + width * i / bins:.1f},{y:.1f}",
                f"{_LEFT + width * (i + 1) / bins:.1f},{y:.1f}",
            ]
        parts.append(
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="2" '
            f'stroke-dasharray="{dash}"/>'
        )
    return _svg("".join(parts), title)


def bars(old: Sequence[float], new: Sequence[float], names: Sequence[str], title: str) -> str:
    """Two shares a name, one below the other; the names that differ most first, twenty at most."""
    order = np.argsort(-np.abs(np.asarray(new) - np.asarray(old)), kind="stable")[:20]
    step, left = 26, 150
    top = max([*old, *new, 1e-9])
    width = _WIDTH - left - 50
    parts = [f'<text x="4" y="14" class="t">{html.escape(title)}</text>']
    for row, i in enumerate(order):
        y = 24 + row * step
        name = names[i] if len(names[i]) <= 20 else names[i][:19] + "…"
        parts.append(f'<text x="{left - 6}" y="{y + 14}" text-anchor="end">{html.escape(name)}</text>')
        for k, (value, colour) in enumerate(((old[i], OLD), (new[i], NEW))):
            length = width * value / top
            parts.append(
                f'<rect x="{left}" y="{y + 10 * k}" width="{length:.1f}" height="9" fill="{colour}"/>'
            )
            parts.append(
                f'<text x="{left + length + 4:.1f}" y="{y + 9 + 10 * k}" class="s">{100 * value:.1f} %</text>'
            )
    return _svg("".join(parts), title, 30 + step * len(order))


def course(values: Sequence[float], alarms: Sequence[bool], threshold: float, title: str) -> str:
    """The smallest corrected p-value of each batch on a logarithmic axis, oldest first; alarms are filled squares."""
    floor = min(1e-4, threshold / 10)
    width = _WIDTH - _LEFT - 16

    def y(value: float) -> float:
        share = np.log10(max(value, floor)) / np.log10(floor)
        return float(_TOP + 8 + (_HEIGHT - _BOTTOM - _TOP - 8) * share)

    parts = [f'<text x="4" y="11" class="t">{html.escape(title)}</text>']
    for value in (1.0, threshold, floor):
        dash = ' stroke-dasharray="4 3"' if value == threshold else ""
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - 8}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#999"{dash}/>'
            f'<text x="{_LEFT - 4}" y="{y(value) + 4:.1f}" text-anchor="end" class="s">{value:g}</text>'
        )
    for i, (value, alarm) in enumerate(zip(values, alarms, strict=True)):
        x = _LEFT + 8 + width * (i / max(len(values) - 1, 1))
        parts.append(
            f'<rect x="{x - 4:.1f}" y="{y(value) - 4:.1f}" width="8" height="8" fill="{ALARM}"/>'
            if alarm
            else f'<circle cx="{x:.1f}" cy="{y(value):.1f}" r="4" fill="none" stroke="{OLD}" stroke-width="2"/>'
        )
    parts.append(f'<text x="{_LEFT}" y="{_HEIGHT - 8}">batches, oldest first</text>')
    return _svg("".join(parts), title)


def _frame(title: str, x: str, top: float, ticks: Sequence[tuple[float, str]]) -> str:
    base = _HEIGHT - _BOTTOM
    parts = [
        f'<text x="{_LEFT}" y="11" class="t">{html.escape(title)}</text>',
        f'<line x1="{_LEFT}" x2="{_WIDTH - 8}" y1="{base}" y2="{base}" stroke="#999"/>',
        f'<text x="{_LEFT - 4}" y="{_TOP + 14}" text-anchor="end" class="s">{100 * top:.0f} %</text>',
        f'<text x="{(_LEFT + _WIDTH) / 2}" y="{_HEIGHT - 4}" text-anchor="middle">{html.escape(x)}</text>',
    ]
    for i, (at, label) in enumerate(ticks):
        anchor = "start" if i == 0 else "end"
        parts.append(
            f'<text x="{_LEFT + at:.1f}" y="{base + 14}" text-anchor="{anchor}" class="s">{label}</text>'
        )
    return "".join(parts)


def _y(value: float, top: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP - 8) * value / top


def _svg(inner: str, label: str, height: int = _HEIGHT) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img" '
        f'aria-label="{html.escape(label)}">{inner}</svg>'
    )
