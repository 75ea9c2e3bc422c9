"""What a search found: what its trials have in common, what mattered, what a score costs, what stopping early saved."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..evaluation.importance import Importances, importances
from ..evaluation.pareto import pareto_front
from ..metrics import Metric, get_metric
from ..training.candidate import Candidate
from .style import PALETTE, REFERENCE, SYMBOLS, categories, named, text, title

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: What a trial chooses beside its recipe.
CHOSEN = ("backbone", "strategy", "start")

#: Colours and widths of lines by fifths of the trials, the best first: told apart on white and on black.
FIFTHS = (
    ("Best fifth", "#0072B2", 3.5),
    ("Second fifth", "#56B4E9", 2.0),
    ("Middle fifth", "#999999", 1.5),
    ("Fourth fifth", "#E69F00", 1.5),
    ("Worst fifth", "#D55E00", 1.5),
)

#: Values that lie further apart than this factor are drawn on a log scale.
LOG_FACTOR = 10

#: Pixels of a row of parallel coordinates.
ROW = 66

#: Characters of the names of categories that fit side by side on a phone.
ROOM = 84

SCORE = "score"


def trials_frame(trials: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row a trial of the search: how it ended, and every value that it chose.

    Columns: number, name, status ("finished", "stopped" or "failed"), score (of the monitor rows, the best it
    reported), trained (epochs), seconds, epoch_s (median of its epochs), reason; then backbone, strategy, start
    ("pretrained" or "random"), and the hyperparameters, of which `epochs` is how many were planned.

    Args:
        trials: of `RunStore.trials`.
    """
    rows = []
    for trial in trials:
        candidate = Candidate.from_dict(trial["candidate"])
        seconds = [float(epoch["seconds"]) for epoch in trial["history"]]
        rows.append(
            {
                "number": int(trial["number"]),
                "name": str(trial["name"]),
                "status": str(trial["status"]),
                "score": math.nan if trial["score"] is None else float(trial["score"]),
                "trained": len(trial["history"]),
                "seconds": float(trial["seconds"]),
                "epoch_s": float(np.median(seconds)) if seconds else math.nan,
                "reason": str(trial["reason"]),
                "backbone": candidate.backbone,
                "strategy": candidate.strategy,
                "start": "random" if candidate.weights == "random" else "pretrained",
                **dataclasses.asdict(candidate.recipe),
            }
        )
    return pd.DataFrame(rows)


def scored_trials(frame: pd.DataFrame) -> pd.DataFrame:
    """The trials with a score; one that failed has none that counts."""
    kept: pd.DataFrame = frame.loc[(frame["status"] != "failed") & np.isfinite(frame["score"])]
    return kept.reset_index(drop=True)


def searched_parameters(frame: pd.DataFrame) -> list[str]:
    """What differs between the trials of a `trials_frame`: the columns with two values or more, in their order."""
    if frame.empty:
        return []
    first = list(frame.columns).index(CHOSEN[0])
    return [str(c) for c in frame.columns[first:] if frame[c].nunique() > 1]


# ---------------------------------------------------------------------- parallel coordinates


def parallel_frame(
    frame: pd.DataFrame, metric: Metric, parameters: Sequence[str] | None = None, most: int = 300
) -> pd.DataFrame:
    """The values of each trial, and where they lie between the least and the greatest; the best trial comes last.

    Columns: number, name, status, score, fifth (0 is the best), parameter, value (as text), position (0 to 1; of
    the score 1 is the best), log (whether positions are spaced by the logarithm), category. The last parameter is
    the score.

    Args:
        frame: of `trials_frame`.
        metric: direction of the scores.
        parameters: columns of the frame; those that differ, unless told otherwise.
        most: trials that are drawn, the best of them.
    """
    chosen = scored_trials(frame)
    order = np.argsort(metric.sign * chosen["score"].to_numpy(), kind="stable")
    chosen = chosen.iloc[order[max(0, len(order) - most) :]]
    fifth = len(FIFTHS) * np.arange(len(chosen))[::-1] // max(len(chosen), 1)
    parts = []
    for parameter in [*(searched_parameters(frame) if parameters is None else parameters), SCORE]:
        values = chosen[parameter]
        position, log, category = _positions(values)
        if parameter == SCORE and not metric.greater_is_better:
            position = 1 - position
        shown = [shown_value(v) for v in values]
        base = chosen[["number", "name", "status", "score"]]
        parts.append(
            base.assign(
                fifth=fifth, parameter=parameter, value=shown, position=position, log=log, category=category
            )
        )
    return pd.concat(parts, ignore_index=True)


def parallel_figure(frame: pd.DataFrame, metric: str) -> go.Figure:
    """Every trial a line from one hyperparameter down to the next; at the bottom its score, the best on the right.

    The axes lie, so that a phone shows them in full. Blue lines are the best trials; dotted ones were stopped early.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    parameters = list(dict.fromkeys(frame["parameter"]))
    height = {parameter: float(i) for i, parameter in enumerate(parameters)}
    for fifth in reversed(range(len(FIFTHS))):  # the best on top
        label, colour, width = FIFTHS[fifth]
        for status, dash in (("finished", "solid"), ("stopped", "dot")):
            part = frame[(frame["fifth"] == fifth) & (frame["status"] == status)]
            if part.empty:
                continue
            x: list[float | None] = []
            y: list[float | None] = []
            hover: list[str] = []
            for _, line in part.groupby("number", sort=False):
                x += [*line["position"], None]
                y += [*(height[p] for p in line["parameter"]), None]
                score = shown_value(line["score"].iloc[0])
                name = text(line["name"].iloc[0])
                hover += [
                    f"{name}<br>{text(words(p))} {text(v)}<br>{text(metric_words(metric))} {score}"
                    for p, v in zip(line["parameter"], line["value"], strict=True)
                ]
                hover.append("")
            figure.add_scatter(
                name=label if status == "finished" else f"{label}, stopped early",
                x=x,
                y=y,
                text=hover,
                hovertemplate="%{text}<extra></extra>",
                mode="lines+markers",
                line={"color": colour, "width": width, "dash": dash},
                marker={"color": colour, "size": 6, "symbol": SYMBOLS[0] if status == "finished" else "x"},
                opacity=1.0 if fifth == 0 else 0.75,
                connectgaps=False,
                showlegend=fifth in (0, len(FIFTHS) - 1),
            )
    for parameter in parameters:
        _axis(figure, frame[frame["parameter"] == parameter], height[parameter], metric)
    figure.update_xaxes(visible=False, range=[-0.02, 1.02], fixedrange=True)
    figure.update_yaxes(visible=False, range=[len(parameters) - 0.5, -0.6], fixedrange=True)
    figure = named(figure, "Hyperparameters of all trials", "", "")
    return figure.update_layout(height=60 + ROW * len(parameters), hovermode="closest")


def _axis(figure: go.Figure, part: pd.DataFrame, height: float, metric: str) -> None:
    """The line of one hyperparameter with its name and what its ends mean."""
    figure.add_shape(
        type="line", x0=0, x1=1, y0=height, y1=height, line={"color": "#888888", "width": 1}, layer="below"
    )
    parameter = part["parameter"].iloc[0]
    is_score = parameter == SCORE
    name = metric_words(metric) if is_score else words(parameter)
    scale = ", log scale" if part["log"].iloc[0] else ""
    label = {"x": 0, "y": height, "xanchor": "left", "showarrow": False, "font": {"size": 13}}
    figure.add_annotation(**label, text=f"<b>{text(name)}</b>{scale}", yshift=15)
    places = part.drop_duplicates("position").sort_values("position")
    if not part["category"].iloc[0]:
        places = places.iloc[[0, -1]] if len(places) > 1 else places
    for place, value in zip(places["position"], places["value"], strict=True):
        shown = short(value, ROOM // max(len(places), 2))
        if is_score and len(places) > 1:
            shown = f"best {shown}" if place > 0.5 else f"{shown} worst"
        figure.add_annotation(
            x=place,
            y=height,
            text=text(shown),
            xanchor="left" if place < 0.02 else "right" if place > 0.98 else "center",
            yshift=-13,
            showarrow=False,
            font={"size": 11},
        )


def _positions(values: pd.Series[Any]) -> tuple[np.ndarray[Any, Any], bool, bool]:
    """Positions in [0, 1] of values, whether the scale is logarithmic, and whether they are categories."""
    if values.dtype == bool or not pd.api.types.is_numeric_dtype(values):
        known, codes = np.unique(values.astype(str).to_numpy(), return_inverse=True)
        return codes / max(len(known) - 1, 1), False, True
    x = values.to_numpy(np.float64)
    low, high = x.min(), x.max()
    log = bool(low > 0 and high / low >= LOG_FACTOR)
    if log:
        x, low, high = np.log(x), math.log(low), math.log(high)
    return (x - low) / (high - low) if high > low else np.full(len(x), 0.5), log, False


# ---------------------------------------------------------------------- what matters


def importance_frame(
    frame: pd.DataFrame, *, n_boot: int = 100, seed: int = 0
) -> tuple[pd.DataFrame, Importances]:
    """What each hyperparameter accounts for, the most important first; see `evaluation.importance`.

    Columns: parameter, share, low, high, matters. Empty where there are too few trials with a score.
    """
    trials = scored_trials(frame)
    found = importances(
        {name: trials[name].tolist() for name in searched_parameters(trials)},
        trials["score"].to_numpy(np.float64),
        n_boot=n_boot,
        seed=seed,
    )
    columns = ["parameter", "share", "low", "high", "matters"]
    rows = [(p.name, p.share, p.low, p.high, p.matters) for p in found.parameters]
    return pd.DataFrame(rows, columns=columns), found


def importance_figure(frame: pd.DataFrame) -> go.Figure:
    """Shares with their intervals; one that reaches the line at zero cannot be told from no influence."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for matters, label, colour, symbol in (
        (True, "Matters", PALETTE[0], "circle"),
        (False, "Cannot be told from no influence", "#888888", "circle-open"),
    ):
        part = frame[frame["matters"] == matters]
        if part.empty:
            continue
        figure.add_scatter(
            name=label,
            x=part["share"],
            y=[text(words(p)) for p in part["parameter"]],
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 11},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": part["high"] - part["share"],
                "arrayminus": part["share"] - part["low"],
            },
            hovertemplate="%{y}: %{x:.0%}<extra></extra>",
        )
    figure.add_vline(0, line=REFERENCE)
    figure.update_xaxes(tickformat=".0%")
    categories(figure, y=[text(words(p)) for p in frame["parameter"]][::-1])
    return named(
        figure,
        "What the differences between scores come from",
        "Share of the differences in score, with 90 % of the resamples",
        "Hyperparameter",
    ).update_layout(height=130 + 36 * len(frame))


# ---------------------------------------------------------------------- cost


def search_cost_frame(frame: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Score against training time of every trial with a score.

    Columns: number, name, backbone, status, seconds, score, front (whether no cheaper trial is as good).
    """
    trials = scored_trials(frame)
    front = pareto_front(trials["score"], trials["seconds"], metric.greater_is_better)
    trials["front"] = np.isin(np.arange(len(trials)), front)
    return trials[["number", "name", "backbone", "status", "seconds", "score", "front"]]


def search_cost_figure(frame: pd.DataFrame, metric: str) -> go.Figure:
    """A mark a trial, open where it was stopped early; the line joins those that no cheaper one equals."""
    import plotly.graph_objects as go

    figure = go.Figure()
    front = frame[frame["front"]].sort_values("seconds")
    figure.add_scatter(
        name="No cheaper trial is as good",
        x=front["seconds"],
        y=front["score"],
        mode="lines",
        line={"color": "#888888", "width": 1.5, "shape": "hv"},
        hoverinfo="skip",
    )
    for i, (backbone, part) in enumerate(frame.groupby("backbone", sort=False)):
        symbol = SYMBOLS[i % len(SYMBOLS)]
        figure.add_scatter(
            name=text(backbone),
            x=part["seconds"],
            y=part["score"],
            mode="markers",
            marker={
                "color": PALETTE[i % (len(PALETTE) - 1)],
                "symbol": [symbol if s == "finished" else f"{symbol}-open" for s in part["status"]],
                "size": 11,
                "line": {"width": 1.5},
            },
            text=[
                f"{text(name)}{'' if status == 'finished' else ', stopped early'}"
                for name, status in zip(part["name"], part["status"], strict=True)
            ],
            hovertemplate="%{text}<br>%{x:.0f} s, %{y:.4f}<extra></extra>",
        )
    for axis, column in (("xaxis", "seconds"), ("yaxis", "score")):
        low, high = frame[column].min(), frame[column].max()
        if low > 0 and high / low > LOG_FACTOR:
            figure.update_layout({axis: {"type": "log"}})
    goal = "higher" if get_metric(metric).greater_is_better else "lower"
    return named(
        figure,
        "Score and training time of each trial",
        "Seconds of training",
        f"{title(metric)} on the monitor rows, {goal} is better",
    ).update_layout(height=460)


# ---------------------------------------------------------------------- pruning


def pruning_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """What stopping early saved, epoch by epoch; a row an epoch, from the first to the last that was planned.

    Columns: epoch; planned, trials that were to reach it; trained, trials that did; stopped, trials that the
    scheduler stopped after it; epochs_saved and seconds_saved by these: the epochs that they had left, at the
    median time of those that they had trained, or of those of their backbone.

    Trials that failed count for nothing: they were not stopped.
    """
    trials = frame[frame["status"] != "failed"]
    pace = trials["epoch_s"].fillna(trials.groupby("backbone")["epoch_s"].transform("median"))
    was_stopped = trials["status"] == "stopped"
    left = (trials["epochs"] - trials["trained"]).clip(lower=0).where(was_stopped, 0)
    epochs = np.arange(1, int(trials["epochs"].max() if len(trials) else 0) + 1)

    def at(values: pd.Series[Any]) -> list[float]:
        by_epoch = values.groupby(trials["trained"]).sum()
        return [float(by_epoch.get(epoch, 0.0)) for epoch in epochs]

    return pd.DataFrame(
        {
            "epoch": epochs,
            "planned": [int((trials["epochs"] >= epoch).sum()) for epoch in epochs],
            "trained": [int((trials["trained"] >= epoch).sum()) for epoch in epochs],
            "stopped": np.array(at(was_stopped.astype(float)), np.int64),
            "epochs_saved": np.array(at(left.astype(float)), np.int64),
            "seconds_saved": at(left * pace.fillna(0.0)),
        }
    )


def repeated_epochs(frame: pd.DataFrame, events: Sequence[Mapping[str, Any]]) -> tuple[int, float]:
    """Epochs of the search that were trained once more, and their seconds.

    A trial that is promoted in step begins again from the start, and so does one that was interrupted.

    Args:
        frame: of `trials_frame`.
        events: of the run; nothing is repeated in one that has lost them.
    """
    kept = dict(zip(frame["number"], frame["trained"], strict=True)) if len(frame) else {}
    seen: dict[int, list[float]] = {}
    for event in events:
        if event.get("kind") == "epoch" and event.get("stage") == "search":
            seen.setdefault(int(event["number"]), []).append(float(event["seconds"]))
    again = [seconds[: max(0, len(seconds) - kept[n])] for n, seconds in seen.items() if n in kept]
    return sum(map(len, again)), float(sum(map(sum, again)))


def pruning_figure(frame: pd.DataFrame) -> go.Figure:
    """Trials that trained each epoch, in front of those that were to: what shows behind was saved."""
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.add_bar(
        name="Planned",
        x=frame["epoch"],
        y=frame["planned"],
        marker={
            "color": "rgba(136,136,136,0.15)",
            "line": {"color": "#888888", "width": 1},
            "pattern": {"shape": "/", "fgcolor": "#888888", "size": 6},
        },
        hovertemplate="%{y} trials were to reach epoch %{x}<extra></extra>",
    )
    figure.add_bar(
        name="Trained",
        x=frame["epoch"],
        y=frame["trained"],
        marker={"color": PALETTE[0]},
        customdata=frame["stopped"],
        hovertemplate="%{y} trials trained epoch %{x}, %{customdata} were stopped after it<extra></extra>",
    )
    figure.update_xaxes(dtick=1 if len(frame) <= 16 else None)
    return named(figure, "Trials at each epoch", "Epoch", "Trials").update_layout(
        barmode="overlay", height=340
    )


# ---------------------------------------------------------------------- words


def words(parameter: str) -> str:
    """A hyperparameter as words."""
    return {
        "lr": "learning rate",
        "head_lr": "learning rate of the head",
        "ema": "weight averaging (ema)",
    }.get(parameter, parameter.replace("_", " "))


def metric_words(metric: str) -> str:
    """The score, with what is better."""
    return f"{title(metric)}, {'higher' if get_metric(metric).greater_is_better else 'lower'} is better"


def shown_value(value: Any) -> str:
    """A value as short as it can be read.

    >>> shown_value(0.00286553), shown_value(64), shown_value(True), shown_value("rand")
    ('0.00287', '64', 'yes', 'rand')
    """
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def short(name: str, room: int) -> str:
    """A name cut in its middle, where names of a family differ least.

    >>> short("mobilenetv4_conv_small_035", 12)
    'mobile…l_035'
    """
    room = max(room, 5)
    if len(name) <= room:
        return name
    tail = (room - 1) // 2
    return f"{name[: room - 1 - tail]}…{name[-tail:]}"
