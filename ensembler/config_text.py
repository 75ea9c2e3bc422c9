"""The text of a config: plain YAML, bounded, with the line of everything in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from .errors import ConfigError

#: Location of a value, such as ("search", "trials"), to its line in the file.
Lines = Mapping[tuple[Any, ...], int]

#: A config is a page of text; anything larger is not one.
MAX_CONFIG_BYTES = 1 << 20
MAX_NODES = 20_000
MAX_DEPTH = 20


class _Loader(yaml.SafeLoader):
    """Plain values only; reads `1e-3` as a number, as YAML 1.2 does and everybody expects."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_yaml(text: str, path: Path) -> tuple[dict[str, Any], Lines]:
    """Values of a config's text, and the line of each.

    Raises:
        ConfigError: no YAML, no mapping, a key given twice, an alias, a tag, or nested without end.
    """
    try:
        _refuse_bombs(text, path)
        node = yaml.compose(text, Loader=_Loader)
        lines = dict(_lines(node, path)) if node is not None else {}
        values = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{where}: not valid YAML: {problem}") from error
    except (ValueError, OverflowError) as error:  # a date or a number that looks like one and is none
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if values is None:
        raise ConfigError(f"{path}: is empty; expected keys and values such as `name: x`")
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path}: holds a {type(values).__name__}; expected keys and values such as `name: x`"
        )
    return values, lines


def _refuse_bombs(text: str, path: Path) -> None:
    """Aliases stand for billions of nodes, deep nesting takes quadratic time, tags name types: no config needs any."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(f"{path}:{line}: alias *{event.anchor} is not allowed; write the value out")
        tag = getattr(event, "tag", None)
        if tag is not None:  # one that somebody wrote: of plain values YAML finds it by itself, later
            raise ConfigError(
                f"{path}:{line}: tag {tag[:60]!r} is not allowed; write the value plainly, or in quotes"
            )
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH or count > MAX_NODES:
            raise ConfigError(f"{path}:{line}: nested too deeply or too long; this is no config")


def _lines(node: yaml.Node, path: Path, loc: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], int]]:
    """(location, line) of every node; refuses a key given twice, which YAML would let win silently."""
    yield loc, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                raise ConfigError(f"{path}:{key.start_mark.line + 1} {name}: given twice; keep one")
            seen.add(name)
            for inner, line in _lines(value, path, (*loc, name)):
                yield inner, key.start_mark.line + 1 if inner == (*loc, name) else line
    elif isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            yield from _lines(item, path, (*loc, i))


def where_is(loc: tuple[Any, ...], lines: Lines, path: Path) -> str:
    """`file:line field` of a location, or of the nearest one above it that the text holds."""
    known = loc
    while known and known not in lines:
        known = known[:-1]
    field = ".".join(str(part) for part in loc)
    return f"{path}:{lines.get(known, 1)} {field}".rstrip()
