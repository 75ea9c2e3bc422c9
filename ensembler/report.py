"""The report of a run: Markdown to read anywhere, one HTML file with the figures, the tables as CSV and JSON."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from . import figures
from .atomic import write_file
from .comparison import load_fits, read_leaderboard
from .evaluation.leaderboard import Leaderboard
from .evaluation.transfer import TRANSFER_METRICS, transfer_frame
from .metrics import METRICS
from .pictures import learning_curves_svg
from .predictions import Predictions
from .store import RunStore
from .training.candidate import FROZEN_BODY, Candidate

#: The picture of the learning curves, and what the Markdown says of it.
CURVES = "learning_curves.svg"
CURVES_TEXT = (
    f"![Loss by epoch, a panel for each candidate]({CURVES})\n\n"
    "Solid: the monitor rows of each fold; dashed: training, with augmentation and label smoothing; dots: the epoch "
    "whose weights were kept."
)

#: What the strategies without a recipe learn.
FROZEN_HEADS = {"probe": "logistic head on frozen features", "ridge": "ridge head on frozen features"}


def write_report(store: RunStore, folder: Path) -> Path:
    """Writes `report.md`, `report.html`, `leaderboard.csv`, `leaderboard.json`, and `learning_curves.svg` where there
    was fine-tuning; returns the Markdown's path.

    Raises:
        StoreError: the run has no leaderboard, or the folder cannot be written.
    """
    board = read_leaderboard(store)
    predictions = store.predictions()
    has_candidates = bool(store.manifest().get("candidates"))
    history = store.histories() if has_candidates else pd.DataFrame()
    sections = _sections(store, board, predictions, history)
    markdown = "\n\n".join(f"## {title}\n\n{body}" if title else body for title, body in sections) + "\n"
    _write(folder / "report.md", markdown)
    _write(folder / "report.html", _html(store, board, predictions, markdown, history))
    if len(history):
        write_file(folder / CURVES, lambda stream: stream.write(learning_curves_svg(history)))
    _write(folder / "leaderboard.csv", board.to_csv())
    _write(folder / "leaderboard.json", board.to_json() + "\n")
    return folder / "report.md"


def _write(file: Path, text: str) -> None:
    write_file(file, lambda stream: stream.write(text.encode()))


def _sections(
    store: RunStore, board: Leaderboard, predictions: Predictions, history: pd.DataFrame
) -> list[tuple[str, str]]:
    manifest = store.manifest()
    sections = [
        ("", f"# {_cell(manifest.get('name', store.name))}\n\n**{_cell(board.verdict.sentence)}**"),
        ("Leaderboard", _leaderboard(board)),
    ]
    if manifest.get("candidates"):
        sections.append(("Frozen, fine-tuned, from scratch", _before_after(board, predictions)))
        if len(history):
            sections.append(("Learning curves", CURVES_TEXT))
        sections.append(("What the ensembles are made of", _recipes(store, predictions)))
        sections.append(("Candidates", _candidates(manifest)))
    if store.trials():
        sections.append(("Search", _search(store)))
    failed = manifest.get("failed", [])
    if failed:
        sections.append(("Failed or left out", _table(["candidate", "fold", "reason"], _failures(failed))))
    sections.append(("How it was made", _provenance(store, predictions)))
    return sections


def _leaderboard(board: Leaderboard) -> str:
    rows = []
    for r in board.to_records():
        gain = "best single"
        if r["p_value"] is not None:
            gain = f"{r['delta_best_single']:+.4f} [{r['delta_low']:+.4f}, {r['delta_high']:+.4f}]"
        rows.append(
            [
                r["name"],
                r["kind"],
                f"{r['cv']:.4f} [{r['cv_low']:.4f}, {r['cv_high']:.4f}]",
                gain,
                _p_value(r["p_value"]),
                "yes" if r["tied_with_best"] else "",
                _number(r["test"], 4),
                _number(r["accuracy"], 4),
                _number(r["ece"], 3),
                _number(r["optimism"], 4),
                _number(r["latency_ms"], 1),
                "" if r["params"] is None else f"{r['params'] / 1e6:.2f}",
                _number(r["train_s"], 0),
            ]
        )
    metric = str(board.to_records()[0]["metric"]).replace("_", " ")
    head = [
        "row",
        "kind",
        metric,
        "gain on the best single",
        "p (Holm)",
        "tied with best",
        "test",
        "accuracy",
    ]
    head += ["ECE", "optimism", "ms", "M params", "train s"]
    return _table(head, rows) + (
        "\n\nScores are over all out-of-fold rows, cross-fitted for ensembles, with 95 % bootstrap intervals; a "
        "positive gain is an improvement. Milliseconds and parameters are those of the deployed row: the average of a "
        "candidate's fold models, one image at batch 1."
    )


def _before_after(board: Leaderboard, predictions: Predictions) -> str:
    """One block a backbone: frozen, fine-tuned, from random weights; every candidate by itself, out of fold."""
    singles = [r for r in board.to_records() if r["kind"] == "single"]
    order = {**dict.fromkeys(FROZEN_BODY, 0), "full": 1}
    singles.sort(
        key=lambda r: (r["backbone"], r["weights"] == "random", order.get(r["strategy"], 2), r["cv"])
    )
    frozen = {(r["backbone"], r["weights"]): r["name"] for r in singles if r["strategy"] == "probe"}
    tuned = [r for r in singles if r["strategy"] not in FROZEN_BODY]
    # What was trained from random weights is held against the frozen pretrained backbone: the same architecture.
    any_frozen = {r["backbone"]: r["name"] for r in singles if r["strategy"] == "probe"}
    before = {
        r["name"]: frozen.get((r["backbone"], r["weights"])) or any_frozen.get(r["backbone"]) for r in tuned
    }
    rows = []
    for r in singles:
        proba = predictions.proba[predictions.index(r["name"])]
        scores = [f"{METRICS[name](predictions.labels, proba):.4f}" for name in TRANSFER_METRICS]
        start = "random" if r["weights"] == "random" else r["weights"].split("#")[0]
        how = f"frozen ({r['strategy']})" if r["strategy"] in FROZEN_BODY else r["strategy"]
        rows.append([r["backbone"], start, how, r["name"], *scores, _number(r["train_s"], 0)])
    head = ["backbone", "starts from", "strategy", "candidate"]
    table = _table([*head, *(_words(name) for name in TRANSFER_METRICS), "train s"], rows)
    return f"{table}\n\n{_gains(predictions, before)}" if before else table


def _gains(predictions: Predictions, before: Mapping[str, str | None]) -> str:
    """What each fine-tuned candidate gained on the frozen backbone, by metric, with intervals."""
    frame = transfer_frame(predictions, before)
    rows = []
    for name, frozen in before.items():
        part = frame[frame["candidate"] == name]
        cells = [
            f"{gain:+.4f} [{low:+.4f}, {high:+.4f}]" if frozen else "-"
            for gain, low, high in part[["gain", "gain_low", "gain_high"]].to_numpy()
        ]
        rows.append([name, frozen or "none: its backbone was not screened", *cells])
    head = ["after", "before (frozen)", *(f"gain in {_words(name)}" for name in TRANSFER_METRICS)]
    return (
        "What fine-tuning gained, on the same out-of-fold rows, with 95 % intervals of the paired bootstrap; a "
        f"positive gain is an improvement.\n\n{_table(head, rows)}"
    )


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def _recipes(store: RunStore, predictions: Predictions) -> str:
    rows = []
    for fit in load_fits(store, predictions):
        weights = fit.combiner.weights_
        if weights is None:
            made = f"all {len(fit.combiner.members_)} members"
        else:
            pairs = sorted(zip(weights, fit.combiner.members_, strict=True), reverse=True)
            made = ", ".join(f"{name} {weight:.2f}" for weight, name in pairs if weight > 0)
        rows.append([fit.name, f"{fit.score:.4f}", f"{fit.in_sample:.4f}", f"{fit.optimism:+.4f}", made])
    return _table(["ensemble", "cross-fitted", "in sample", "optimism", "members and weights"], rows)


def _candidates(manifest: Mapping[str, Any]) -> str:
    rows = []
    for values in manifest["candidates"]:
        candidate = Candidate.from_dict(values)
        recipe = {} if candidate.frozen_body else candidate.recipe.identity()
        shown = ", ".join(
            f"{key} {value}" if isinstance(value, bool | str) else f"{key} {value:g}"
            for key, value in recipe.items()
        )
        note = manifest["details"][candidate.name]["note"]
        rows.append([candidate.name, candidate.weights, shown or FROZEN_HEADS[candidate.strategy], note])
    return _table(["candidate", "weights", "recipe", "note"], rows)


def _search(store: RunStore) -> str:
    rows = [
        [
            t["number"],
            t["name"],
            t["status"],
            t["epochs"],
            _number(t["score"], 4),
            _number(t["seconds"], 0),
            t["reason"],
        ]
        for t in store.trials()
    ]
    return _table(["trial", "candidate", "status", "epochs", "monitor score", "seconds", "reason"], rows)


def _failures(failed: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    return [[f["name"], "" if f.get("fold") is None else f["fold"], f["reason"]] for f in failed]


def _provenance(store: RunStore, predictions: Predictions) -> str:
    manifest = store.manifest()
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in manifest.get("stages", {}).items())
    machine = manifest.get("machine", {})
    rows = [
        [
            "command",
            f"`ensembler run {manifest['config_file']}`"
            if "config_file" in manifest
            else "`ensembler combine`",
        ],
        ["commit", manifest.get("commit") or "not in a repository"],
        ["images", f"{predictions.n_samples} out of fold, {manifest.get('test_images', 0)} test"],
        ["classes", ", ".join(predictions.classes)],
        ["folds", len(predictions.folds)],
        ["skipped images", len(manifest.get("unreadable", []))],
        ["stages of the last command", stages],
        ["machine", f"{machine.get('cpus', '?')} CPUs, {machine.get('system', 'unknown')}"],
        ["versions", ", ".join(f"{k} {v}" for k, v in machine.get("versions", {}).items())],
        ["arithmetic", json.dumps(manifest.get("numerics", {}))],
        ["fingerprint", json.dumps(manifest.get("identity", {}))],
    ]
    return _table(["", ""], [row for row in rows if row[1] != ""])


def _html(
    store: RunStore, board: Leaderboard, predictions: Predictions, markdown: str, history: pd.DataFrame
) -> str:
    """The Markdown's tables and the app's figures in one file that needs no network."""
    winner = board.verdict.best_ensemble or board.verdict.winner
    fits = {fit.name: fit.predictions for fit in load_fits(store, predictions)}
    everyone = Predictions.concat([predictions, *fits.values()])
    shown = list(dict.fromkeys([winner, board.verdict.best_single]))
    drawn = [
        figures.leaderboard_figure(figures.leaderboard_frame(board)),
        figures.reliability_figure(figures.reliability_frame(everyone, shown)),
        figures.confusion_figure(figures.confusion_frame(everyone, winner)),
    ]
    markdown = markdown.replace(CURVES_TEXT, "Below, as a figure.")
    if len(history):
        drawn.append(figures.learning_curves_figure(figures.learning_curves_frame(history)))
    parts = [
        figure.to_html(full_html=False, include_plotlyjs="inline" if i == 0 else False)
        for i, figure in enumerate(drawn)
    ]
    title = html.escape(str(store.manifest().get("name", store.name)))
    style = (
        "body{font:16px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem}"
        "table{border-collapse:collapse;display:block;overflow-x:auto;font-size:14px}"
        "td,th{border-bottom:1px solid #ccc;padding:.3rem .6rem;text-align:left}"
    )
    head = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{style}</style>'
    )
    return head + "<body>" + _markdown_to_html(markdown) + "".join(parts) + "</body></html>"


def _markdown_to_html(markdown: str) -> str:
    from markdown_it import MarkdownIt

    return str(MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown))


def _table(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(map(_cell, head)) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    """Names are text, also those that look like markup."""
    return str(value).replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")


def _p_value(value: float | None) -> str:
    return "<0.001" if value is not None and value < 0.001 else _number(value, 3)


def _number(value: Any, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
