"""The report's pictures: what is in them, and that names are text."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from ensembler import figures, pictures
from ensembler.evaluation.leaderboard import build_leaderboard
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions

NAME = "a<b>$x_1$"

HISTORY = pd.DataFrame(
    {
        "candidate": [NAME] * 4 + ["c"] * 2,
        "fold": [0, 0, 1, 1, 0, 1],
        "epoch": [1, 2, 1, 2, 1, 1],
        "train_loss": [2.0, 1.0, 2.1, 1.1, 3.0, 3.1],
        "monitor_loss": [1.5, 1.2, 1.4, 1.6, 2.5, 2.6],
    }
)


def _predictions() -> Predictions:
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(3), size=(2, 60))
    labels = np.arange(60) % 3
    return Predictions.from_arrays(
        proba, labels, np.arange(60) % 5, members=[NAME, "c"], classes=["$k$", "x", "y"]
    )


AUC, AVERAGE_PRECISION = (
    METRICS[name](_predictions().labels, _predictions().proba[0]) for name in ("roc_auc", "average_precision")
)


def _leaderboard(kind: pictures.Kind) -> bytes:
    board = build_leaderboard(_predictions(), [], METRICS["log_loss"], n_boot=50)
    return pictures.leaderboard_picture(figures.leaderboard_frame(board), kind)


def _reliability(kind: pictures.Kind) -> bytes:
    return pictures.reliability_picture(figures.reliability_frame(_predictions()), kind)


def _confusion(kind: pictures.Kind) -> bytes:
    return pictures.confusion_picture(figures.confusion_frame(_predictions(), NAME), kind)


def _roc(kind: pictures.Kind) -> bytes:
    return pictures.roc_picture(figures.roc_frame(_predictions()), kind)


def _precision_recall(kind: pictures.Kind) -> bytes:
    return pictures.precision_recall_picture(figures.precision_recall_frame(_predictions()), kind)


def _curves(kind: pictures.Kind) -> bytes:
    return pictures.learning_curves_picture(HISTORY, kind)


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        (_curves, {NAME, "c", "epoch", "loss", "fold 0", "fold 1"}),
        (_leaderboard, {NAME, "c", "single models", "log loss, out of fold, 95 % interval"}),
        (_reliability, {NAME, "c", "confidence", "accuracy"}),
        (_roc, {f"{NAME}: AUC {AUC:.4f}", "found, share of the class"}),
        (_precision_recall, {f"{NAME}: average precision {AVERAGE_PRECISION:.4f}", "recall", "precision"}),
        (_confusion, {"$k$", "x", "y", "predicted class", "true class"}),
    ],
)
def test_pictures_show_names_as_text_and_the_same_frame_gives_the_same_bytes(
    draw: Callable[[pictures.Kind], bytes], expected: set[str]
) -> None:
    root = ET.fromstring(draw("svg"))
    texts = {"".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")}
    assert expected <= texts
    assert draw("png").startswith(b"\x89PNG\r\n")
    assert draw("png") == draw("png")


def test_learning_curves_have_a_panel_a_candidate() -> None:
    root = ET.fromstring(_curves("svg"))
    assert len([e for e in root.iter() if e.get("id", "").startswith("axes_")]) == 2


def test_a_confusion_matrix_counts_every_row() -> None:
    root = ET.fromstring(_confusion("svg"))
    numbers = ["".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert sum(int(n) for n in numbers if n.isdigit()) == 60
