"""The numbers behind the figures of the data."""

import numpy as np
import pandas as pd
import pytest

from ensembler.figures.data import (
    class_counts_figure,
    class_counts_frame,
    folds_figure,
    folds_frame,
    sets_frame,
    sizes_figure,
    sizes_frame,
)
from ensembler.folds import Fold, Folds, make_folds

CLASSES = ("ant", "<b>bee</b>", "cow")


def test_classes_are_counted_the_largest_first():
    table = pd.DataFrame(
        {"label": ["cow"] * 4 + ["ant"] * 2 + ["cow", "ant"], "split": ["oof"] * 6 + ["test"] * 2}
    )
    frame = class_counts_frame(table, CLASSES)
    assert frame[["label", "images", "test"]].to_numpy().tolist() == [
        ["cow", 4, 1],
        ["ant", 2, 1],
        ["<b>bee</b>", 0, 0],
    ]
    assert frame["share"].tolist() == pytest.approx([4 / 6, 2 / 6, 0])
    figure = class_counts_figure(frame)
    assert [t.name for t in figure.data] == ["Images for training", "Test images"]
    assert figure.data[1].marker.pattern.shape == "/", "told apart without colour"
    assert list(figure.layout.yaxis.categoryarray) == ["&lt;b&gt;bee&lt;/b&gt;", "ant", "cow"]
    alone = class_counts_figure(class_counts_frame(table[table["split"] == "oof"], CLASSES))
    assert len(alone.data) == 1


def test_folds_are_held_against_an_even_split():
    labels = np.array([0] * 6 + [1] * 2)
    fold = np.array([0, 0, 0, 0, 1, 1, 0, 1])
    frame = folds_frame(labels, fold, CLASSES).set_index(["fold", "label"])
    assert frame.loc[(1, "ant"), ["count", "even"]].tolist() == [4, 3]
    assert frame.loc[(1, "ant"), "off"] == pytest.approx(1 / 3)
    assert frame.loc[(2, "ant"), "off"] == pytest.approx(-1 / 3)
    assert frame.loc[(1, "<b>bee</b>"), "off"] == 0
    assert frame.loc[(2, "cow"), ["count", "even", "off"]].tolist() == [0, 0, 0], "a class without images"
    figure = folds_figure(frame.reset_index())
    assert np.array(figure.data[0].text).tolist() == [["4", "2"], ["1", "1"], ["0", "0"]]
    assert list(figure.data[0].y) == ["ant", "&lt;b&gt;bee&lt;/b&gt;", "cow"]


def test_index_sets_are_counted_and_their_worst_class_named():
    labels = np.array([0] * 8 + [1] * 2)
    whole = Fold(train=np.array([0, 1, 2, 3, 8]), monitor=np.array([4, 5]), holdout=np.array([6, 7, 9]))
    frame = sets_frame(labels, Folds((whole,), np.zeros(10, np.int16)), ("ant", "bee"))
    assert frame[["fold", "train", "monitor", "holdout"]].to_numpy().tolist() == [[1, 5, 2, 3]]
    assert frame["gap"][0] == pytest.approx(0.2), "no bee among the two monitor rows, a fifth of all are bees"
    assert frame["gap_set"][0] == "monitor"


def test_stratified_folds_have_small_gaps():
    labels = np.repeat([0, 1, 2], [60, 30, 30])
    folds = make_folds(labels, 4, monitor_fraction=0.2)
    frame = sets_frame(labels, folds, CLASSES)
    assert len(frame) == 4
    assert (frame[["train", "monitor", "holdout"]].sum(axis=1) == 120).all()
    assert (frame["gap"] < 0.03).all()


def test_sizes_are_counted():
    frame = sizes_frame(np.array([[10, 20], [30, 40], [10, 20]]))
    assert frame.to_numpy().tolist() == [[10, 20, 2], [30, 40, 1]]
    figure = sizes_figure(frame, 24)
    assert list(figure.data[0].x) == [10, 30]
    assert figure.data[0].marker.size[0] > figure.data[0].marker.size[1]
    assert "24 × 24" in figure.layout.annotations[-1].text
    assert len(sizes_figure(frame, 24, most=1).data[0].x) == 1
