"""Names and numbers as text.

Names of classes, rows and runs are data. Streamlit reads Markdown in most of its texts, so a name goes through
`plain` where Markdown is read, and through `html.escape` where HTML is.
"""

from __future__ import annotations

import html
import math
import re
import string
from collections.abc import Sequence

import streamlit as st

from ..metrics import get_metric

_PUNCTUATION = re.compile(f"([{re.escape(string.punctuation)}])")
_EMOJI = re.compile(r":(?=[\w+-]+:)")
_WORD_JOINER = "\u2060"


def plain(text: object) -> str:
    r"""Markdown that reads as this text.

    A backslash before every punctuation mark is CommonMark's own way. Emoji shortcodes are replaced after that
    is parsed, so they are broken by an invisible character.

    >>> print(plain("a|b*c_d"))
    a\|b\*c\_d
    """
    broken = _EMOJI.sub(":" + _WORD_JOINER, str(text))
    return _PUNCTUATION.sub(r"\\\1", broken.replace("\n", " "))


def headline(text: str) -> None:
    """A large line of plain text, a heading for screen readers too."""
    st.html(
        '<h2 style="font-size:1.75rem;line-height:1.25;margin:0;padding:0;overflow-wrap:anywhere">'
        f"{html.escape(text)}</h2>"
    )


def lines(*texts: str) -> None:
    """Small lines of plain text, one under the other; empty ones are left out."""
    body = "<br>".join(html.escape(text) for text in texts if text)
    st.html(f'<div style="font-size:.9rem;line-height:1.5;overflow-wrap:anywhere">{body}</div>')


def metric_words(name: str) -> str:
    """A metric as it is read, with its direction.

    >>> metric_words("log_loss")
    'log loss, lower is better'
    """
    return f"{metric_name(name)}, {'higher' if get_metric(name).greater_is_better else 'lower'} is better"


def metric_name(name: str) -> str:
    """A metric's name in words.

    >>> metric_name("balanced_accuracy")
    'balanced accuracy'
    """
    return get_metric(name).title


def capital(text: str) -> str:
    """The text with a capital first letter; the others stay."""
    return text[:1].upper() + text[1:]


def number(value: float | None, digits: int = 4, sign: bool = False) -> str:
    """A number, or a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:{'+' if sign else ''}.{digits}f}"


def span(low: float | None, high: float | None, sign: bool = False) -> str:
    """An interval.

    >>> span(0.1, 0.25)
    '0.1000 to 0.2500'
    """
    if low is None or high is None or math.isnan(low + high):
        return "–"
    return f"{number(low, sign=sign)} to {number(high, sign=sign)}"


def p_text(value: float | None) -> str:
    """A p-value, never more exact than it is."""
    if value is None or math.isnan(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def count(n: int, one: str, many: str | None = None) -> str:
    """A number of things.

    >>> count(1, "image"), count(2, "image")
    ('1 image', '2 images')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names in a row, the rest counted."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
