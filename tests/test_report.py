"""The report of a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ensembler.comparison import read_leaderboard
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
    for title in ("accuracy", "macro precision", "macro recall", "macro F1", "log loss"):
        assert f"gain in {title}" in gains
    sure = text.split("## How sure it is", 1)[1].split("##", 1)[0]
    for question in ("BBC-CV", "McNemar", "corrected resampled t-test", "Average rank over 2 folds"):
        assert question in sure
    added = text.split("## What the members add", 1)[1].split("##", 1)[0]
    assert all(f"| {candidate.name} |" in added for candidate in store.candidates())
    assert "One more such member" in added
    labels = text.split("## Suspect labels", 1)[1].split("##", 1)[0]
    assert "confident learning" in labels
    assert "Worth their price" in text
    recipes = text.split("## Candidates", 1)[1]
    assert f"lr {tuned[0].recipe.lr:g}" in recipes
    assert "flip False" in recipes or "flip True" in recipes
    assert "optimizer" not in recipes  # at its default
    for name in ("leaderboard", "reliability", "confusion", "roc", "precision_recall", "learning_curves"):
        assert f"({name}.png)" in text
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    html = (tmp_path / "report.html").read_text()
    assert "leaderboard.png" not in html  # one file that stands alone
    assert "best epochs" in html
    assert html.count("Plotly.newPlot") == 8
    assert "Hyperparameters of all trials" in html
    assert "Score and training time of each trial" in html
    board = (tmp_path / "leaderboard.tex").read_text()
    assert board.startswith("\\begin{tabular}")
    assert len(board.splitlines()) == 6 + len(read_leaderboard(store).frame)
