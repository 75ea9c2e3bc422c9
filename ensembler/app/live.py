"""Live: a sweep while it runs, and its history when it has ended."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pandas as pd
import streamlit as st

from ..duration import duration
from ..figures import live_curves_figure, live_curves_frame, load_figure
from ..figures.live import DRAWN
from ..metrics import get_metric
from ..store import RunStore, understood
from ..tuning.progress import TITLES
from .charts import draw
from .following import StageStory, Story, TrialStory, at_work, followed, took
from .links import link
from .states import Progress, progress_of, stands
from .wording import capital, count, headline, lines, metric_name, metric_words, number

#: Seconds between two looks at a run that is alive.
POLL_S = 3.0

#: Most trainings that are listed while they come.
LISTED = 200

#: Seconds without a sample of the load after which nobody took any.
GAP_S = 60.0

#: Curves of the stage that runs, or ran last.
_LATEST = "The latest"

Told = TypeVar("Told", StageStory, TrialStory)

_STATES = {"finished": "finished", "stopped": "stopped early", "failed": "failed", "lost": "cut off"}


@dataclass(frozen=True, eq=False)
class Look:
    """A run at one moment, apart from the story that goes on.

    Attributes:
        progress: how far it is.
        stages, parts: see `Story`, in the order in which they began.
        took_s: since the sweep was last started, while it runs; else what the stages took, each as it went last.
        left_s: what the stage that runs is still expected to take; None where that is not known.
        running: trainings that run.
        failed: those that failed, latest first.
        trials: the latest ones, latest first.
        drawn: those whose curves are drawn.
        best: the best score of those that have ended, and whose.
        workers: table of workers and what they do.
        rungs: table of how far the trials of the search came.
        loads: columns time, cpu, memory in per cent.
    """

    progress: Progress
    stages: tuple[StageStory, ...]
    parts: tuple[StageStory, ...]
    took_s: float
    left_s: float | None
    running: tuple[TrialStory, ...]
    failed: tuple[TrialStory, ...]
    trials: tuple[TrialStory, ...]
    drawn: tuple[TrialStory, ...]
    best: TrialStory | None
    workers: pd.DataFrame
    rungs: pd.DataFrame
    loads: pd.DataFrame


def page(store: RunStore) -> None:
    """Draws the page."""
    with understood(store.path):
        metric = str(store.manifest().get("metric", "log_loss"))
        get_metric(metric)
        budget = store.config().get("budget")
    alive = at_work(store)

    @st.fragment(run_every=POLL_S if alive else None)
    def watch() -> None:
        working = at_work(store)
        if working != alive:
            st.rerun()  # it has ended, or goes on: how often to look is asked anew
        with followed(store).up_to_date() as story:
            now = look(story, working, metric, time.time(), st.session_state.get("stage"))
        _draw(store, now, metric, float(budget) if budget else None)

    watch()


def look(story: Story, working: bool, metric: str, now: float, part: str | None = None) -> Look:
    """A run at one moment.

    Args:
        story: of it.
        working: whether somebody works on it.
        metric: direction of the scores.
        now: time of the clock.
        part: stage of the sweep whose curves are drawn; the latest where it is none that has any.
    """
    trials = story.trials if working else [_cut_off(t) for t in story.trials]
    ended = [t for t in trials if t.state != "running"]
    scored = [t for t in ended if t.score is not None and t.state != "failed"]
    sign = 1 if get_metric(metric).greater_is_better else -1
    return Look(
        progress=progress_of(story, working),
        stages=tuple(replace(s) if working else _cut_off(s) for s in story.stages.values()),
        parts=tuple(replace(s) if working else _cut_off(s) for s in story.parts.values()),
        took_s=now - (story.began or now)
        if working
        else sum((s.ended or s.began) - s.began for s in story.stages.values()),
        left_s=time_left(story, now) if working else None,
        running=tuple(story.running if working else ()),
        failed=tuple(t for t in reversed(ended) if t.state == "failed"),
        trials=tuple(reversed(trials[-LISTED:] if working else trials)),
        drawn=tuple(_drawn(trials, part, sign)),
        best=max(scored, key=lambda t: sign * float(t.score or 0.0), default=None),
        workers=workers_table(story),
        rungs=rungs_table(story.trials),
        loads=loads_frame(story),
    )


def time_left(story: Story, now: float) -> float | None:
    """Seconds that the stage that runs is expected to take yet; None as long as too little of it is done."""
    part = next((p for p in story.parts.values() if p.state == "running"), None)
    if part is None:
        return None
    shares = sum(t.share for t in story.running if t.stage == part.name)
    done = part.done - part.base + shares
    if done < 0.2:
        return None
    return max(0.0, (part.total - part.done - shares) / done * (now - part.began))


def history_frame(trials: Iterable[TrialStory]) -> pd.DataFrame:
    """Columns trial, epoch, score, running: what `live_curves_frame` takes."""
    seen: Counter[str] = Counter()
    rows = []
    for trial in trials:
        name = _name(trial)
        seen[name] += 1
        if seen[name] > 1:
            name = f"{name}, attempt {seen[name]}"
        rows += [(name, entry["epoch"], entry["score"], trial.state == "running") for entry in trial.history]
    return pd.DataFrame(rows, columns=["trial", "epoch", "score", "running"])


def workers_table(story: Story) -> pd.DataFrame:
    """Who does what at what cost, a row a worker; a training whose worker is not known yet has a row of its own."""
    loads = {worker["pid"]: worker for worker in story.workers}
    running = {t.pid: t for t in story.running if t.pid is not None}
    pairs = [(running.get(pid), pid) for pid in sorted({*loads, *running})]
    pairs += [(t, None) for t in story.running if t.pid is None]
    rows = []
    for trial, pid in pairs:
        load = loads.get(pid, {})
        gpu = story.gpus.get(pid or -1) if trial is not None and trial.pid == pid else None
        last = trial.history[-1] if trial is not None and trial.history else {}
        rows.append(
            {
                "Worker": pid,
                "Training": "between two trainings" if trial is None else _name(trial),
                "Epoch": "" if trial is None else _epoch(trial),
                "Score": last.get("score"),
                "Images a second": last.get("images_per_s"),
                "CPU, %": load.get("cpu"),
                "Memory, MB": load["memory_bytes"] / 1e6 if "memory_bytes" in load else None,
                "GPU memory, MB": gpu[0] / 1e6 if gpu else None,
            }
        )
    table = pd.DataFrame(rows)
    return table.drop(columns=[c for c in table if table[c].isna().all()])


def rungs_table(trials: Iterable[TrialStory]) -> pd.DataFrame:
    """How many candidates of the search came how far; no row where none was stopped early."""
    latest = {
        t.number: t for t in trials if t.stage == "search" and t.state != "lost"
    }  # promoted: trained anew
    counts = Counter(
        (t.epoch, t.state) for t in latest.values() if t.state in ("stopped", "finished", "running")
    )
    if not any(state == "stopped" for _, state in counts):
        return pd.DataFrame()
    rows = [
        {
            "Epochs": epoch,
            "Stopped there": counts[epoch, "stopped"],
            "Ran to the end": counts[epoch, "finished"],
            "Running": counts[epoch, "running"],
        }
        for epoch in sorted({epoch for epoch, _ in counts})
    ]
    return pd.DataFrame(rows)


def loads_frame(story: Story) -> pd.DataFrame:
    """The load of the machine: time (of its clock), cpu and memory in per cent; both missing where none was taken."""
    rows: list[tuple[float, float | None, float | None]] = []
    for load in story.loads:
        now = float(load["t"])
        if rows and now - rows[-1][0] > GAP_S:
            rows.append((now - 1, None, None))  # no line is drawn over the gap
        share = load.get("memory_bytes", 0) / (load.get("memory_total_bytes") or 1)
        rows.append((now, load.get("cpu"), 100 * share))
    frame = pd.DataFrame(rows, columns=["time", "cpu", "memory"], dtype="float64")
    local = time.localtime().tm_gmtoff
    return frame.assign(time=pd.to_datetime(frame["time"] + local, unit="s"))


# ---------------------------------------------------------------------- pieces


def _draw(store: RunStore, now: Look, metric: str, budget: float | None) -> None:
    if now.progress.run == "running":
        headline(f"{store.name} is running: {_doing(now)}")
    else:
        stands(store, now.progress)
    if not now.stages:
        st.markdown("Nothing of its work is on record yet.")
        return
    _numbers(now, metric, budget)
    if now.progress.run == "finished":
        link("overview", "Read the verdict", store.name)
    _stages(now)
    if now.progress.run == "running" and len(now.workers):
        st.subheader("Workers", anchor=False)
        st.dataframe(now.workers, hide_index=True, column_config=_formats(), key="workers", placeholder="")
    _curves(now, metric)
    if len(now.loads) > 1:
        st.subheader("Load of the machine", anchor=False)
        draw(load_figure(now.loads), "load", "CPU and memory in use over time, in per cent")
        st.caption(
            "All cores and all memory together, measured every few seconds where the sweep was started."
        )
    _ended(now)
    if now.progress.run != "running":
        st.button("Look again", icon=":material/refresh:")


def _doing(now: Look) -> str:
    part = next((p for p in now.parts if p.state == "running"), None)
    if part is None:
        return now.progress.stage or "preparing"
    return f"{_title(part.name).lower()}, {part.done} of {part.total} done"


def _numbers(now: Look, metric: str, budget: float | None) -> None:
    first, second, third, fourth = st.columns(4)
    with first.container(border=True, height="stretch"):
        st.metric("Trainings that ended", f"{now.progress.ended:,}")
        lines(
            f"{len(now.running)} running" if now.running else "",
            f"{now.progress.failed} failed" if now.progress.failed else "none failed",
        )
    with second.container(border=True, height="stretch"):
        st.metric(f"Best {metric_name(metric)}", number(now.best.score if now.best else None))
        lines(_name(now.best) if now.best else "", "on the monitor images of one fold" if now.best else "")
    with third.container(border=True, height="stretch"):
        st.metric("Time", duration(now.took_s))
        lines("since it was last started" if now.progress.run == "running" else "all stages together")
        if budget:
            lines(f"of a budget of {duration(budget)}")
    with fourth.container(border=True, height="stretch"):
        if now.progress.run == "running":
            st.metric("Left in this stage", "–" if now.left_s is None else f"≈ {duration(now.left_s)}")
            lines("as fast as it went so far" if now.left_s is not None else "Not known yet")
        else:
            done = [s for s in now.stages if s.state == "done"]
            st.metric("Stages done", f"{len(done)} of {len(now.stages)}")
            lines(", ".join(s.name for s in done))


def _stages(now: Look) -> None:
    st.subheader("Stages", anchor=False)
    for stage in now.stages:
        if stage.name == "sweep":
            lines(_stage_line(stage))
            for part in now.parts:
                words = f"{_title(part.name)}: {part.done:,} of {part.total:,}"
                words += " planned" if part.state != "running" and part.done < part.total else ""
                words += f", {part.failed} failed" if part.failed else ""
                words += f", {took(part.ended - part.began)}" if part.ended is not None else ""
                done = part.done + sum(t.share for t in now.running if t.stage == part.name)
                st.progress(min(1.0, done / part.total) if part.total else 1.0, text=words)
        else:
            lines(_stage_line(stage))


def _stage_line(stage: StageStory) -> str:
    sign = {"done": "✓", "running": "…", "failed": "✗", "lost": "✗"}.get(stage.state, "·")
    words = {"done": "done", "running": "running", "failed": "failed", "lost": "cut off"}.get(stage.state, "")
    if stage.ended is not None and stage.state == "done":
        words += f" in {took(stage.ended - stage.began)}"
    return f"{sign} {capital(stage.name)}: {words}"


def _curves(now: Look, metric: str) -> None:
    frame = live_curves_frame(history_frame(now.drawn), metric)
    with_curves = [p.name for p in now.parts if p.name != "measure"]
    if frame.empty and not with_curves:
        return
    st.subheader("Learning curves", anchor=False)
    if len(with_curves) > 1:
        st.selectbox("Stage", [_LATEST, *with_curves], key="stage", format_func=_title, bind="query-params")
    if frame.empty:
        st.caption("No training of this stage has ended an epoch.")
        return
    draw(
        live_curves_figure(frame, metric),
        "curves",
        "Score on the monitor images over epochs; those that run are coloured",
    )
    st.caption(
        f"{capital(metric_words(metric))}. Monitor images are kept aside within each fold to watch the training. "
        f"Coloured: running. Dashed: the best that has ended. Grey: the last {DRAWN} of the others."
    )


def _ended(now: Look) -> None:
    if len(now.rungs):
        st.subheader("How far the search let its recipes come", anchor=False)
        st.dataframe(now.rungs, hide_index=True, key="rungs")
        st.caption("A recipe that falls behind is stopped early, and its time goes to others.")
    if now.failed:
        st.subheader(count(len(now.failed), "training") + " failed", anchor=False)
        st.dataframe(
            pd.DataFrame(
                {
                    "Training": [_name(t) for t in now.failed],
                    "Stage": [_title(t.stage) for t in now.failed],
                    "Reason": [t.reason for t in now.failed],
                }
            ),
            hide_index=True,
            key="failed",
            column_config={"Reason": st.column_config.TextColumn(width="large")},
        )
    if now.trials:
        running = now.progress.run == "running"
        title = f"The last {len(now.trials):,} trainings" if running else f"All {len(now.trials):,} trainings"
        with st.expander(title, icon=":material/list:"):
            st.dataframe(trials_table(now.trials), hide_index=True, column_config=_formats(), key="trials")


def trials_table(trials: Sequence[TrialStory]) -> pd.DataFrame:
    """What each training did, in the order given."""
    return pd.DataFrame(
        {
            "Training": [_name(t) for t in trials],
            "Stage": [_title(t.stage) for t in trials],
            "State": [_STATES.get(t.state, t.state) for t in trials],
            "Epoch": [_epoch(t) for t in trials],
            "Score": pd.Series([t.score for t in trials], dtype="float64"),
            "Time, s": [None if t.ended is None else t.ended - t.began for t in trials],
        }
    )


def _formats() -> dict[str, Any]:
    config = st.column_config
    return {
        "Worker": config.NumberColumn(format="%d", help="Process id"),
        "Training": config.TextColumn(width="medium"),
        "Score": config.NumberColumn(format="%.4f"),
        "Images a second": config.NumberColumn(format="%.0f"),
        "CPU, %": config.NumberColumn(format="%.0f", help="Of one core"),
        "Memory, MB": config.NumberColumn(format="%.0f"),
        "GPU memory, MB": config.NumberColumn(format="%.0f", help="Reserved by its last epoch"),
        "Time, s": config.NumberColumn(format="%.1f"),
    }


def _cut_off(what: Told) -> Told:
    """The same where nobody is at it: what had not ended never will."""
    return replace(what, state="lost") if what.state == "running" else replace(what)


def _drawn(trials: Sequence[TrialStory], part: str | None, sign: int) -> list[TrialStory]:
    """Of one stage: those that run, the last that ended, and the best."""
    with_curves = [t for t in trials if t.history]
    known = {t.stage for t in with_curves}
    if part not in known:
        part = with_curves[-1].stage if with_curves else None
    mine = [t for t in with_curves if t.stage == part]
    ended = [t for t in mine if t.state != "running"]
    best = max(ended, key=lambda t: max(sign * h["score"] for h in t.history), default=None)
    kept = {id(t) for t in [*ended[-DRAWN:], *(t for t in mine if t.state == "running")]}
    return [t for t in mine if id(t) in kept or t is best]


def _name(trial: TrialStory) -> str:
    if trial.stage == "measure":
        return trial.backbone
    if trial.fold is None or trial.fold < 0:  # every row
        return trial.candidate
    return f"{trial.candidate}, fold {trial.fold + 1}"


def _epoch(trial: TrialStory) -> str:
    goal = trial.until or trial.epochs
    if not trial.epoch and not goal:
        return ""
    return f"{trial.epoch} of {goal}" if goal else str(trial.epoch)


def _title(stage: str) -> str:
    return TITLES.get(stage, stage)
