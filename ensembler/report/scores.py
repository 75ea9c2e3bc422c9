"""What the report says of scores: the leaderboard, and what fine-tuning gained."""

from __future__ import annotations

from collections.abc import Mapping

from ..evaluation.leaderboard import Leaderboard
from ..evaluation.pareto import pareto_front
from ..evaluation.transfer import TRANSFER_METRICS, transfer_frame
from ..metrics import METRICS, get_metric
from ..predictions import Predictions
from ..training.candidate import FROZEN_BODY
from .markup import number, p_value, signed, table


def leaderboard_section(board: Leaderboard) -> str:
    """Every row with its interval, its gain and its price."""
    rows = []
    for r in board.to_records():
        gain = "best single"
        if r["p_value"] is not None:
            gain = signed(r["delta_best_single"], r["delta_low"], r["delta_high"])
        rows.append(
            [
                r["name"],
                r["kind"],
                f"{r['cv']:.4f} [{r['cv_low']:.4f}, {r['cv_high']:.4f}]",
                gain,
                p_value(r["p_value"]),
                "yes" if r["tied_with_best"] else "",
                number(r["test"], 4),
                number(r["accuracy"], 4),
                number(r["ece"], 3),
                number(r["optimism"], 4),
                number(r["latency_ms"], 1),
                "" if r["params"] is None else f"{r['params'] / 1e6:.2f}",
                "" if r["weights_bytes"] is None else f"{r['weights_bytes'] / 1e6:.1f}",
                number(r["latency_32_ms"], 2),
                number(r["train_s"], 0),
            ]
        )
    metric = get_metric(board.to_records()[0]["metric"]).title
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
    head += ["ECE", "optimism", "ms", "M params", "MB", "ms at 32", "train s"]
    return f"{table(head, rows)}\n\n{_worth(board)}" + (
        "Scores are over all out-of-fold rows, cross-fitted for ensembles, with 95 % bootstrap intervals; a "
        "positive gain is an improvement. Milliseconds and parameters are those of the deployed row: the average of a "
        "candidate's fold models, one image at batch 1, and one of a batch of 32."
    )


def _worth(board: Leaderboard) -> str:
    """The rows that are not beaten by one that costs no more."""
    records = [r for r in board.to_records() if r["latency_ms"] is not None]
    if not records:
        return ""
    greater = get_metric(records[0]["metric"]).greater_is_better
    front = pareto_front([r["cv"] for r in records], [r["latency_ms"] for r in records], greater)
    shown = ", ".join(f"{records[i]['name']} ({records[i]['latency_ms']:.1f} ms)" for i in front)
    return f"Worth their price, since no row is better that is as fast: {shown}.\n\n"


def transfer_section(board: Leaderboard, predictions: Predictions) -> str:
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
        rows.append([r["backbone"], start, how, r["name"], *scores, number(r["train_s"], 0)])
    head = ["backbone", "starts from", "strategy", "candidate"]
    scored = table([*head, *(METRICS[name].title for name in TRANSFER_METRICS), "train s"], rows)
    return f"{scored}\n\n{_gains(predictions, before)}" if before else scored


def _gains(predictions: Predictions, before: Mapping[str, str | None]) -> str:
    """What each fine-tuned candidate gained on the frozen backbone, by metric, with intervals."""
    frame = transfer_frame(predictions, before)
    rows = []
    for name, frozen in before.items():
        part = frame[frame["candidate"] == name]
        cells = [
            signed(gain, low, high) if frozen else "-"
            for gain, low, high in part[["gain", "gain_low", "gain_high"]].to_numpy()
        ]
        rows.append([name, frozen or "none: its backbone was not screened", *cells])
    head = ["after", "before (frozen)", *(f"gain in {METRICS[name].title}" for name in TRANSFER_METRICS)]
    return (
        "What fine-tuning gained, on the same out-of-fold rows, with 95 % intervals of the paired bootstrap; a "
        f"positive gain is an improvement.\n\n{table(head, rows)}"
    )
