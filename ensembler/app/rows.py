"""The leaderboard's rows as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from ..evaluation.verdict import Verdict
from ..figures import KIND_COLOURS
from ..metrics import get_metric
from ..training.candidate import Candidate
from .wording import capital, metric_name, p_text, span

#: Columns that are seen at first; the others can be chosen.
FIRST = (
    "Name", "Kind", "Standing", "Score", "Interval", "95 % interval", "Gain", "Interval of the gain", "p",
    "Latency", "Accuracy", "Test", "Members", "Note",
)  # fmt: skip

#: Columns of the leaderboard that the others are made of; a column is offered where that one has any value.
SOURCES = {
    "Name": "name", "Kind": "kind", "Standing": "kind", "Score": "cv", "Interval": "cv", "95 % interval": "cv",
    "Gain": "p_value", "Interval of the gain": "p_value", "p": "p_value", "Latency": "latency_ms",
    "Accuracy": "accuracy", "Test": "test", "ECE": "ece", "Parameters": "params", "Training": "train_s",
    "Optimism": "optimism", "Members": "optimism", "Backbone": "backbone", "Strategy": "strategy",
    "Weights": "weights", "Note": "note",
}  # fmt: skip

#: Of the rows that decide how far the drawn intervals reach: the better half, within these limits.
LEADERS = (5, 25)

#: Size of a drawn interval, in pixels.
_WIDE, _HIGH = 150, 28


@dataclass(frozen=True)
class Scale:
    """How far the drawn intervals reach, from left to right.

    Attributes:
        low, high: scores at the ends.
        reference: score of the best single model, drawn as a line.
    """

    low: float
    high: float
    reference: float | None = None

    def at(self, score: float) -> float:
        """Where a score stands, in pixels; beyond the ends at the ends."""
        share = (score - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(6 + (_WIDE - 12) * min(1.0, max(0.0, share)), 1)


def rows_table(rows: pd.DataFrame, verdict: Verdict, scale: Scale) -> pd.DataFrame:
    """The leaderboard's rows as people read them, under their own index.

    Args:
        rows: of the leaderboard.
        verdict: of the whole leaderboard.
        scale: of the drawn intervals.
    """
    standing = [
        ["recommended"] * (name == verdict.winner) + ["tied"] * bool(tied)
        for name, tied in zip(rows["name"], rows["tied_with_best"], strict=True)
    ]
    alone = rows["p_value"].isna()
    triples = zip(rows["cv_low"], rows["cv"], rows["cv_high"], rows["kind"], strict=True)
    return pd.DataFrame(
        {
            "Name": rows["name"],
            "Kind": [[kind] for kind in rows["kind"]],
            "Standing": standing,
            "Score": rows["cv"],
            "Interval": [drawn_interval(*triple, scale) for triple in triples],
            "95 % interval": [span(*pair) for pair in zip(rows["cv_low"], rows["cv_high"], strict=True)],
            "Gain": rows["delta_best_single"].mask(alone),
            "Interval of the gain": [
                "best single model" if is_alone else span(low, high, sign=True)
                for is_alone, low, high in zip(alone, rows["delta_low"], rows["delta_high"], strict=True)
            ],
            "p": ["" if pd.isna(p) else p_text(p) for p in rows["p_value"]],
            "Latency": rows["latency_ms"],
            "Accuracy": 100 * rows["accuracy"],
            "Test": rows["test"],
            "ECE": rows["ece"],
            "Parameters": rows["params"].astype("float64") / 1e6,
            "Training": rows["train_s"],
            "Optimism": rows["optimism"],
            "Members": ["" if len(m) < 2 else ", ".join(m) for m in rows["members"]],
            "Backbone": rows["backbone"],
            "Strategy": rows["strategy"],
            "Weights": rows["weights"],
            "Note": rows["note"].replace("", None),
        }
    )


def offered(frame: pd.DataFrame) -> list[str]:
    """The columns of `rows_table` that have any value on this leaderboard."""
    return [name for name, source in SOURCES.items() if frame[source].replace("", None).notna().any()]


def scale_of(frame: pd.DataFrame, metric: str, verdict: Verdict) -> Scale:
    """How far the intervals of a leaderboard reach: one bad row must not squeeze the good ones.

    Args:
        frame: of the leaderboard.
        metric: its ranking metric.
        verdict: of it.
    """
    worst_first = get_metric(metric).greater_is_better
    leaders = frame.sort_values("cv", ascending=not worst_first)
    leaders = leaders[: min(max(LEADERS[0], math.ceil(len(frame) / 2)), LEADERS[1])]
    single = frame.loc[frame["name"] == verdict.best_single, "cv"]
    low, high = float(leaders["cv_low"].min()), float(leaders["cv_high"].max())
    return Scale(low, high, float(single.iloc[0]) if len(single) else None)


def drawn_interval(low: float, score: float, high: float, kind: str, scale: Scale) -> str:
    """An interval as a small SVG: a circle for single models, a diamond for ensembles, a line at the best single.

    Whatever lies beyond the scale ends in an arrow.
    """
    if math.isnan(low + score + high):
        return ""
    middle, colour = _HIGH // 2, KIND_COLOURS[kind].replace("#", "%23")
    left, at, right = scale.at(low), scale.at(score), scale.at(high)
    parts = []
    if scale.reference is not None:
        x = scale.at(scale.reference)
        parts.append(f"<path d='M{x} 2V{_HIGH - 2}' stroke='%23888' stroke-dasharray='2'/>")
    parts.append(f"<path d='M{left} {middle}H{right}' stroke='{colour}' stroke-width='2'/>")
    if not scale.low <= score <= scale.high:
        tip, back = (_WIDE, _WIDE - 9) if score > scale.high else (0, 9)
        parts.append(f"<path d='M{tip} {middle}L{back} {middle - 6}V{middle + 6}z' fill='{colour}'/>")
    elif kind == "single":
        parts.append(f"<circle cx='{at}' cy='{middle}' r='5' fill='{colour}'/>")
    else:
        parts.append(f"<path d='M{at} {middle - 7}l7 7-7 7-7-7z' fill='{colour}'/>")
    size = f"width='{_WIDE}' height='{_HIGH}'"
    return f"data:image/svg+xml;utf8,<svg xmlns='http://www.w3.org/2000/svg' {size}>{''.join(parts)}</svg>"


def differing(candidates: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The settings in which these candidates differ, a column each, by the candidate's name.

    Args:
        candidates: as the manifest keeps them.
    """
    made = [Candidate.from_dict(c) for c in candidates]
    settings = {
        c.name: {"backbone": c.backbone, "strategy": c.strategy, "weights": c.weights, "kind": c.kind}
        | dict(given["recipe"])
        for c, given in zip(made, candidates, strict=True)
    }
    frame = pd.DataFrame.from_dict(settings, orient="index")
    same = [c for c in frame if frame[c].astype(str).nunique(dropna=False) < 2]
    frame = frame.drop(columns=same)
    words = frame.columns.difference(frame.select_dtypes("number").columns)
    return frame.astype(dict.fromkeys(words, "str")).rename_axis("Name")


def columns(table: pd.DataFrame, metric: str) -> dict[str, Any]:
    """How each column of `rows_table` is shown, for `st.dataframe`."""
    config = st.column_config
    longest = max(len(name) for name in table["Name"])
    return {
        "Name": config.TextColumn(width=min(300, 24 + 7 * longest)),
        "Kind": config.MultiselectColumn(
            options=list(KIND_COLOURS), color=list(KIND_COLOURS.values()), width=90
        ),
        "Standing": config.MultiselectColumn(
            options=["recommended", "tied"],
            color=["green", "gray"],
            width=110,
            help="Tied: not to be told from the best",
        ),
        "Score": config.NumberColumn(capital(metric_name(metric)), format="%.4f"),
        "Interval": config.ImageColumn(
            "Interval, drawn",
            width=_WIDE + 16,
            help="Circle: single model. Diamond: ensemble. Dashed line: the best single model",
        ),
        "Gain": config.NumberColumn(format="%+.4f", help="Over the best single model; positive is better"),
        "Latency": config.NumberColumn("Latency, ms", format="%.1f", help="One image at batch 1"),
        "Accuracy": config.NumberColumn("Accuracy, %", format="%.1f"),
        "Test": config.NumberColumn(format="%.4f", help="On images that no step had seen"),
        "ECE": config.NumberColumn(format="%.4f", help="Expected calibration error; lower is better"),
        "Parameters": config.NumberColumn("Parameters, M", format="%.2f"),
        "Training": config.NumberColumn("Training, s", format="%.0f", help="All folds together"),
        "Optimism": config.NumberColumn(
            format="%.4f", help="How much the score on the rows it was fitted on would flatter the ensemble"
        ),
    }
