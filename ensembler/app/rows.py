"""The leaderboard's rows as people read them."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from ..evaluation.verdict import Verdict
from ..figures import KIND_COLOURS
from .wording import capital, metric_name, p_text, span


def rows_table(rows: pd.DataFrame, verdict: Verdict) -> pd.DataFrame:
    """The leaderboard's rows as people read them; columns without any value are left out."""
    standing = [
        ["recommended"] * (name == verdict.winner) + ["tied"] * bool(tied)
        for name, tied in zip(rows["name"], rows["tied_with_best"], strict=True)
    ]
    alone = rows["p_value"].isna()
    table = pd.DataFrame(
        {
            "Name": rows["name"],
            "Kind": [[kind] for kind in rows["kind"]],
            "Score": rows["cv"],
            "95 % interval": [span(*pair) for pair in zip(rows["cv_low"], rows["cv_high"], strict=True)],
            "Standing": standing,
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
    empty = [c for c in table if table[c].isna().all() or (table[c].astype(str) == "").all()]
    return table.drop(columns=empty).reset_index(drop=True)


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
