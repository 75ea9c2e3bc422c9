"""What a model says of one image, as numbers and as a picture."""

from __future__ import annotations

from ensembler.figures import answer_figure, answer_frame, member_answers_frame

CLASSES = ["cat", "dog", "<b>", "owl"]
PROBA = [0.2, 0.2, 0.5, 0.1]
MEMBERS = [("one", [0.7, 0.1, 0.1, 0.1]), ("<i>", [0.0, 0.1, 0.9, 0.0])]


def test_the_most_probable_classes_come_first_and_equal_ones_in_their_order() -> None:
    frame = answer_frame(CLASSES, PROBA, MEMBERS, top=3)
    alone = frame[frame["member"].isna()]
    assert alone["label"].tolist() == ["<b>", "cat", "dog"]
    assert alone["probability"].tolist() == [0.5, 0.2, 0.2]
    assert frame[frame["member"] == "one"]["probability"].tolist() == [0.1, 0.7, 0.1]
    assert len(answer_frame(CLASSES, PROBA)) == 4
    assert len(answer_frame(CLASSES[:1], PROBA[:1])) == 1


def test_each_member_is_held_against_the_answer() -> None:
    frame = member_answers_frame(CLASSES, PROBA, MEMBERS)
    assert frame["label"].tolist() == ["cat", "<b>"]
    assert frame["probability"].tolist() == [0.7, 0.9]
    assert frame["agrees"].tolist() == [False, True]
    assert list(member_answers_frame(CLASSES, PROBA, [])) == ["member", "label", "probability", "agrees"]


def test_the_figure_has_a_bar_a_class_and_a_mark_a_member_and_names_stay_text() -> None:
    figure = answer_figure(answer_frame(CLASSES, PROBA, MEMBERS, top=3))
    bar, *marks = figure.data
    assert list(bar.y) == ["&lt;b&gt;", "cat", "dog"]
    assert list(bar.x) == [0.5, 0.2, 0.2]
    assert [mark.name for mark in marks] == ["one", "&lt;i&gt;"]
    assert len({mark.marker.symbol for mark in marks}) == 2
    assert figure.layout.yaxis.categoryarray[-1] == "&lt;b&gt;", "the best on top"
    assert len(answer_figure(answer_frame(CLASSES, PROBA)).data) == 1
