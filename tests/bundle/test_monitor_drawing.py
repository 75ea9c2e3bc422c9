"""The figures of a monitor's report show the numbers that they are given, to the tenth of a pixel."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from ensembler.bundle.monitor.drawing import ALARM, NEW, OLD, bars, course, histograms

SPACE = "{http://www.w3.org/2000/svg}"


def _parse(svg: str) -> ElementTree.Element:
    """As a browser does: within a page the name space is known."""
    return ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def _texts(figure: ElementTree.Element) -> list[str]:
    return [str(text.text) for text in figure.iter(f"{SPACE}text")]


def _number(element: ElementTree.Element, name: str) -> float:
    return float(element.attrib[name])


def test_a_histogram_is_as_high_as_the_share_of_its_bin() -> None:
    old = np.array([0, 0, 0, 1], np.float32)
    new = np.array([0, 3, 3, 4, 4], np.float32)
    figure = _parse(histograms(old, new, "Size <of>", "pixels & more", bins=4))
    lines = list(figure.iter(f"{SPACE}polyline"))
    assert [line.attrib["stroke"] for line in lines] == [OLD, NEW]
    assert [line.attrib["stroke-dasharray"] for line in lines] == [
        "",
        "5 3",
    ]  # told apart without colours too
    assert [line.attrib["fill"] for line in lines] == ["none", "none"]
    base, top = 186.0, 20.0  # of the frame, and of the highest share
    for line, shares in zip(lines, ([0.75, 0.25, 0, 0], [0.2, 0, 0, 0.8]), strict=True):
        points = np.array([[float(v) for v in point.split(",")] for point in line.attrib["points"].split()])
        np.testing.assert_allclose(points[:, 0], [44, 146, 146, 248, 248, 350, 350, 452])
        np.testing.assert_allclose(
            points[:, 1], np.repeat(base - (base - top) * np.array(shares) / 0.8, 2), atol=0.051
        )
    assert figure.attrib["aria-label"] == "Size <of>"
    assert _texts(figure) == ["Size <of>", "80 %", "pixels & more", "0", "4"]
    assert (figure.attrib["viewBox"], figure.attrib["width"], figure.attrib["height"]) == (
        "0 0 460 220",
        "460",
        "220",
    )
    axis = next(figure.iter(f"{SPACE}line"))
    assert [_number(axis, name) for name in ("x1", "x2", "y1", "y2")] == [44, 452, base, base]
    ends = [text for text in figure.iter(f"{SPACE}text") if text.text in ("0", "4")]
    assert [(text.attrib["x"], text.attrib["y"], text.attrib["text-anchor"]) for text in ends] == [
        ("44.0", "200", "start"),
        ("452.0", "200", "end"),
    ]


def test_where_all_values_are_the_same_the_histogram_has_a_width() -> None:
    figure = _parse(histograms(np.full(3, 2, np.float32), np.full(2, 2, np.float32), "Same", "value"))
    assert _texts(figure)[-2:] == ["2", "3"]
    for line in figure.iter(f"{SPACE}polyline"):
        points = line.attrib["points"].split()
        assert len(points) == 48
        assert points[:3] == ["44.0,20.0", "61.0,20.0", "61.0,186.0"]  # all of it in the first of 24 bins
        assert points[-1] == "452.0,186.0"


def test_a_bar_is_as_long_as_its_share_and_those_that_differ_most_come_first() -> None:
    figure = _parse(
        bars([0.5, 0.3, 0.2], [0.45, 0.05, 0.5], ["ant", "bee", "a name that is too long to stand"], "Found")
    )
    names = [text.text for text in figure.iter(f"{SPACE}text") if text.attrib.get("text-anchor") == "end"]
    assert names == ["a name that is too …", "bee", "ant"]
    rectangles = list(figure.iter(f"{SPACE}rect"))
    assert [r.attrib["fill"] for r in rectangles] == [OLD, NEW] * 3
    shares = np.array([0.2, 0.5, 0.3, 0.05, 0.5, 0.45])
    np.testing.assert_allclose([_number(r, "width") for r in rectangles], 260 * shares / 0.5, atol=0.051)
    assert [_number(r, "y") for r in rectangles] == [24, 34, 50, 60, 76, 86]
    assert {(r.attrib["x"], r.attrib["height"]) for r in rectangles} == {("150", "9")}
    said = [text for text in figure.iter(f"{SPACE}text") if str(text.text).endswith("%")]
    assert [text.text for text in said] == ["20.0 %", "50.0 %", "30.0 %", "5.0 %", "50.0 %", "45.0 %"]
    np.testing.assert_allclose(
        [_number(text, "x") for text in said], 154 + 260 * shares / 0.5, atol=0.051
    )  # right of the bar
    assert [_number(text, "y") for text in said] == [33, 43, 59, 69, 85, 95]
    assert figure.attrib["height"] == "108"


def test_of_many_classes_twenty_are_drawn_and_a_name_of_twenty_letters_is_whole() -> None:
    shares = np.arange(30) / 435
    names = ["n" * 19 + chr(ord("A") + i) for i in range(30)]
    figure = _parse(bars(shares.tolist(), np.zeros(30).tolist(), names, "Found"))
    drawn = [text.text for text in figure.iter(f"{SPACE}text") if text.attrib.get("text-anchor") == "end"]
    assert drawn == names[:9:-1]
    nothing = _parse(bars([0.0], [0.0], ["a"], "None"))  # no share to be measured against
    assert [_number(r, "width") for r in nothing.iter(f"{SPACE}rect")] == [0, 0]


def test_a_course_is_logarithmic_and_alarms_are_filled_squares() -> None:
    figure = _parse(course([1.0, 0.01, 1e-9, 0.1], [False, True, True, False], 0.01, "Smallest"))
    lines = list(figure.iter(f"{SPACE}line"))
    assert [_number(line, "y1") for line in lines] == [20, 103, 186]  # 1, the threshold, the floor of 1e-4
    assert [_number(line, "y2") for line in lines] == [20, 103, 186]
    assert ["stroke-dasharray" in line.attrib for line in lines] == [False, True, False]
    assert {(line.attrib["x1"], line.attrib["x2"]) for line in lines} == {("44", "452")}
    assert _texts(figure) == ["Smallest", "1", "0.01", "0.0001", "batches, oldest first"]
    squares = list(figure.iter(f"{SPACE}rect"))
    assert [(_number(s, "x"), _number(s, "y")) for s in squares] == [(181.3, 99.0), (314.7, 182.0)]
    assert {(s.attrib["width"], s.attrib["height"], s.attrib["fill"]) for s in squares} == {("8", "8", ALARM)}
    circles = list(figure.iter(f"{SPACE}circle"))
    assert [(_number(c, "cx"), _number(c, "cy")) for c in circles] == [(52.0, 20.0), (452.0, 61.5)]
    assert {(c.attrib["stroke"], c.attrib["fill"]) for c in circles} == {(OLD, "none")}


def test_the_axis_of_a_course_goes_below_any_threshold_and_one_batch_has_a_place() -> None:
    figure = _parse(course([1e-6], [True], 1e-5, "Smallest"))
    assert [text for text in _texts(figure) if re.fullmatch(r"[\de.-]+", text)] == ["1", "1e-05", "1e-06"]
    square = next(figure.iter(f"{SPACE}rect"))
    assert (_number(square, "x"), _number(square, "y")) == (48, 182)


def test_a_course_needs_an_alarm_or_none_for_each_batch() -> None:
    with pytest.raises(ValueError, match="zip"):
        course([0.5, 0.2], [False], 0.01, "Smallest")
