"""What pydantic found in a config, in our words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from .config_settings import (
    BackboneSettings,
    BoostedSettings,
    DataSettings,
    FoldSettings,
    NumericsSettings,
    ResourceSettings,
    ScreenSettings,
    SearchSettings,
)
from .config_text import Lines, where_is
from .errors import did_you_mean


def explain(error: ValidationError, lines: Lines, path: Path, model: type[BaseModel]) -> str:
    """One line: file, line, field, value, what is expected."""
    problems = error.errors(include_url=False)
    # A misspelt key leaves the right one missing: the misspelling is what the reader has to see.
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    if problem["loc"][-1:] in (("literal['auto']",), ("bool",)):
        # Of the alternatives, a word or a switch and a mapping, the one that was matched furthest says most.
        same = [p for p in problems if p["loc"][:1] == problem["loc"][:1]]
        problem = max(same, key=lambda p: len(_plain(p["loc"])))
    loc = _plain(problem["loc"])
    where = where_is(loc, lines, path)
    if problem["type"] == "extra_forbidden":
        valid = _fields_at(model, loc[:-1])
        return f"{where}: unknown key; {did_you_mean(str(loc[-1]), valid)}"
    if problem["type"] == "missing":
        return f"{where}: missing; this key is required"
    message = (
        problem["msg"].removeprefix("Value error, ").replace("dictionary or instance of ", "mapping of ")
    )
    value = problem.get("input")
    shown = (
        repr(value)[:100]
        if isinstance(value, str | int | float | bool | None)
        else f"a {type(value).__name__}"
    )
    return f"{where}: {shown}: {message[0].lower()}{message[1:]}"


def _plain(loc: tuple[Any, ...]) -> tuple[Any, ...]:
    """A location without pydantic's names of the alternatives of a union."""
    return tuple(part for part in loc if part != "literal['auto']" and not _is_type_tag(part))


def _is_type_tag(part: Any) -> bool:
    return isinstance(part, str) and (part in ("str", "float", "int", "bool") or part.endswith("Settings"))


def _fields_at(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """Valid keys of the settings class that a location leads to."""
    by_field: dict[str, type[BaseModel]] = {
        "data": DataSettings,
        "folds": FoldSettings,
        "search": SearchSettings,
        "screen": ScreenSettings,
        "boosted": BoostedSettings,
        "resources": ResourceSettings,
        "numerics": NumericsSettings,
        "backbones": BackboneSettings,
    }
    found = by_field.get(str(loc[0]), model) if loc else model
    return [name for name in found.model_fields if name != "name" or found is model]
