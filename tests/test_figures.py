import json

import numpy as np
import pandas as pd
import pytest

from ensembler.combiners import make_combiner
from ensembler.evaluation.cross_fit import cross_fit
from ensembler.evaluation.leaderboard import build_leaderboard
from ensembler.figures import (
    KIND_COLOURS,
    confusion_figure,
    confusion_frame,
    leaderboard_figure,
    leaderboard_frame,
    learning_curves_figure,
    learning_curves_frame,
    reliability_figure,
    reliability_frame,
)
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1, 2], 40)
    proba = 0.5 * np.eye(3)[labels] + 0.5 * rng.dirichlet(np.ones(3), size=(2, 120))
    return Predictions.from_arrays(
        proba, labels, np.arange(120) % 4, members=["a<b>", "b"], classes=["0", "<b>1</b>", "2"]
    )


def drawn(figure):
    """The figure as the browser gets it."""
    return json.loads(figure.to_json())


def test_leaderboard_shows_every_row_with_its_interval(predictions):
    metric = METRICS["log_loss"]
    board = build_leaderboard(
        predictions, [cross_fit(make_combiner("mean"), predictions, metric)], metric, n_boot=100
    )
    frame = leaderboard_frame(board)
    assert list(frame["name"]) == list(board.frame["name"])
    figure = leaderboard_figure(frame)
    assert {t.name: t.marker.color for t in figure.data} == {
        "Single models": KIND_COLOURS["single"],
        "Ensembles": KIND_COLOURS["ensemble"],
    }
    ensemble = next(t for t in figure.data if t.name == "Ensembles")
    row = frame[frame["kind"] == "ensemble"].iloc[0]
    assert ensemble.x[0] + ensemble.error_x.array[0] == pytest.approx(row["cv_high"])
    assert ensemble.x[0] - ensemble.error_x.arrayminus[0] == pytest.approx(row["cv_low"])
    assert figure.layout.xaxis.title.text == "Log loss, out-of-fold, with 95 % interval"
    assert figure.layout.yaxis.categoryarray[-1] == frame["name"].iloc[0].replace("<", "&lt;").replace(
        ">", "&gt;"
    )


def test_an_empty_leaderboard_can_be_drawn():
    frame = pd.DataFrame(columns=["name", "kind", "metric", "cv", "cv_low", "cv_high", "tied_with_best"])
    assert leaderboard_figure(frame).data == ()


def test_confusion_counts_labels_against_predictions(predictions):
    frame = confusion_frame(predictions, "b")
    assert len(frame) == 9
    assert frame["count"].sum() == 120
    assert frame.groupby("label")["share"].sum().to_numpy() == pytest.approx([1, 1, 1])
    chosen = predictions.proba[1].argmax(axis=1)
    cell = frame[(frame["label"] == "2") & (frame["predicted"] == "0")]["count"].item()
    assert cell == ((predictions.labels == 2) & (chosen == 0)).sum()


def test_class_names_are_text_and_never_numbers_or_markup(predictions):
    figure = confusion_figure(confusion_frame(predictions, "b"))
    assert list(figure.data[0].x) == ["0", "&lt;b&gt;1&lt;/b&gt;", "2"]
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "category"
    assert list(figure.layout.yaxis.categoryarray) == ["2", "&lt;b&gt;1&lt;/b&gt;", "0"]
    assert "<b>1</b>" not in json.dumps(drawn(figure)["data"])
    assert figure.layout.xaxis.title.text == "Predicted class"


def test_reliability_has_the_rows_of_each_member(predictions):
    frame = reliability_frame(predictions)
    assert list(frame.groupby("member")["count"].sum()) == [120, 120]
    assert (frame["count"] > 0).all()
    assert list(reliability_frame(predictions, ["b"])["member"].unique()) == ["b"]
    figure = reliability_figure(frame)
    assert [t.name for t in figure.data] == ["Perfectly calibrated", "a&lt;b&gt;", "b"]
    assert figure.layout.xaxis.title.text == "Confidence"


def test_learning_curves_average_the_folds_that_got_so_far():
    history = pd.DataFrame(
        {
            "candidate": ["c"] * 3,
            "fold": [0, 0, 1],
            "epoch": [1, 2, 1],
            "train_loss": [1.0, 0.5, 3.0],
            "monitor_loss": [1.2, 0.8, 2.2],
        }
    )
    frame = learning_curves_frame(history)
    assert list(frame["folds"]) == [2, 1]
    assert list(frame["best"]) == [1, 1]  # fold 0 at its second epoch, fold 1 at its only one
    assert list(frame["train_loss"]) == [2.0, 0.5]
    assert frame["monitor_loss"].to_list() == pytest.approx([1.7, 0.8])
    figure = learning_curves_figure(frame)
    assert [(t.name, t.line.dash) for t in figure.data] == [
        ("c, training", "dash"),
        ("c, monitor", "solid"),
        ("c, best epochs", None),
    ]
    assert list(figure.data[2].x) == [1, 2]
    assert figure.layout.xaxis.title.text == "Epoch"
