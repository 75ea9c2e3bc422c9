import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference

from ensembler.errors import PredictionsError
from ensembler.figures import (
    changes_figure,
    changes_frame,
    confused_classes,
    confusion_change_figure,
    confusion_change_frame,
    confusion_frame,
    mistakes_frame,
    outcome_frame,
    precision_recall_figure,
    precision_recall_frame,
    roc_figure,
    roc_frame,
    votes_figure,
    votes_frame,
)
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions

CLASSES = ("x", "<b>y</b>", "z")


def made(n_classes=3, n_samples=300, n_members=2, ties=True, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_classes, size=n_samples)
    proba = rng.dirichlet(np.ones(n_classes), (n_members, n_samples)) + 0.5 * np.eye(n_classes)[labels]
    if ties:
        proba = np.round(8 * proba) + 0.5
    proba = (proba / proba.sum(axis=2, keepdims=True)).astype(np.float32)
    return Predictions.from_arrays(
        proba, labels, np.arange(n_samples) % 3, members=[f"m<{i}>" for i in range(n_members)]
    )


@pytest.fixture
def four():
    """Four images: both right, the first alone, the second alone, none."""
    first, second = [0, 1, 0, 2], [0, 0, 2, 0]
    proba = [
        [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.6, 0.2, 0.2], [0.0, 0.1, 0.9]],
        [[0.5, 0.3, 0.2], [0.9, 0.1, 0.0], [0.2, 0.2, 0.6], [0.5, 0.4, 0.1]],
    ]
    assert (np.argmax(proba, axis=2) == [first, second]).all()
    return Predictions.from_arrays(
        proba, [0, 1, 2, 1], [0, 1, 0, 1], members=["one", "t<w>o"], classes=CLASSES, sample_ids=list("abcd")
    )


# ---------------------------------------------------------------------- who is right


def test_every_image_is_fixed_broken_or_neither(four):
    frame = outcome_frame(four, "one", "t<w>o")
    assert frame["outcome"].tolist() == ["both right", "fixed", "broken", "both wrong"]
    assert outcome_frame(four, "t<w>o", "one")["outcome"].tolist() == [
        "both right",
        "broken",
        "fixed",
        "both wrong",
    ]
    assert frame["gain"].to_list() == pytest.approx([0.3, 0.6, -0.4, -0.3])
    row = frame.iloc[3]
    assert row[["row", "sample_id", "label", "first", "second"]].tolist() == [3, "d", "<b>y</b>", "z", "x"]
    assert [row["first_confidence"], row["second_confidence"]] == pytest.approx([0.9, 0.5])


def test_changes_count_the_images_of_each_class(four):
    frame = changes_frame(outcome_frame(four, "one", "t<w>o")).set_index("label")
    assert frame.loc["<b>y</b>"].tolist() == [2, 1, 0]
    assert frame.loc["z"].tolist() == [1, 0, 1]
    assert frame.loc["x"].tolist() == [1, 0, 0]
    assert frame.index[-1] == "x", "the class without any change comes last"
    figure = changes_figure(frame.reset_index())
    assert [(t.name, list(t.x)) for t in figure.data] == [("Fixed", [1, 0, 0]), ("Broken", [0, -1, 0])]
    assert "<b>" not in json.dumps(json.loads(figure.to_json())["data"])


def test_the_surest_mistake_comes_first(four):
    frame = mistakes_frame(four, "one")
    assert frame["sample_id"].tolist() == ["d", "c"]
    assert frame["said"].tolist() == ["z", "x"]
    assert frame["confidence"].to_list() == pytest.approx([0.9, 0.6])
    assert frame["own"].to_list() == pytest.approx([0.1, 0.2])
    perfect = four.with_proba(np.eye(3, dtype=np.float32)[four.labels], ["perfect"])
    assert mistakes_frame(perfect, "perfect").empty


def test_votes_are_of_the_rows_asked_for_in_their_order(four):
    frame = votes_frame(four, [3, 0])
    assert frame["sample_id"].tolist() == ["d", "d", "a", "a"]
    assert frame["row"].tolist() == [3, 3, 0, 0]
    assert frame["member"].tolist() == ["one", "t<w>o"] * 2
    assert frame["said"].tolist() == ["z", "x", "x", "x"]
    assert frame["right"].tolist() == [False, False, True, True]
    figure = votes_figure(frame, first=25)
    matrix = figure.data[0]
    assert list(matrix.x) == ["25", "26"]
    assert list(matrix.y) == ["one", "t&lt;w&gt;o"]
    assert np.array(matrix.z) == pytest.approx(np.array([[0.1, 0.8], [0.4, 0.5]]))
    assert np.array(matrix.text).tolist() == [["×", ""], ["×", ""]]


def test_long_names_are_shortened_beside_the_votes_alone(four):
    long = "resnet50_with_a_long_name-full-3b241a"
    figure = votes_figure(votes_frame(four.with_proba(four.proba[:1], [long]), [0]))
    assert list(figure.layout.yaxis.ticktext) == ["resnet50_with_a…l-3b241a"]
    assert list(figure.data[0].y) == [long]


# ---------------------------------------------------------------------- what is taken for what


def test_the_change_is_the_difference_of_two_confusion_matrices(four):
    frame = confusion_change_frame(four, "t<w>o", "one").set_index(["label", "predicted"])
    one = confusion_frame(four, "one").set_index(["label", "predicted"])["count"]
    two = confusion_frame(four, "t<w>o").set_index(["label", "predicted"])["count"]
    assert (frame["change"] == one - two).all()
    assert frame.loc[("<b>y</b>", "<b>y</b>"), ["change", "better"]].tolist() == [1, 1], "one more is right"
    assert frame.loc[("<b>y</b>", "x"), ["change", "better"]].tolist() == [-2, 2], (
        "two are no longer taken for x"
    )
    assert frame.loc[("z", "x"), ["change", "better"]].tolist() == [1, -1]
    figure = confusion_change_figure(frame.reset_index())
    assert np.array(figure.data[0].text)[1].tolist() == ["-2", "+1", "+1"]
    assert figure.data[0].zmin == -figure.data[0].zmax == -2


def test_confused_classes_are_those_with_most_errors_either_way():
    frame = pd.DataFrame(
        {
            "label": ["a", "a", "b", "b", "c", "c", "d", "d"],
            "predicted": ["a", "c", "b", "a", "c", "a", "d", "b"],
            "count": [9, 5, 9, 1, 9, 2, 99, 1],
        }
    )
    assert confused_classes(frame, 2) == ["a", "c"]
    assert confused_classes(frame, 9) == ["a", "b", "c", "d"]


# ---------------------------------------------------------------------- ROC, precision and recall


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("label", ["0", "2"])
def test_the_curves_of_a_class_are_scikit_learns(ties, label):
    predictions = made(ties=ties)
    positive, score = predictions.labels == int(label), predictions.proba[1, :, int(label)]
    roc = roc_frame(predictions, ["m<1>"], label, points=None)
    x, y, _ = reference.roc_curve(positive, score, drop_intermediate=False)
    assert roc["false_positives"].to_numpy() == pytest.approx(x)
    assert roc["true_positives"].to_numpy() == pytest.approx(y)
    assert roc["area"].iloc[0] == pytest.approx(reference.roc_auc_score(positive, score))

    found = precision_recall_frame(predictions, ["m<1>"], label, points=None)
    precision, recall, _ = reference.precision_recall_curve(positive, score)
    precision, recall = (
        precision[::-1][1:],
        recall[::-1][1:],
    )  # from none found to all; scikit-learn adds (0, 1)
    until = int(np.argmax(recall == 1)) + 1
    assert found["recall"].to_numpy()[1:] == pytest.approx(recall[:until])
    assert found["precision"].to_numpy()[1:] == pytest.approx(precision[:until])
    assert found["area"].iloc[0] == pytest.approx(reference.average_precision_score(positive, score))


def test_the_area_of_the_average_is_the_mean_over_the_classes():
    predictions = made()
    roc, found = roc_frame(predictions), precision_recall_frame(predictions)
    for i, member in enumerate(predictions.members):
        slab = predictions.proba[i]
        area = reference.roc_auc_score(predictions.labels, slab.astype(float), multi_class="ovr")
        assert roc.loc[roc["member"] == member, "area"].unique() == pytest.approx([area], abs=1e-6)
        assert area == pytest.approx(METRICS["roc_auc"](predictions.labels, slab), abs=1e-6)
        mean = reference.average_precision_score(np.eye(3)[predictions.labels], slab, average="macro")
        assert found.loc[found["member"] == member, "area"].unique() == pytest.approx([mean])


def test_the_average_curves_have_about_the_area_that_they_claim():
    predictions = made(n_samples=2000)
    roc, found = roc_frame(predictions, ["m<0>"]), precision_recall_frame(predictions, ["m<0>"])
    drawn = np.trapezoid(roc["true_positives"], roc["false_positives"])
    assert drawn == pytest.approx(roc["area"].iloc[0], abs=0.003)
    drawn = np.trapezoid(found["precision"], found["recall"])
    assert drawn == pytest.approx(found["area"].iloc[0], abs=0.003)


def test_of_two_classes_the_second_is_ranked_as_by_the_metrics():
    predictions = made(n_classes=2)
    assert roc_frame(predictions)["label"].unique() == ["1"]
    for frame, metric in (
        (roc_frame(predictions), "roc_auc"),
        (precision_recall_frame(predictions), "average_precision"),
    ):
        expected = [METRICS[metric](predictions.labels, slab) for slab in predictions.proba]
        assert frame.groupby("member")["area"].first().to_list() == pytest.approx(expected, abs=1e-6)


def test_a_long_curve_is_drawn_with_few_points_and_keeps_its_ends_and_its_area():
    predictions = made(n_samples=5000, ties=False)
    every, few = (roc_frame(predictions, ["m<0>"], "1", points=n) for n in (None, 400))
    assert len(every) > 4000
    assert len(few) <= 401
    for frame in (every, few):
        assert frame[["false_positives", "true_positives"]].iloc[[0, -1]].to_numpy().tolist() == [
            [0, 0],
            [1, 1],
        ]
    assert few["area"].iloc[0] == every["area"].iloc[0]
    assert np.trapezoid(few["true_positives"], few["false_positives"]) == pytest.approx(
        every["area"].iloc[0], abs=1e-3
    )


def test_classes_without_images_have_no_curve():
    predictions = made(n_classes=4)
    predictions = predictions.rows(predictions.labels != 3)
    assert roc_frame(predictions, label="3").empty
    assert roc_figure(roc_frame(predictions, label="3")).data[-1].name == "Chance"
    three = [roc_frame(predictions, ["m<0>"], k)["area"].iloc[0] for k in "012"]
    assert roc_frame(predictions, ["m<0>"])["area"].iloc[0] == pytest.approx(np.mean(three))
    with pytest.raises(PredictionsError, match="class 'none': not among"):
        roc_frame(predictions, label="none")


def test_curves_are_told_apart_without_colour_and_names_are_text():
    predictions = made()
    figure = roc_figure(roc_frame(predictions))
    assert [t.name.split(":")[0] for t in figure.data] == ["m&lt;0&gt;", "m&lt;1&gt;", "Chance"]
    assert figure.data[0].line.dash != figure.data[1].line.dash
    other = precision_recall_figure(precision_recall_frame(predictions))
    assert other.data[0].line.shape == "vh"
    assert other.layout.xaxis.title.text == "Recall"
