"""The benchmarks run, on next to nothing; what they print on real work is in reports/benchmarks.md."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ensembler.combiners import COMBINERS

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
#: Whether it is kept is for a quiet machine to say.
BAR = r"bar 1\.0 s: (ok|short of the bar)\n"
TINY = ["--backbones", "test_resnet", "--repeats", "1", "--batches", "1", "--batch", "8", "--size", "32"]


def _run(tmp_path: Path, name: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py"), *options],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ENSEMBLER_CACHE": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_the_training_path_is_given_as_a_share_of_bare_training(tmp_path: Path) -> None:
    assert "test_resnet" in (text := _run(tmp_path, "training", *TINY))
    assert ", bar 0.90: " in text


@pytest.mark.slow
def test_the_gpu_benchmark_says_where_there_is_none_and_runs_on_a_cpu_when_told(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert _run(tmp_path, "gpu") == "no GPU here: nothing is measured\n"
    assert "| test_resnet |" in _run(tmp_path, "gpu", "--cpu", *TINY)


def test_reading_a_leaderboard_is_timed(tmp_path: Path) -> None:
    assert re.search(BAR, _run(tmp_path, "leaderboard", "--rows", "50", "--repeats", "1"))


def test_selection_and_the_stages_are_timed(tmp_path: Path) -> None:
    text = _run(tmp_path, "combine", "--quick", "--parts", "autogluon", "stages")
    assert "no --autogluon: nothing is measured beside it\n" in text
    assert all(f"\n  {key} " in text for key in COMBINERS)


def test_answers_of_the_lab_are_timed(tmp_path: Path) -> None:
    text = _run(
        tmp_path,
        "lab",
        "--members",
        "4",
        "--rows",
        "300",
        "--repeats",
        "1",
        "--metrics",
        "log_loss",
        "accuracy",
    )
    assert re.search(BAR, text)
    assert text.count("  convex ") == 2


def test_ratios_are_taken_within_a_round() -> None:
    sys.path.insert(0, str(FOLDER))
    try:
        from measure import interleave, ratio, verdict
    finally:
        sys.path.remove(str(FOLDER))
    calls: list[str] = []
    values = {"a": iter([99.0, 2.0, 6.0, 8.0]), "b": iter([1.0, 1.0, 2.0, 4.0])}

    def way(name: str) -> float:
        calls.append(name)
        return next(values[name])

    results = interleave({"a": lambda: way("a"), "b": lambda: way("b")}, 3)
    assert calls == ["a", "b"] * 4
    assert results == {"a": [2.0, 6.0, 8.0], "b": [1.0, 2.0, 4.0]}  # the first round warms up
    assert ratio(results, "a", "b") == (2.0, 2.0, 3.0)
    assert [verdict(1.0, 0.9, True), verdict(1.0, 0.9, False)] == ["ok", "short of the bar"]


@pytest.mark.slow
def test_the_graph_of_a_bundle_is_timed_beside_its_members(tmp_path: Path) -> None:
    text = _run(
        tmp_path, "runtime", "--backbones", "test_resnet", "--size", "32", "--repeats", "1", "--folds", "2"
    )
    assert "1 members, 2 networks" in text
    assert all(f"\nbatch {batch}: graph " in text for batch in (1, 32))
    assert "first answer of a fresh process " in text
