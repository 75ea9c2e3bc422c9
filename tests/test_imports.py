"""What must not be imported: torch and Ray where nobody needs them, heavy modules before help is shown."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIGHT = (
    "errors",
    "config",
    "predictions",
    "metrics",
    "combiners",
    "evaluation",
    "figures",
    "store",
    "comparison",
    "app",
)


def _loaded_after(code: str) -> set[str]:
    program = f"{code}\nimport sys\nprint('\\n'.join(sorted(m.split('.')[0] for m in sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def loaded_by_light_modules() -> set[str]:
    names = ", ".join(f"ensembler.{name}" for name in LIGHT)
    return _loaded_after(f"import {names}")


@pytest.mark.parametrize("heavy", ["torch", "ray", "timm", "optuna", "torchvision"])
def test_reading_comparing_and_drawing_load_neither_torch_nor_ray(
    heavy: str, loaded_by_light_modules: set[str]
) -> None:
    assert "numpy" in loaded_by_light_modules
    assert heavy not in loaded_by_light_modules


def test_the_command_line_parses_without_any_heavy_import() -> None:
    loaded = _loaded_after("from ensembler.arguments import parser; parser().format_help()")
    assert "ensembler" in loaded
    assert not loaded & {"torch", "ray", "pandas", "numpy", "timm", "sklearn", "yaml", "pydantic"}


def test_training_does_not_know_ray() -> None:
    loaded = _loaded_after("import ensembler.training.loop, ensembler.training.strategies.lp_ft")
    assert "torch" in loaded
    assert "ray" not in loaded


def test_a_bundle_predicts_without_ray_or_the_store() -> None:
    program = (
        "import ensembler.bundle.runtime, sys; print([m for m in sys.modules if m.startswith('ensembler.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    for absent in ("ensembler.store", "ensembler.tuning", "ensembler.experiment", "ensembler.config"):
        assert absent not in done.stdout
    assert "ray" not in _loaded_after("import ensembler.bundle.runtime")
