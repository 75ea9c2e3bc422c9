"""The page of a monitored batch says what the tests found, and nothing else."""

from __future__ import annotations

import dataclasses
import html
import re
from pathlib import Path

import numpy as np
import pytest

from ensembler.bundle.monitor.drift import Accuracy, Drift
from ensembler.bundle.monitor.drift import Test as Finding
from ensembler.bundle.monitor.features import LOOKS, Sample
from ensembler.bundle.monitor.observe import Batch
from ensembler.bundle.monitor.reference import Reference
from ensembler.bundle.monitor.report import report_page, sentence

CLASSES = ["ant", "b<e"]
QUIET = Drift(
    (
        Finding("look of the images", "MMD", 0.123456, 0.25, 0.5, False),
        Finding("answers", "MMD", 2.0, 0.3, 0.5, False),
    ),
    None,
    psi_confidence=0.0314,
    psi_classes=0.2718,
    threshold=0.01,
)
LOUD = dataclasses.replace(
    QUIET,
    tests=(QUIET.tests[0], Finding("answers", "MMD", 2.0, 0.00012345, 0.0005, True)),
    accuracy=Accuracy(1230, 2000, 0.5931, 0.6361, 0.8125),
)


def _sample(n: int, moved: float = 0.0, predicted: int = 0, members: int = 1) -> Sample:
    looks = np.tile(np.linspace(-1, 1, n, dtype=np.float32)[:, None], (1, 16))
    looks[:, [3, 7, 11]] += moved * np.array([1, 3, 2], np.float32)
    proba = np.full((n, 2), 0.25, np.float32)
    proba[:, predicted] = 0.75
    return Sample(looks, proba, np.full((n, members), 0.04, np.float32))


def _page(drift: Drift = QUIET, history: int = 1, unreadable: int = 0, members: int = 1) -> str:
    old, new = _sample(1200, members=members), _sample(30, moved=1.0, predicted=1, members=members)
    batch = Batch(
        [Path(f"{i}<.png") for i in range(30)], new, new.proba, [(Path("x.png"), "is no image")] * unreadable
    )
    records = [{"tests": [{"adjusted": 0.5}, {"adjusted": 0.02}], "alarm": i > 0} for i in range(history)]
    return report_page(
        "my <bundle>", CLASSES, Reference(old, np.zeros(1200, np.int64), 0), batch, drift, records
    )


def _cells(page: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", page)
    return [[re.sub("<[^>]+>", "", cell) for cell in re.findall(r"<t[dh].*?</t[dh]>", row)] for row in rows]


def test_a_quiet_batch() -> None:
    page = _page()
    assert page.startswith("<!doctype html>\n<html lang=")
    assert "<title>my &lt;bundle&gt;: monitor</title>" in page
    assert "<h1>my &lt;bundle&gt;: 30 new images</h1>" in page
    said = "No alarm: 30 images are like those of the training data, as far as the tests can tell."
    assert f'<p class="verdict">{said}</p>' in page
    assert sentence(QUIET, 30) == said
    assert _cells(page) == [
        ["of", "test", "statistic", "p", "corrected", ""],
        ["look of the images", "MMD", "0.1235", "0.25", "0.5", ""],
        ["answers", "MMD", "2", "0.3", "0.5", ""],
    ]
    assert "</b>: 1,200 images that the networks had not seen in training." in page
    assert "could not be read" not in page
    assert "Accuracy" not in page
    assert "at most 0.01: so often" in page
    assert "confidence 0.031, predicted classes\n0.272 (" in page
    assert "class=alarm" not in page
    assert "default-src 'none'" in page


def test_an_alarm_is_marked_where_it_is() -> None:
    page = _page(LOUD, unreadable=1234)
    said = "Alarm: answers of 30 images differs from the training data."
    assert f'<p class="verdict alarm">{said}</p>' in page
    assert _cells(page)[1:] == [
        ["look of the images", "MMD", "0.1235", "0.25", "0.5", ""],
        ["answers", "MMD", "2", "0.0001234", "0.0005", "alarm"],
    ]
    assert page.count("<td class=alarm>") == 1
    assert "<td class=alarm>answers</td>" in page
    assert "1,234 more could not be read." in page
    found = "Accuracy 0.615 [0.593, 0.636] on 2,000 labelled images; 0.812 out of fold at the export."
    assert f"<p>{found}</p>" in page
    both = dataclasses.replace(LOUD, tests=(dataclasses.replace(LOUD.tests[0], alarm=True), LOUD.tests[1]))
    assert sentence(both, 2000) == (
        "Alarm: look of the images, answers of 2,000 images differ from the training data."
    )


@pytest.mark.parametrize(("members", "history"), [(1, 1), (2, 1), (1, 2)])
def test_the_figures_are_those_that_there_is_something_for(members: int, history: int) -> None:
    page = _page(members=members, history=history)
    figures = re.findall(r'aria-label="([^"]*)"', page)
    looks = [LOOKS[i].capitalize() for i in (7, 11, 3)]  # those that moved most
    disagreement = ["Disagreement of the members"] if members > 1 else []
    course = ["Smallest corrected p-value"] if history > 1 else []
    assert figures == ["Confidence", "Predicted classes", *disagreement, *looks, *course]
    axes = ["probability of the first choice", *(["root of the divergence"] if disagreement else [])]
    for axis in [*axes, *(LOOKS[i] for i in (7, 11, 3))]:
        assert f'text-anchor="middle">{html.escape(axis)}</text>' in page
    assert "100.0 %" in page  # of either class, of either sample
    assert page.count(">b&lt;e</text>") == 1
    if disagreement:
        assert ">0.2</text>" in page  # the root of 0.04
    if course:
        assert page.count('<rect x="448.0"') == 1  # the last batch raised an alarm
        assert page.count("<circle") == 1


def test_those_least_like_the_old_images_are_named_the_farthest_first() -> None:
    ol = _page().split("<ol>")[1].split("</ol>")[0]
    listed = re.findall(r"<li><code>(.*?)</code></li>", ol)
    assert "".join(f"<li><code>{name}</code></li>" for name in listed) == ol
    assert len(listed) == 10
    numbers = [int(name.removesuffix("&lt;.png")) for name in listed]
    assert numbers[0] == 29  # its look has moved by most
    assert set(numbers[:6]) == {24, 25, 26, 27, 28, 29}
