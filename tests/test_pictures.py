"""The report's picture: what is in it, and that names are text."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pandas as pd

from ensembler.pictures import learning_curves_svg

HISTORY = pd.DataFrame(
    {
        "candidate": ["a<b>$x_1$"] * 4 + ["c"] * 2,
        "fold": [0, 0, 1, 1, 0, 1],
        "epoch": [1, 2, 1, 2, 1, 1],
        "train_loss": [2.0, 1.0, 2.1, 1.1, 3.0, 3.1],
        "monitor_loss": [1.5, 1.2, 1.4, 1.6, 2.5, 2.6],
    }
)


def test_a_panel_a_candidate_with_names_as_text() -> None:
    svg = learning_curves_svg(HISTORY)
    root = ET.fromstring(svg)
    texts = ["".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"a<b>$x_1$", "c", "epoch", "loss", "fold 0", "fold 1"} <= set(texts)
    panels = [e for e in root.iter() if e.get("id", "").startswith("axes_")]
    assert len(panels) == 2


def test_the_same_curves_give_the_same_bytes() -> None:
    assert learning_curves_svg(HISTORY) == learning_curves_svg(HISTORY.copy())
