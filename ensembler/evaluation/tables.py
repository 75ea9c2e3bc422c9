"""The leaderboard as text: for a terminal, and for a paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

from ..metrics import get_metric

Record = Mapping[str, Any]


@dataclass(frozen=True)
class _Column:
    title: str
    text: Callable[[Record], str]
    numeric: bool = True


def _number(key: str, digits: int) -> Callable[[Record], str]:
    return lambda r: "" if r[key] is None else f"{r[key]:.{digits}f}"


def _range(middle: str, low: str, high: str, sign: str = "") -> Callable[[Record], str]:
    def text(r: Record) -> str:
        if r[low] is None or r[high] is None:
            return _number(middle, 4)(r)
        return f"{r[middle]:{sign}.4f} [{r[low]:{sign}.3f}, {r[high]:{sign}.3f}]"

    return text


def _delta(r: Record) -> str:
    if r["p_value"] is None:
        return "best single"
    return _range("delta_best_single", "delta_low", "delta_high", "+")(r)


def _p_value(r: Record) -> str:
    if r["p_value"] is None:
        return ""
    return "<0.001" if r["p_value"] < 0.001 else f"{r['p_value']:.3f}"


def _in_units(key: str, unit: float, digits: int) -> Callable[[Record], str]:
    return lambda r: "" if r.get(key) is None else f"{r[key] / unit:.{digits}f}"


def _columns(records: Sequence[Record]) -> list[_Column]:
    """What a reader needs most comes first."""
    metric = get_metric(records[0]["metric"]).title if records else "score"
    columns = [
        _Column("name", lambda r: str(r["name"]), numeric=False),
        _Column(metric, _range("cv", "cv_low", "cv_high")),
        _Column("gain on best single", _delta),
        _Column("p", _p_value),
        _Column("tied", lambda r: "=" if r["tied_with_best"] else "", numeric=False),
        _Column("ms", _number("latency_ms", 1)),
        _Column("acc", _number("accuracy", 3)),
        _Column("test", _number("test", 4)),
        _Column("kind", lambda r: str(r["kind"]), numeric=False),
        _Column("ECE", _number("ece", 3)),
        _Column("optimism", _number("optimism", 4)),
        _Column("Mparams", _in_units("params", 1e6, 2)),
        _Column("train s", _number("train_s", 0)),
        _Column("ms at 32", _in_units("latency_32_ms", 1, 2)),
        _Column("GFLOPs", _in_units("flops", 1e9, 2)),
        _Column("MB", _in_units("weights_bytes", 1e6, 1)),
    ]
    return [c for c in columns if c.title == "name" or any(c.text(r) for r in records)]


def text_table(records: Sequence[Record], width: int) -> str:
    """The records in at most `width` columns of plain text.

    Columns are dropped from the least important until the rest fits; a name that is still too long is folded
    onto more lines, never cut.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    chosen: list[_Column] = []
    used = 0
    for column in _columns(records):
        needed = max([len(column.title), *(len(column.text(r)) for r in records)]) + 3  # rich's gap
        if len(chosen) < 2 or used + needed <= width:
            chosen.append(column)
            used += needed
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in chosen:
        justify: Any = "right" if column.numeric else "left"
        table.add_column(column.title, justify=justify, no_wrap=column.title != "name", overflow="fold")
    for record in records:
        table.add_row(*(Text(column.text(record)) for column in chosen))
    out = StringIO()
    Console(file=out, width=width, color_system=None, force_terminal=False).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
    | {"<": "$<$", ">": "$>$"}
)


def latex_table(records: Sequence[Record]) -> str:
    """The records as a `tabular` for the booktabs package, all columns, a rule between head and body."""
    columns = _columns(records)
    lines = [
        "\\begin{tabular}{" + "".join("r" if c.numeric else "l" for c in columns) + "}",
        "\\toprule",
        " & ".join(c.title.translate(_LATEX) for c in columns) + " \\\\",
        "\\midrule",
        *(" & ".join(c.text(r).translate(_LATEX) for c in columns) + " \\\\" for r in records),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"
