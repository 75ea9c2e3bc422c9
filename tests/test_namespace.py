"""The public namespace, pinned."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ensembler


def test_the_public_names_are_these() -> None:
    assert sorted(ensembler.__all__) == [
        "Bundle",
        "Config",
        "EnsemblerError",
        "Experiment",
        "Leaderboard",
        "Predictions",
        "__version__",
    ]
    assert all(getattr(ensembler, name) is not None for name in ensembler.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Ensemble'"):
        _ = ensembler.Ensemble


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import ensembler, sys; print('numpy' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
