"""The report of a run: Markdown with pictures to read anywhere, one HTML file with the figures, the tables as files.

`write_report` puts sections in order; a section is a title, what it says, and what it shows. A new one is a function in
one of the files beside this one, and its line in `_sections`.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from .. import figures, pictures
from ..atomic import write_file
from ..comparison import load_fits, read_groups, read_leaderboard
from ..evaluation.leaderboard import Leaderboard
from ..metrics import Metric, get_metric
from ..predictions import Predictions
from ..store import RunStore
from . import evidence, making, scores
from .markup import cell, markdown_to_html

__all__ = ["write_report"]

STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;display:block;overflow-x:auto;font-size:14px}"
    "td,th{border-bottom:1px solid #8886;padding:.3rem .6rem;text-align:left;vertical-align:top}"
)


@dataclass(frozen=True)
class Figure:
    """What a section shows, for both kinds of reader.

    Attributes:
        name: of the picture's file, without its ending.
        text: what it shows, in a line.
        plotly: makes the figure of the HTML.
        picture: makes the PNG of the Markdown; None where it could not be read.
    """

    name: str
    text: str
    plotly: Callable[[], Any]
    picture: Callable[[], bytes] | None


@dataclass(frozen=True)
class Section:
    """A chapter of the report.

    Attributes:
        title: "" for the first, which has the report's own.
        body: Markdown.
        figures: below it.
    """

    title: str
    body: str
    figures: tuple[Figure, ...] = ()


def write_report(store: RunStore, folder: Path) -> Path:
    """Writes `report.md` with its pictures, `report.html`, and `leaderboard.csv`, `.json` and `.tex`.

    Returns:
        The Markdown's path.

    Raises:
        StoreError: the run has no leaderboard, or the folder cannot be written.
    """
    board = read_leaderboard(store)
    sections = _sections(store, board, store.predictions())
    for figure in (f for section in sections for f in section.figures):
        if figure.picture is not None:
            _write(folder / f"{figure.name}.png", figure.picture())
    _write(folder / "report.md", _markdown(sections))
    _write(folder / "report.html", _html(str(store.manifest().get("name", store.name)), sections))
    for ending, text in (
        ("csv", board.to_csv()),
        ("json", board.to_json() + "\n"),
        ("tex", board.to_latex()),
    ):
        _write(folder / f"leaderboard.{ending}", text)
    return folder / "report.md"


def _sections(store: RunStore, board: Leaderboard, predictions: Predictions) -> list[Section]:
    manifest = store.manifest()
    verdict = board.verdict
    fits = load_fits(store, predictions)
    everyone = Predictions.concat([predictions, *(fit.predictions for fit in fits)])
    best = verdict.best_ensemble or verdict.winner
    sections = [
        Section("", f"# {cell(manifest.get('name', store.name))}\n\n**{cell(verdict.sentence)}**"),
        Section("Leaderboard", scores.leaderboard_section(board), (_leaderboard_figure(board),)),
        Section(
            "Calibration and confusion",
            f"Out of fold: whether the confidences of {cell(verdict.best_single)} and {cell(best)} are accuracies, "
            f"which classes {cell(best)} takes for which, and how well both put the images of a class before others.",
            (
                _reliability_figure(everyone, verdict.best_single, best),
                _confusion_figure(everyone, best),
                *_ranking_figures(everyone, verdict.best_single, best),
            ),
        ),
    ]
    metric, groups = get_metric(manifest["metric"]), read_groups(store)
    sections += [
        Section("How sure it is", evidence.certainty_section(everyone, fits, metric, verdict, groups)),
        Section("What the members add", evidence.members_section(predictions, fits, metric, groups)),
        Section("Suspect labels", evidence.labels_section(predictions, fits, metric, groups)),
    ]
    if manifest.get("candidates"):
        sections.append(
            Section("Frozen, fine-tuned, from scratch", scores.transfer_section(board, predictions))
        )
        history = store.histories()
        if len(history):
            sections.append(Section("Learning curves", "", (_learning_curves_figure(history),)))
        sections.append(
            Section("What the ensembles are made of", making.ensembles_section(store, predictions))
        )
        sections.append(Section("Candidates", making.candidates_section(manifest)))
    if store.trials():
        sections.append(Section("Search", making.search_section(store), _search_figures(store, metric)))
    if manifest.get("failed"):
        sections.append(Section("Failed or left out", making.failures_section(manifest["failed"])))
    sections.append(Section("How it was made", making.provenance_section(store, predictions)))
    return sections


# ---------------------------------------------------------------------- what is shown


def _leaderboard_figure(board: Leaderboard) -> Figure:
    frame = figures.leaderboard_frame(board)
    return Figure(
        "leaderboard",
        "Scores with their 95 % intervals, best on top.",
        lambda: figures.leaderboard_figure(frame),
        lambda: pictures.leaderboard_picture(frame),
    )


def _reliability_figure(everyone: Predictions, single: str, best: str) -> Figure:
    frame = figures.reliability_frame(everyone, list(dict.fromkeys([best, single])))
    return Figure(
        "reliability",
        "Confidence against accuracy; below the diagonal is overconfidence.",
        lambda: figures.reliability_figure(frame),
        lambda: pictures.reliability_picture(frame),
    )


def _confusion_figure(everyone: Predictions, best: str) -> Figure:
    frame = figures.confusion_frame(everyone, best)
    readable = everyone.n_classes <= pictures.MAX_CLASSES
    return Figure(
        "confusion",
        f"Confusion matrix of {cell(best)}, shaded by the share of each true class.",
        lambda: figures.confusion_figure(frame),
        (lambda: pictures.confusion_picture(frame)) if readable else None,
    )


def _ranking_figures(everyone: Predictions, single: str, best: str) -> tuple[Figure, Figure]:
    names = list(dict.fromkeys([best, single]))
    roc, found = figures.roc_frame(everyone, names), figures.precision_recall_frame(everyone, names)
    average = ", averaged over the classes" if everyone.n_classes > 2 else ""
    return (
        Figure(
            "roc",
            f"ROC{average}: the area is 1 for a perfect order and 0.5 for chance.",
            lambda: figures.roc_figure(roc),
            lambda: pictures.roc_picture(roc),
        ),
        Figure(
            "precision_recall",
            f"Precision against recall{average}; the area is the average precision.",
            lambda: figures.precision_recall_figure(found),
            lambda: pictures.precision_recall_picture(found),
        ),
    )


def _learning_curves_figure(history: pd.DataFrame) -> Figure:
    return Figure(
        "learning_curves",
        "Loss by epoch, a panel for each candidate. Solid: the monitor rows of each fold; dashed: training, with "
        "augmentation and label smoothing; dots: the epoch whose weights were kept.",
        lambda: figures.learning_curves_figure(figures.learning_curves_frame(history)),
        lambda: pictures.learning_curves_picture(history),
    )


def _search_figures(store: RunStore, metric: Metric) -> tuple[Figure, ...]:
    """What the trials tell together; nothing where fewer than two have a score."""
    trials = figures.trials_frame(store.trials())
    if len(figures.scored_trials(trials)) < 2:
        return ()
    shown = []
    if figures.searched_parameters(figures.scored_trials(trials)):
        shown.append(
            Figure(
                "search_parallel",
                "A line a trial through the values that it chose, down to its score; dotted where stopped early.",
                lambda: figures.parallel_figure(figures.parallel_frame(trials, metric), metric.name),
                None,
            )
        )
    importance, shares = figures.importance_frame(trials)
    if shares.enough:
        shown.append(
            Figure(
                "search_importance",
                f"What the differences between {shares.n_trials} trials come from, with what 90 % of their resamples "
                "say; a bar that reaches zero may be chance.",
                lambda: figures.importance_figure(importance),
                None,
            )
        )
    cost = figures.search_cost_frame(trials, metric)
    shown.append(
        Figure(
            "search_cost",
            "Score of each trial against its training time, open where it was stopped early; the line joins those that "
            "no cheaper one equals.",
            lambda: figures.search_cost_figure(cost, metric.name),
            None,
        )
    )
    return tuple(shown)


# ---------------------------------------------------------------------- the two files


def _markdown(sections: list[Section]) -> str:
    parts = []
    for section in sections:
        shown = [f"![{f.text}]({f.name}.png)\n\n{f.text}" for f in section.figures if f.picture is not None]
        title = [f"## {section.title}"] if section.title else []
        parts += [text for text in (*title, section.body, *shown) if text]
    return "\n\n".join(parts) + "\n"


def _html(name: str, sections: list[Section]) -> str:
    """All sections in one file that needs no network: tables, and figures that can be zoomed and asked."""
    title = html.escape(name)
    out = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style><body>'
    ]
    has_script = False
    for section in sections:
        head = f"## {section.title}\n\n" if section.title else ""
        out.append(markdown_to_html(head + section.body))
        for figure in section.figures:
            drawing = figure.plotly()
            out.append(drawing.to_html(full_html=False, include_plotlyjs=False if has_script else "inline"))
            out.append(markdown_to_html(figure.text))
            has_script = True
    return "".join([*out, "</body></html>"])


def _write(file: Path, content: str | bytes) -> None:
    data = content.encode() if isinstance(content, str) else content
    write_file(file, lambda stream: stream.write(data))
