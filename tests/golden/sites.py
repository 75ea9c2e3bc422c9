"""Every place of `ensembler/` that raises an error of the tree, read from the sources."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: The tree, whose other classes are found, and what the server answers with.
ROOTS = {"EnsemblerError", "Refusal"}

#: Functions that raise what they are given: the places that count are those that call them.
PASSING_ON = {"fail"}


@dataclasses.dataclass(frozen=True)
class Site:
    """One `raise`.

    Attributes:
        function: with its classes and the functions around it.
        said: what a message from here matches.
    """

    module: str
    function: str
    first: int
    last: int
    said: re.Pattern[str]

    @property
    def where(self) -> str:
        return f"{self.module}:{self.first} in {self.function}"


@lru_cache
def sites(package: Path = ROOT / "ensembler") -> tuple[Site, ...]:
    """Every `raise` of an error of the tree, by itself or through a function that makes it."""
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in sorted(package.rglob("*.py"))}
    errors = _classes(trees.values())
    makers = {name for tree in trees.values() for name in _makers(tree, errors)}
    found = []
    for file, tree in trees.items():
        for function, node, made in _made(tree, ()):
            said = _said(made, errors, makers)
            if said is not None and function.split(".")[-1] not in PASSING_ON:
                module = file.relative_to(package.parent).as_posix()
                last = node.end_lineno or node.lineno
                found.append(Site(module, function, node.lineno, last, re.compile(said, re.DOTALL)))
    return tuple(found)


def _classes(trees: Iterator[ast.Module] | Sequence[ast.Module]) -> set[str]:
    """The names of the tree's classes and of all that derive from them."""
    parents = {
        node.name: {_last(base) for base in node.bases}
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    names = set(ROOTS)
    while more := {name for name, bases in parents.items() if bases & names} - names:
        names |= more
    return names


def _makers(tree: ast.Module, errors: set[str]) -> Iterator[str]:
    """The functions that return an error for others to raise."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for inner in ast.walk(node):
                value = inner.value if isinstance(inner, ast.Return) else None
                if isinstance(value, ast.Call) and _last(value.func) in errors:
                    yield node.name


def _made(
    node: ast.AST, around: tuple[str, ...]
) -> Iterator[tuple[str, ast.Raise | ast.Call, ast.expr | None]]:
    """What is raised below `node`, with the names of the functions around it."""
    if isinstance(node, ast.Raise):
        yield ".".join(around) or "import", node, node.exc
    elif isinstance(node, ast.Call) and _last(node.func) in PASSING_ON:
        yield ".".join(around), node, node
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        around = (*around, node.name)
    for child in ast.iter_child_nodes(node):
        yield from _made(child, around)


def _said(exc: ast.expr | None, errors: set[str], makers: set[str]) -> str | None:
    """A pattern of the message that is raised here; None if it is no error of the tree."""
    if not isinstance(exc, ast.Call):
        return None
    if isinstance(exc.func, ast.Call):  # type(error)(...)
        return _pattern(exc.args[0]) if _last(exc.func.func) == "type" else None
    name = _last(exc.func)
    if name in errors:
        return _pattern(exc.args[-1])
    if name in makers | PASSING_ON:
        words = [_pattern(arg) for arg in exc.args]
        return "".join(f"(?=.*{word})" for word in words if re.search(r"\w{4}", word))
    return None


def _pattern(node: ast.expr) -> str:
    """Constant parts as they are, anything for the others; newlines are printed as spaces."""
    if isinstance(node, ast.Constant):
        return re.escape(" ".join(str(node.value).splitlines()))
    if isinstance(node, ast.JoinedStr):
        return "".join(_pattern(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _pattern(node.left) + _pattern(node.right)
    return ".*"


def _last(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def unmatched(places: Sequence[Site], texts: Mapping[tuple[str, str], Sequence[str]]) -> list[Site]:
    """The places that have no message of their own among those of their function: (module, function) -> messages.

    Two places of one function need two messages: each place takes one, as in a matching of a bipartite graph.
    """
    taken: dict[tuple[str, str, str], Site] = {}

    def place(site: Site, tried: set[str]) -> bool:
        key = (site.module, site.function)
        for text in texts.get(key, ()):
            if text in tried or not site.said.match(text):
                continue
            tried.add(text)
            holder = taken.get((*key, text))
            if holder is None or place(holder, tried):
                taken[(*key, text)] = site
                return True
        return False

    return [site for site in places if not place(site, set())]
