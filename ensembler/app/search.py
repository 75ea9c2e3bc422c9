"""The search: what good recipes have in common, what mattered, what a better score costs, what stopping early saved."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from ..evaluation.importance import MIN_TRIALS, Importances
from ..figures.search import (
    importance_figure,
    importance_frame,
    parallel_figure,
    parallel_frame,
    pruning_figure,
    pruning_frame,
    repeated_epochs,
    scored_trials,
    search_cost_figure,
    search_cost_frame,
    searched_parameters,
    trials_frame,
    words,
)
from ..metrics import Metric, get_metric
from ..store import RunStore, understood
from ..training.candidate import Candidate
from .charts import draw
from .states import progress
from .wording import capital, count, headline, lines, listed, metric_words, number, plain

#: Hyperparameters that are drawn at first; more can be chosen.
SHOWN = 8

#: Trials that are drawn as lines: the best.
MOST = 300

#: What each scheduler of a config does, for those who did not write it.
SCHEDULERS = {
    "asha": "Trials that fell behind the others at a few set epochs were stopped (asha).",
    "median": "Trials that fell behind the median of the others were stopped (median).",
    "halving": "Of each group of trials the best third went on, the others were stopped (halving).",
    "none": "This search let every trial run to its end (scheduler: none).",
}


@dataclasses.dataclass(frozen=True)
class Search:
    """What the page reads of a run.

    Attributes:
        trials: `figures.trials_frame`.
        repeated: epochs that were trained more than once, and their seconds.
        metric_name: of the run.
        asked: trials that the config asked for; None where it says nothing.
        scheduler: of the config, "" where there is none.
        defaults: names of the trials that are the default recipe of their backbone.
        running: whether the sweep has not ended yet.
    """

    trials: pd.DataFrame
    repeated: tuple[int, float]
    metric_name: str
    asked: int | None
    scheduler: str
    defaults: frozenset[str]
    running: bool

    @property
    def metric(self) -> Metric:
        """What ranks the trials."""
        return get_metric(self.metric_name)


def page(store: RunStore) -> None:
    """Draws the page."""
    now = _stamp(store)
    with understood(store.path):
        why = why_none(store)
        found = None if why else _read(str(store.path), now)
    if found is None:
        headline("No search to show")
        st.info(plain(why), icon=":material/search_off:")
        st.button("Look again", icon=":material/refresh:")
        return
    good = scored_trials(found.trials)
    headline(heading(found, good))
    lines(*findings(found, good))
    if found.running:
        st.info("The sweep has not ended yet: this is what there is so far.", icon=":material/hourglass_top:")
        st.button("Look again", icon=":material/refresh:")
    if len(good) > 1:
        _parallel(found, store, now)
        _importances(*_importance(str(store.path), now))
        _cost(found)
    _pruning(found)
    _failures(found.trials)
    _table(found)


def why_none(store: RunStore) -> str:
    """Why a run has no search to show; "" where it has one."""
    manifest = store.manifest()
    config = store.config()
    if store.trial_files():
        return ""
    if store.bare_predictions() is not None:
        return "This run was made from predictions alone: nothing was trained here, so nothing was searched."
    if config.get("search", {}) is None:
        return "This run was asked for no search (search: null): each backbone was trained with its default recipe."
    if "sweep" in manifest.get("stages", {}):
        return "No trial was needed: nothing of this run has hyperparameters to search."
    now = progress(store)
    if now.state == "failed":
        return f"The run stopped in the stage “{now.stage}” before the first trial ended: {now.reason}"
    return "No trial of the search has ended yet. The first appear here as soon as they have."


def heading(found: Search, good: pd.DataFrame) -> str:
    """The answer in a few words."""
    if good.empty:
        return f"No trial of {len(found.trials):,} has a score"
    return f"The best of {count(len(found.trials), 'recipe')}: {_best(found, good)['name']}"


def findings(found: Search, good: pd.DataFrame) -> list[str]:
    """What to know of the search, a sentence each."""
    trials = found.trials
    states = trials["status"].value_counts()
    told = [
        f"{states[state]:,} {text}"
        for state, text in (
            ("finished", "ran to the end"), ("stopped", "stopped early"), ("failed", "failed")
        )
        if states.get(state, 0)
    ]  # fmt: skip
    of = f" of the {found.asked:,} asked for" if found.asked and len(trials) < found.asked else ""
    said = [f"{count(len(trials), 'trial')}{of}: {', '.join(told)}."]
    if good.empty:
        return said
    best = _best(found, good)
    later = int((trials["number"] > best["number"]).sum())
    place = f"It was trial {best['number']}"
    if best["name"] in found.defaults:
        place += ", the default recipe of its backbone: the search found nothing better"
    elif later:
        place += f"; the {count(later, 'trial')} after it brought nothing better"
    return [
        f"{capital(metric_words(found.metric_name))}: {number(best['score'])}. {place}.",
        *said,
        "Scores are those of the monitor rows: a few images of one fold, kept from training to choose by. What "
        "to expect of the best recipes stands on the leaderboard.",
    ]


def importance_sentences(shares: Importances) -> list[str]:
    """What matters, in words, and how far that can be trusted."""
    if not shares.enough:
        return [
            f"Too few trials to tell: {shares.n_trials} have a score, at least {MIN_TRIALS} that differ are needed."
        ]
    sure = [p for p in shares.parameters if p.matters]
    rest = [words(p.name) for p in shares.parameters if not p.matters]
    if not sure:
        said = (
            f"Too few trials to tell: from these {shares.n_trials}, no hyperparameter's influence can be told from "
            "none at all."
        )
    else:
        first, *others = sure
        said = (
            f"The {words(first.name)} matters most: about {_percent(first.share)} of the differences in score come "
            f"from it (likely between {_percent(first.low)} and {_percent(first.high)})."
        )
        if others:
            said += f" Then: {listed([f'{words(p.name)} ({_percent(p.share)})' for p in others])}."
        if rest:
            said += f" Of the others nothing can be said from {shares.n_trials} trials: {listed(rest)}."
    return [
        said,
        f"A model that knows the hyperparameters alone foresees {_percent(max(0.0, shares.explained))} of the "
        "differences between trials that it has not seen.",
    ]


def pruning_sentences(pruning: pd.DataFrame, repeated: tuple[int, float], trials: pd.DataFrame) -> list[str]:
    """What stopping early saved, and what it cost."""
    planned, trained = int(pruning["planned"].sum()), int(pruning["trained"].sum())
    epochs, seconds = int(pruning["epochs_saved"].sum()), float(pruning["seconds_saved"].sum())
    said = [f"{planned:,} epochs were planned, {trained:,} of them were trained."]
    if epochs:
        said.append(
            f"Stopping {count(int(pruning['stopped'].sum()), 'trial')} saved {count(epochs, 'epoch')}: about "
            f"{_duration(seconds)} of training on one worker, as long as their epochs took."
        )
    itself = trials[(trials["status"] == "finished") & (trials["trained"] < trials["epochs"])]
    if len(itself):
        left = int((itself["epochs"] - itself["trained"]).sum())
        said.append(
            f"{count(len(itself), 'trial')} ended by no longer improving, {count(left, 'epoch')} early."
        )
    if repeated[0]:
        said.append(
            f"{count(repeated[0], 'epoch')} ({_duration(repeated[1])}) were trained once more, because a trial that "
            "was promoted or interrupted begins again."
        )
    return said


def rung_table(pruning: pd.DataFrame) -> pd.DataFrame:
    """The epochs at which trials were stopped, with what that saved."""
    table = pruning[pruning["stopped"] > 0]
    return pd.DataFrame(
        {
            "Stopped after epoch": table["epoch"],
            "Trials": table["stopped"],
            "Epochs saved": table["epochs_saved"],
            "Seconds saved": table["seconds_saved"],
        }
    ).reset_index(drop=True)


def trial_table(found: Search) -> pd.DataFrame:
    """Every trial with what it chose, the best first, failed ones last; only the settings that differ."""
    trials = found.trials.assign(failed=found.trials["status"] == "failed")
    ascending = not found.metric.greater_is_better
    trials = trials.sort_values(
        ["failed", "score"], ascending=[True, ascending], kind="stable", na_position="last"
    )
    columns = {
        "number": "Trial",
        "name": "Candidate",
        "status": "Ended",
        "score": "Score",
        "trained": "Epochs",
    }
    columns |= {"seconds": "Seconds"}
    varied = [c for c in searched_parameters(found.trials) if c != "epochs"]
    columns |= {c: capital(words(c)) for c in varied}
    if found.trials["epochs"].nunique() > 1:
        columns["epochs"] = "Epochs planned"
    return trials[list(columns)].rename(columns=columns).reset_index(drop=True)


def default_names(trials: Sequence[Mapping[str, Any]], arms: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Names of the trials whose recipe is the default of their arm; a budget may have cut its epochs.

    Args:
        trials: of the store.
        arms: "space" of the manifest.
    """
    known = [({**arm["recipe"], "epochs": None}, arm) for arm in arms]
    found = set()
    for trial in trials:
        candidate = Candidate.from_dict(trial["candidate"])
        recipe = {**dataclasses.asdict(candidate.recipe), "epochs": None}
        own = (candidate.backbone, candidate.weights, candidate.strategy)
        if any(
            recipe == default and own == (arm["backbone"], arm["weights"], arm["strategy"])
            for default, arm in known
        ):
            found.add(candidate.name)
    return frozenset(found)


# ---------------------------------------------------------------------- reading


def _stamp(store: RunStore) -> tuple[int, ...]:
    """Changes when a trial is noted: each appears by a rename, which its folder remembers."""
    files = [store.path / name for name in ("search", "manifest.json", "config.yaml")]
    return tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files)


@st.cache_data(max_entries=8, show_spinner="Reading the search…")
def _read(path: str, stamp: tuple[int, ...]) -> Search:  # noqa: ARG001
    store = RunStore(path)
    trials = store.trials()
    manifest = store.manifest()
    settings = store.config().get("search") or {}
    frame = trials_frame(trials)
    return Search(
        trials=frame,
        repeated=repeated_epochs(frame, store.events()),
        metric_name=get_metric(manifest["metric"]).name,
        asked=settings.get("trials"),
        scheduler=str(settings.get("scheduler", "")),
        defaults=default_names(trials, manifest.get("space", [])),
        running="sweep" not in manifest.get("stages", {}),
    )


@st.cache_data(max_entries=8, show_spinner="Asking what matters…")
def _importance(path: str, stamp: tuple[int, ...]) -> tuple[pd.DataFrame, Importances]:
    return importance_frame(_read(path, stamp).trials)


# ---------------------------------------------------------------------- pieces


def _best(found: Search, good: pd.DataFrame) -> pd.Series[Any]:
    return good.iloc[int((found.metric.sign * good["score"].to_numpy()).argmax())]


def _parallel(found: Search, store: RunStore, now: tuple[int, ...]) -> None:
    st.subheader("What do the best recipes have in common?", anchor=False)
    known = searched_parameters(scored_trials(found.trials))
    if not known:
        lines("All trials with a score used the same settings.")
        return
    default = known
    if len(known) > SHOWN:  # those that matter most
        first = [*_importance(str(store.path), now)[0]["parameter"], *known]
        default = [p for p in known if p in list(dict.fromkeys(first))[:SHOWN]]
    chosen = default
    if len(known) > 2:
        chosen = st.multiselect(
            "Hyperparameters",
            known,
            default=default,
            format_func=lambda p: capital(words(p)),
            key="parameter",
            bind="query-params",
        )
    frame = parallel_frame(found.trials, found.metric, chosen, MOST)
    draw(
        parallel_figure(frame, found.metric_name),
        "parallel",
        "A line a trial through the values that it chose, down to its score; blue lines are the best trials",
    )
    n_scored = len(scored_trials(found.trials))
    of = f"The best {MOST:,} of {n_scored:,} trials. " if n_scored > MOST else ""
    st.caption(
        f"{of}Each line is a trial: follow it down to its score. Where the thick blue lines meet, the best recipes "
        "agree. Dotted lines were stopped early and count with the best score they had until then."
    )


def _importances(frame: pd.DataFrame, shares: Importances) -> None:
    st.subheader("Which hyperparameters matter?", anchor=False)
    lines(*importance_sentences(shares))
    if frame.empty:
        return
    draw(
        importance_figure(frame),
        "importance",
        "Share of the differences in score that each hyperparameter accounts for, with its interval",
    )
    st.caption(
        "Measured on trials that a forest of decision trees had not seen: how much worse it predicts their order when "
        "one hyperparameter is shuffled. Bars hold 90 % of resamples of the trials; one that reaches zero may be "
        "chance. Shares are rather too small than too large, and hyperparameters that change together divide theirs."
    )


def _cost(found: Search) -> None:
    st.subheader("What does a better score cost?", anchor=False)
    frame = search_cost_frame(found.trials, found.metric)
    draw(
        search_cost_figure(frame, found.metric_name),
        "cost",
        "Score of each trial against the seconds that it was trained; a line joins the best for their cost",
    )
    st.caption("Open marks were stopped early. On the grey line lie the trials that no cheaper one equals.")


def _pruning(found: Search) -> None:
    st.subheader("What did stopping early save?", anchor=False)
    pruning = pruning_frame(found.trials)
    lines(SCHEDULERS.get(found.scheduler, ""), *pruning_sentences(pruning, found.repeated, found.trials))
    table = rung_table(pruning)
    if table.empty:
        return
    draw(pruning_figure(pruning), "pruning", "How many trials trained each epoch, and how many were to")
    seconds = {"Seconds saved": st.column_config.NumberColumn(format="%.0f")}
    st.dataframe(table, hide_index=True, column_config=seconds)


def _failures(trials: pd.DataFrame) -> None:
    failed = trials[trials["status"] == "failed"]
    if failed.empty:
        return
    st.subheader("Trials that failed", anchor=False)
    table = failed[["number", "name", "trained", "reason"]]
    names = {"number": "Trial", "name": "Candidate", "trained": "Epochs", "reason": "Reason"}
    st.dataframe(table.rename(columns=names), hide_index=True)


def _table(found: Search) -> None:
    with st.expander("All trials as a table"):
        table = trial_table(found)
        config: dict[str, Any] = {
            "Score": st.column_config.NumberColumn(format="%.4f"),
            "Seconds": st.column_config.NumberColumn(format="%.0f"),
        }
        st.dataframe(table, hide_index=True, column_config=config, placeholder="")


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
