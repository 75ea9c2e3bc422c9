"""Where a generator gets its choices from: Hypothesis, which can shrink them, or the bytes of a fuzzer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")


class Choices(Protocol):
    """A generator asks for one thing after another and builds its case of them."""

    def whole(self, low: int, high: int) -> int:
        """A number from `low` to `high`, both included."""

    def blob(self, most: int) -> bytes:
        """At most so many bytes."""


class Drawn:
    """Choices of Hypothesis."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def whole(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def blob(self, most: int) -> bytes:
        return self._draw(st.binary(max_size=most))


class Read:
    """Choices read off some bytes, from the front; when they have run out every number is the least there is."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def whole(self, low: int, high: int) -> int:
        span = high - low + 1
        part = self._take((span.bit_length() + 7) // 8)
        return low + int.from_bytes(part, "little") % span

    def blob(self, most: int) -> bytes:
        return self._take(self.whole(0, most))

    def _take(self, n: int) -> bytes:
        part = self._data[self._at : self._at + n]
        self._at += n
        return part


# ---------------------------------------------------------------------- what can be made of numbers and bytes


def pick(choices: Choices, options: Sequence[T]) -> T:
    """One of some options."""
    return options[choices.whole(0, len(options) - 1)]


def one_in(choices: Choices, n: int) -> bool:
    """True once in `n` times."""
    return choices.whole(0, n - 1) == n - 1


#: What programs have stumbled over: ends of lines and strings, directions and widths of writing, lone surrogates.
PIECES = (
    "\n", "\r\n", "\0", "\t", "\x1b[31m", "\x7f", "\u2028", "\ufeff", "\u202e", "\u200d", "é", "e\u0301", "ﬁ", "ß",
    "İ",
    "日本", "🐱", "👩‍👩‍👧", "\ud800", "\udcff", "\U0010ffff", " ", "'", '"', "`", "\\", "/", "..", "../", ",", ";",
    ":", "#", "%",
    "%s", "{0}", "{{", "$x$", "$(id)", "<script>alert(1)</script>", "&amp;", "|", "*", "-", "=1+1", "[", "]", "{",
    "}", "null",
    "nan", "NaN", "inf", "-0", "1e999", "0x10", "1_000", "٣", "²", "true", "no", "a" * 300, "A", "b",
)  # fmt: skip


def words(choices: Choices, most: int = 4) -> str:
    """A short text, often an odd one."""
    return "".join(pick(choices, PIECES) for _ in range(choices.whole(0, most)))


def number(choices: Choices) -> int | float:
    """A number that is small, or at some edge."""
    edges = (
        0,
        1,
        -1,
        2,
        255,
        256,
        32767,
        32768,
        2**31,
        2**53 + 1,
        2**63,
        2**64,
        10**30,
        0.5,
        -0.0,
        1e-320,
        1e308,
    )
    odd = (float("inf"), float("-inf"), float("nan"))
    return pick(choices, (*edges, *odd, choices.whole(-100, 100)))


def value(choices: Choices, depth: int = 3) -> object:
    """Whatever JSON can say."""
    kind = choices.whole(0, 7 if depth else 5)
    if kind >= 6:
        several = range(choices.whole(0, 3))
        if kind == 6:
            return [value(choices, depth - 1) for _ in several]
        return {words(choices, 2): value(choices, depth - 1) for _ in several}
    return (None, True, False, number(choices), words(choices), number(choices))[kind]


def changed(choices: Choices, tree: object, depth: int = 8) -> object:
    """A copy of what JSON has said, with one place changed: taken away, doubled, or something else."""
    keys: list[object] = (
        list(tree) if isinstance(tree, dict) else list(range(len(tree))) if isinstance(tree, list) else []
    )
    if not keys or not depth or one_in(choices, 6):
        return value(choices)
    key = pick(choices, keys)
    copy = dict(tree) if isinstance(tree, dict) else list(tree)  # type: ignore[call-overload]
    how = choices.whole(0, 7)
    if how == 0:
        del copy[key]
    elif how == 1 and isinstance(copy, list):
        copy.append(copy[key])
    elif how == 1:
        copy[words(choices, 2)] = copy[key]
    else:
        copy[key] = changed(choices, copy[key], depth - 1)
    return copy


def damaged(choices: Choices, data: bytes, most: int = 4) -> bytes:
    """Bytes with a few of them altered, cut out, doubled, or put in."""
    content = bytearray(data)
    for _ in range(choices.whole(1, most)):
        at = choices.whole(0, max(0, len(content) - 1))
        how = choices.whole(0, 6)
        if how <= 1 and content:
            content[at] = choices.whole(0, 255)
        elif how == 2 and content:
            content[at] ^= 1 << choices.whole(0, 7)
        elif how == 3:
            content[at : at + choices.whole(1, 64)] = b""
        elif how == 4:
            content[at:at] = choices.blob(16)
        elif how == 5:
            content[at:at] = content[at : at + choices.whole(1, 64)]
        else:
            del content[at:]
    return bytes(content)
