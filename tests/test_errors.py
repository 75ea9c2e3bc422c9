"""The error tree: what a user can mend is one line and shares one root."""

from __future__ import annotations

import inspect
import re

import pytest

from ensembler import errors
from ensembler.errors import EnsemblerError, did_you_mean

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, EnsemblerError)]


def test_the_tree_drawn_at_the_top_is_the_tree_of_the_classes() -> None:
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^ {4}([│├└─ ]*)(\w+Error)\b", line)
        if not found:
            continue
        depth = len(found[1]) // 4
        path = [*path[:depth], found[2]]
        drawn[found[2]] = path[-2] if depth else "Exception"
    assert drawn == {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES}


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_can_be_caught_by_the_root_and_says_what_it_is(cls: type[Exception]) -> None:
    assert issubclass(cls, EnsemblerError)
    assert (cls.__doc__ or "").strip()


@pytest.mark.parametrize(
    ("value", "valid", "expected"),
    [
        ("stackng", ["mean", "stacking"], "did you mean 'stacking'?"),
        ("zzz", ["mean", "stacking"], "valid: mean, stacking"),
        ("zzz", [f"model{i}" for i in range(31)], "there are 31 valid names"),
    ],
)
def test_the_way_out_of_a_misspelt_name(value: str, valid: list[str], expected: str) -> None:
    assert did_you_mean(value, valid) == expected


def test_several_near_names_are_offered_nearest_first() -> None:
    hint = did_you_mean("resnet18x", ["resnet18", "resnet18d", "vit"], n=3)
    assert hint == "did you mean 'resnet18' or 'resnet18d'?"
