import math

import pytest

from ensembler.app.wording import count, listed, metric_words, number, p_text, plain, span


@pytest.mark.parametrize(
    "text", ["a|b*c_d", "<script>", ":red[x]", "# h", "[l](http://h)", "$x$", "`c`", "www.x.org"]
)
def test_every_mark_is_escaped(text):
    marks = [c for c in text if not c.isalnum() and c != " "]
    assert all(f"\\{mark}" in plain(text) for mark in marks)
    assert plain(text).replace("\\", "").replace("\u2060", "") == text


def test_emoji_codes_stay_letters():
    assert ":smile:" not in plain(":smile:").replace("\\", "")


def test_numbers():
    assert number(0.123456) == "0.1235"
    assert number(0.5, 1, sign=True) == "+0.5"
    assert number(None) == number(math.nan) == p_text(None) == span(None, 1.0) == span(0.0, math.nan) == "–"
    assert p_text(0.0004) == "< 0.001"
    assert span(-0.1, 0.1, sign=True) == "-0.1000 to +0.1000"
    assert count(1, "row") == "1 row"
    assert count(1200, "entry", "entries") == "1,200 entries"
    assert listed(list("abc"), most=2) == "a, b and 1 more"
    assert metric_words("accuracy") == "accuracy, higher is better"
