"""The model card of a bundle as it is served: the very one that was exported, and nothing in it is run or loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ensembler.bundle.layout import CARD, FORMAT, INDEX, file_digest
from ensembler.bundle.pages import card_page, read_card
from ensembler.errors import BundleError

TEXT = "---\nlicense: mit\n---\n# Bïrds\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As much of a bundle as a card needs around it."""
    (tmp_path / CARD).write_text(TEXT, encoding="utf-8")
    index = {
        "format": FORMAT,
        "name": "mean",
        "classes": ["a", "b"],
        "image_size": 32,
        "members": [],
        "combiner": None,
        "files": {CARD: file_digest(tmp_path / CARD)},
    }
    (tmp_path / INDEX).write_text(json.dumps(index))
    return tmp_path


def test_the_card_is_the_one_that_was_exported(folder: Path) -> None:
    assert read_card(folder) == TEXT
    (folder / CARD).write_text(TEXT.replace("mit", "gpl"), encoding="utf-8")
    with pytest.raises(BundleError, match=rf"{CARD}: altered since the export"):
        read_card(folder)


def test_a_bundle_may_be_without_a_card(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    del index["files"][CARD]
    (folder / INDEX).write_text(json.dumps(index))
    assert read_card(folder) == ""


def test_front_matter_is_a_table_and_the_rest_is_markdown() -> None:
    page = card_page("---\nlicense: mit\ntags:\n  - a\nname: <b>: c\n---\n# Birds\n\n| a |\n|---|\n| 1 |\n")
    assert "<tr><th>license</th><td>mit</td></tr><tr><th>name</th><td>&lt;b&gt;: c</td></tr>" in page
    assert "tags" not in page
    assert "<h1>Birds</h1>" in page
    assert "<td>1</td>" in page


def test_a_card_without_front_matter_is_markdown_from_its_first_line() -> None:
    page = card_page("# Birds\n\n---\n\nlicense: mit\n\n---\n")
    assert "<table></table>\n<h1>Birds</h1>" in page
    assert "<p>license: mit</p>" in page


@pytest.mark.parametrize(
    "markdown",
    [
        "<script>alert(1)</script>",
        "a <img src=x onerror=alert(1)> b",
        "![x](http://elsewhere/y.png)",
        "[x](javascript:alert(1))",
        "---\nname: <script>alert(1)</script>\n---\n",
    ],
)
def test_nothing_of_a_card_is_run_or_loaded(markdown: str) -> None:
    page = card_page(markdown)
    assert not any(tag in page for tag in ("<script", "<img", 'href="javascript'))
