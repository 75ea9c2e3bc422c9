"""Markdown of a report: tables and numbers in which a name is always text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def markdown_to_html(markdown: str) -> str:
    """Tables and all, with markup in names kept as text."""
    from markdown_it import MarkdownIt

    return str(MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown))


def table(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(map(cell, head)) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(map(cell, row)) + " |" for row in rows]
    return "\n".join(lines)


def cell(value: Any) -> str:
    """A value in a table; names are text, also those that look like markup."""
    return str(value).replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")


def number(value: Any, digits: int) -> str:
    """With so many digits; "" where it is not known."""
    return "" if value is None else f"{value:.{digits}f}"


def signed(value: float, low: float, high: float) -> str:
    """A difference with its interval."""
    return f"{value:+.4f} [{low:+.4f}, {high:+.4f}]"


def p_value(value: float | None) -> str:
    """A p-value, as precise as anybody needs it."""
    return "<0.001" if value is not None and value < 0.001 else number(value, 3)


def words(name: str) -> str:
    """A key as words."""
    return name.replace("_", " ")
