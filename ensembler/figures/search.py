"""What a search found: what its trials have in common, what mattered, what a score costs, what stopping early saved."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

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
    ("Best fifth", "#0072B2", 3.0),
    ("Second fifth", "#56B4E9", 1.5),
    ("Middle fifth", "#999999", 1.0),
    ("Fourth fifth", "#E69F00", 1.0),
    ("Worst fifth", "#D55E00", 1.0),
)

#: Hyperparameters of which only the order of magnitude tells anything; and how far apart values have to lie for that.
RATES = ("lr", "head_lr", "weight_decay", "l1", "l2_sp")
LOG_FACTOR = 10

#: Pixels of a row of parallel coordinates; what of it values and names take, where lines run straight and faint.
ROW, BELOW, ABOVE, FAINT = 78, 0.3, 0.34, 0.2

#: Characters of the names of categories that fit side by side on a phone.
ROOM = 60

SCORE = "score"

#: Of more trials the lines are thinner.
CROWD = 40

#: Where the worst score is so many times further from the best than the median, scores are drawn by rank.
OUTLYING = 5


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
    the score 1 is the best), scale ("" for even, "log scale", or "by rank" for scores of which a few are far off),
    category. The last parameter is the score.

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
        position, scale, category = _positions(values)
        if parameter == SCORE and _has_outliers(values, metric):
            rank = np.asarray(values.rank(method="average"), np.float64) - 1
            position, scale = rank / max(len(values) - 1, 1), "by rank"
        if parameter == SCORE and not metric.greater_is_better:
            position = 1 - position
        shown = [shown_value(v) for v in values]
        base = chosen[["number", "name", "status", "score"]]
        parts.append(
            base.assign(
                fifth=fifth,
                parameter=parameter,
                value=shown,
                position=position,
                scale=scale,
                category=category,
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
    named_already: set[int] = set()
    for fifth in reversed(range(len(FIFTHS))):  # the best on top
        label, colour, width = FIFTHS[fifth]
        for status, dash in (("finished", "solid"), ("stopped", "dot")):
            part = frame[(frame["fifth"] == fifth) & (frame["status"] == status)]
            if part.empty:
                continue
            trials = [trial for _, trial in part.groupby("number", sort=False)]
            line = {"color": colour, "width": width, "dash": dash}
            crowded = frame["number"].nunique() > CROWD
            line["width"] = min(width, 2.0) if crowded else width
            common = {"mode": "lines", "hoverinfo": "skip", "legendgroup": label, "showlegend": False}
            x, y = _straight(trials)
            figure.add_scatter(x=x, y=y, line=line, opacity=FAINT, **common)
            x, y = _slanted(trials)
            figure.add_scatter(
                x=x, y=y, line=line, opacity=0.9 if fifth == 0 else 0.4 if crowded else 0.75, **common
            )
            figure.add_scatter(
                name=label,
                x=part["position"],
                y=part["parameter"].map({p: float(i) for i, p in enumerate(parameters)}),
                text=[_told(row, metric) for row in part.itertuples()],
                hovertemplate="%{text}<extra></extra>",
                mode="markers",
                marker={"color": colour, "size": 7, "symbol": SYMBOLS[0] if status == "finished" else "x"},
                legendgroup=label,
                showlegend=fifth in (0, len(FIFTHS) - 1) and fifth not in named_already,
            )
            named_already.add(fifth)
    for parameter in parameters:
        _axis(figure, frame[frame["parameter"] == parameter], float(parameters.index(parameter)), metric)
    figure.update_xaxes(visible=False, range=[-0.02, 1.02], fixedrange=True)
    figure.update_yaxes(visible=False, range=[len(parameters) - 0.5, -0.6], fixedrange=True)
    figure = named(figure, "Hyperparameters of all trials", "", "")
    return figure.update_layout(
        height=60 + ROW * len(parameters), hovermode="closest", legend={"traceorder": "reversed"}
    )


def _straight(trials: Sequence[pd.DataFrame]) -> tuple[list[float | None], list[float | None]]:
    """The pieces of lines beside the axes, where names and values stand."""
    x: list[float | None] = []
    y: list[float | None] = []
    for trial in trials:
        for i, position in enumerate(trial["position"]):
            last = i == len(trial) - 1
            x += [position, position, None]
            y += [i - ABOVE if i else i, i if last else i + BELOW, None]
    return x, y


def _slanted(trials: Sequence[pd.DataFrame]) -> tuple[list[float | None], list[float | None]]:
    """The pieces of lines from below one axis to above the next."""
    x: list[float | None] = []
    y: list[float | None] = []
    for trial in trials:
        positions = trial["position"].to_list()
        for i, (here, there) in enumerate(itertools.pairwise(positions)):
            x += [here, there, None]
            y += [i + BELOW, i + 1 - ABOVE, None]
    return x, y


def _told(row: Any, metric: str) -> str:
    """What a mark says when it is pointed at."""
    score = f"{text(metric_words(metric))}: {shown_value(row.score)}"
    return f"{text(row.name)}<br>{text(words(row.parameter))}: {text(row.value)}<br>{score}"


def _axis(figure: go.Figure, part: pd.DataFrame, height: float, metric: str) -> None:
    """The line of one hyperparameter with its name and what its ends mean."""
    figure.add_shape(
        type="line", x0=0, x1=1, y0=height, y1=height, line={"color": "#888888", "width": 1}, layer="below"
    )
    parameter = part["parameter"].iloc[0]
    is_score = parameter == SCORE
    name = metric_words(metric) if is_score else words(parameter)
    scale = part["scale"].iloc[0]
    label = {"x": 0, "y": height, "xanchor": "left", "showarrow": False, "font": {"size": 13}}
    figure.add_annotation(**label, text=f"<b>{text(name)}</b>{scale and ', ' + scale}", yshift=14)
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


def _positions(values: pd.Series[Any]) -> tuple[NDArray[np.float64], str, bool]:
    """Positions in [0, 1] of values, their scale, and whether they are categories."""
    if values.dtype == bool or not pd.api.types.is_numeric_dtype(values):
        known, codes = np.unique(values.astype(str).to_numpy(), return_inverse=True)
        return codes / max(len(known) - 1, 1), "", True
    x = values.to_numpy(np.float64)
    low, high = x.min(), x.max()
    log = bool(values.name in RATES and low > 0 and high / low >= LOG_FACTOR)
    if log:
        x, low, high = np.log(x), math.log(low), math.log(high)
    position = (x - low) / (high - low) if high > low else np.full(len(x), 0.5)
    return position, "log scale" if log else "", False


def _has_outliers(scores: pd.Series[Any], metric: Metric) -> bool:
    """Whether a few scores are so bad that the good ones would lie on top of each other."""
    best = scores.max() if metric.greater_is_better else scores.min()
    worst = scores.min() if metric.greater_is_better else scores.max()
    return bool(abs(worst - best) > OUTLYING * abs(scores.median() - best))


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
        "Share of the differences in score",
        "",
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
                "line": {"width": [0 if s == "finished" else 2 for s in part["status"]]},
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
            figure.update_layout({axis: {"type": "log", "tickvals": round_numbers(low, high)}})
    goal = "higher" if get_metric(metric).greater_is_better else "lower"
    return named(
        figure,
        "Score and training time of each trial",
        "Seconds of training",
        f"{title(metric)}, {goal} is better",
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
        "start": "starting weights",
        "lr": "learning rate",
        "head_lr": "learning rate of the head",
        "ema": "weight averaging (ema)",
    }.get(parameter, parameter.replace("_", " "))


def metric_words(metric: str) -> str:
    """The score, with what is better."""
    return f"{title(metric)}, {'higher' if get_metric(metric).greater_is_better else 'lower'} is better"


def round_numbers(low: float, high: float) -> list[float]:
    """Marks of a log scale: one, two and five times the powers of ten.

    >>> round_numbers(15, 170)
    [10.0, 20.0, 50.0, 100.0, 200.0]
    """
    steps = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = [round(n * 10.0**step, 10) for step in steps for n in (1, 2, 5)]
    first = max((m for m in marks if m <= low), default=low)
    last = min((m for m in marks if m >= high), default=high)
    return [m for m in marks if first <= m <= last]


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
