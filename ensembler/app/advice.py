"""What to make of a leaderboard: what to use, what to know before trusting it, what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from ..errors import StoreError
from ..evaluation.leaderboard import Leaderboard
from ..evaluation.verdict import Verdict
from ..metrics import get_metric
from ..training.candidate import Candidate
from .reading import View
from .wording import count, metric_name, number

#: A gain whose interval reaches this many times as far as the gain itself is hardly measured.
WIDE = 2.0


@dataclass(frozen=True)
class Step:
    """Something to do next.

    Attributes:
        module: of the page where it is done.
        label: what to do.
        why: one line.
        query: what is chosen on that page.
    """

    module: str
    label: str
    why: str
    query: Mapping[str, str | list[str]] = field(default_factory=dict)


def advice(verdict: Verdict) -> str:
    """What to do, in a few words.

    >>> from ensembler.evaluation.verdict import Price
    >>> advice(Verdict("mean", "a", "mean", True, 0.1, 0.05, 0.15, 0.01, Price(2.0, 5.0), ""))
    'Use the ensemble mean: it is better than the best single model.'
    """
    if verdict.best_ensemble is None:
        return f"Use {verdict.winner}, the best single model; no ensemble was made."
    if verdict.better:
        return f"Use the ensemble {verdict.winner}: it is better than the best single model."
    return f"Use the single model {verdict.winner}: no ensemble is shown to be better."


def concerns(board: Leaderboard, manifest: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """What a reader has to know before trusting the rows: (what it is, its details)."""
    frame = board.frame
    notes = frame.loc[frame["note"].notna() & (frame["note"] != ""), ["name", "note"]]
    skipped = manifest.get("unreadable", [])
    found = [
        (count(len(board.verdict.failed), "candidate") + " failed or left out", list(board.verdict.failed)),
        (count(len(notes), "row") + " with a note", [f"{n}: {note}" for n, note in notes.to_numpy(str)]),
        (
            count(len(skipped), "image") + " skipped, not readable",
            [": ".join(map(str, image)) for image in skipped],
        ),
    ]
    return [(title, details) for title, details in found if details]


def on_test(board: Leaderboard, n_images: int | None) -> tuple[str, bool]:
    """What the test images say of the two contenders, and whether they say the same as the verdict.

    ("", True) where there is no test score.

    Args:
        board: the leaderboard.
        n_images: of the test split; None where nobody knows.
    """
    verdict = board.verdict
    scores = board.frame.set_index("name")["test"]
    names = [n for n in (verdict.best_single, verdict.best_ensemble) if n is not None and pd.notna(scores[n])]
    if not names:
        return "", True
    metric = str(board.frame["metric"].iloc[0])
    images = f"{n_images:,} test images" if n_images else "the test images"
    said = f"On {images}, which no step had seen: "
    said += ", ".join(f"{name} {number(float(scores[name]))}" for name in names) + f" {metric_name(metric)}."
    if len(names) < 2:
        return said, True
    ahead = get_metric(metric).improvement(float(scores[names[1]]), float(scores[names[0]])) > 0
    if ahead == verdict.better:
        return said, True
    who = "the ensemble" if ahead else "the single model"
    return (
        f"{said} There {who} is ahead: few test images say less than cross-validation, but look twice.",
        False,
    )


def next_steps(run: View) -> list[Step]:
    """What to do with this run, the most useful first."""
    verdict = run.board.verdict
    single, ensemble = verdict.best_single, verdict.best_ensemble
    steps = []
    if run.trained:
        steps.append(
            Step("export", f"Export {verdict.winner}", "A folder that predicts without the training code.")
        )
    if ensemble is not None:
        steps.append(
            Step(
                "errors",
                "Images that the ensemble fixes or breaks",
                "A gain in numbers may hide mistakes that matter to you.",
            )
        )
        steps.append(
            Step(
                "compare",
                "Compare the two side by side",
                f"{ensemble} and {single} by class and by fold, and how much to believe their confidences.",
                {"row": [single, ensemble]},
            )
        )
    if run.trained:
        steps.append(
            Step("errors", "Labels that look wrong", "Images on which the models agree against their label.")
        )
        steps += _more(run)
    return steps


def _more(run: View) -> list[Step]:
    """What another sweep could bring."""
    verdict, steps = run.board.verdict, []
    if _still_learning(run):
        steps.append(
            Step(
                "launch",
                "Train for more epochs",
                f"{verdict.best_single} was still getting better when its training ended.",
            )
        )
    if verdict.best_ensemble is None:
        steps.append(Step("launch", "Let ensembles be made", "None was asked for."))
    elif _hardly_measured(verdict):
        steps.append(
            Step(
                "launch",
                "Sweep with more images or backbones",
                "The interval of the gain is wide: these images cannot tell the two apart.",
            )
        )
    if not run.manifest.get("test_images"):
        steps.append(
            Step(
                "launch",
                "Keep images aside for a test",
                "Nothing has checked the choice itself yet.",
            )
        )
    return steps


def _hardly_measured(verdict: Verdict) -> bool:
    if verdict.better or verdict.low is None or verdict.high is None or verdict.delta is None:
        return False
    return verdict.low < 0 < verdict.high and verdict.high - verdict.low > WIDE * abs(verdict.delta)


def _still_learning(run: View) -> bool:
    """Whether the best single model was at its best in the last epoch on most folds."""
    name = run.board.verdict.best_single
    made = run.manifest.get("details", {}).get(name, {}).get("backbone")
    same = (Candidate.from_dict(c) for c in run.manifest["candidates"] if c["backbone"] == made)
    candidate = next((c for c in same if c.name == name), None)
    if candidate is None or not candidate.fine_tuned or candidate.recipe.epochs < 2:
        return False
    try:
        best = [run.store.cell(candidate.id, f).best_epoch for f in range(int(run.manifest["k"]))]
    except StoreError:
        return False
    return 2 * sum(epoch >= candidate.recipe.epochs for epoch in best) > len(best)


def accuracy(row: Mapping[str, Any]) -> str:
    """How many images a row gets right; empty where nobody knows."""
    value = row.get("accuracy")
    return "" if value is None else f"{100 * value:.1f} % of images right"
