"""The report of a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ensembler.report import write_report
from ensembler.store import RunStore


def test_the_report_shows_what_fine_tuning_gained_and_the_recipes(finished_run: Any, tmp_path: Path) -> None:
    store = RunStore(finished_run.run)
    text = write_report(store, tmp_path).read_text()
    tuned = [c for c in store.candidates() if not c.frozen_body]
    assert tuned
    gains = text.split("What fine-tuning gained", 1)[1].split("##", 1)[0]
    for candidate in tuned:
        assert f"| {candidate.name} |" in gains
    for title in ("accuracy", "macro precision", "macro recall", "macro f1", "log loss"):
        assert f"gain in {title}" in gains
    recipes = text.split("## Candidates", 1)[1]
    assert f"lr {tuned[0].recipe.lr:g}" in recipes
    assert "flip False" in recipes or "flip True" in recipes
    assert "optimizer" not in recipes  # at its default
    assert "(learning_curves.svg)" in text
    svg = (tmp_path / "learning_curves.svg").read_text()
    assert all(candidate.name in svg for candidate in tuned)
    html = (tmp_path / "report.html").read_text()
    assert "learning_curves.svg" not in html  # one file that stands alone
    assert "best epochs" in html
