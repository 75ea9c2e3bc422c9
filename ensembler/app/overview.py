"""The home page: what to use and why, how far the run is, what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from ..evaluation.leaderboard import Leaderboard
from .advice import accuracy, advice, concerns, next_steps, on_test
from .following import at_work, took
from .links import known, link
from .reading import View
from .wording import count, headline, lines, metric_name, metric_words, number, p_text, plain, span

#: The stages of a run, in order, and what each has done.
STAGES = {
    "sweep": "trained",
    "combine": "combined",
    "compare": "compared",
    "collapse": "folds collapsed",
    "test": "measured and tested",
}


def page(run: View) -> None:
    """Draws the page."""
    headline(advice(run.board.verdict))
    lines(run.board.verdict.sentence)
    _test(run)
    _contenders(run)
    _concerns(run)
    left, right = st.columns([3, 2], gap="large")
    with left:
        _next(run)
    with right:
        _far(run)


def made_of(manifest: Mapping[str, Any]) -> list[str]:
    """What the run is made of, a line each.

    >>> made_of({"images": 240, "classes": ["cat", "dog"], "k": 5, "test_images": 40, "candidates": [{}]})
    ['240 images of 2 classes in 5 folds, 40 images kept aside as test', '1 single model trained']
    """
    said = []
    if manifest.get("images"):
        line = count(int(manifest["images"]), "image")
        line += f" of {count(len(manifest.get('classes', [])), 'class', 'classes')}"
        line += f" in {count(int(manifest.get('k', 1)), 'fold')}"
        if manifest.get("test_images"):
            line += f", {count(int(manifest['test_images']), 'image')} kept aside as test"
        said.append(line)
    if manifest.get("candidates"):
        said.append(count(len(manifest["candidates"]), "single model") + " trained")
    return said


def stages_done(manifest: Mapping[str, Any]) -> list[str]:
    """The stages that are done, with what each took.

    >>> stages_done({"stages": {"test": 1.9, "sweep": 306.2}})
    ['✓ trained in 5 min 06 s', '✓ measured and tested in 2 s']
    """
    seconds = manifest.get("stages", {})
    return [f"✓ {words} in {took(float(seconds[name]))}" for name, words in STAGES.items() if name in seconds]


# ---------------------------------------------------------------------- pieces


def _test(run: View) -> None:
    said, agrees = on_test(run.board, run.manifest.get("test_images"))
    if said and not agrees:
        st.warning(plain(said), icon=":material/balance:")
    else:
        lines(said)


def _contenders(run: View) -> None:
    """The best single model and the best ensemble, the difference, and what it costs."""
    verdict = run.board.verdict
    best = run.board.frame[run.board.frame["name"].isin([verdict.best_single, verdict.best_ensemble])]
    records = {row["name"]: row for row in Leaderboard(best).to_records()}
    columns = st.columns(4 if verdict.best_ensemble else 1)
    for column, title, name in (
        (columns[0], "Best single model", verdict.best_single),
        (columns[min(1, len(columns) - 1)], "Best ensemble", verdict.best_ensemble),
    ):
        if name is None:
            continue
        row = records[name]
        with column.container(border=True, height="stretch"):
            st.metric(title, number(row["cv"]), help="Over all out-of-fold images")
            lines(
                metric_words(run.metric),
                name,
                f"95 % interval {span(row['cv_low'], row['cv_high'])}",
                accuracy(row),
                *_cost(row),
            )
    if verdict.best_ensemble is None:
        return
    with columns[2].container(border=True, height="stretch"):
        st.metric(f"Gain in {metric_name(run.metric)}", number(verdict.delta, sign=True))
        lines(
            "Positive is better",
            f"95 % interval {span(verdict.low, verdict.high, sign=True)}",
            f"p = {p_text(verdict.p_value)}, Holm-corrected".replace("= <", "<"),
        )
    with columns[3].container(border=True, height="stretch"):
        price = verdict.price
        if price.added_ms is None:
            st.metric("Price", "unknown")
            lines("Predictions alone say nothing about latency.")
        else:
            ratio = "–" if price.latency_ratio is None else f"{price.latency_ratio:.1f} × latency"
            st.metric("Price", ratio)
            lines(f"{price.added_ms:+.1f} ms an image", "at batch 1, on the machine of the run")


def _cost(row: Mapping[str, Any]) -> list[str]:
    parts = []
    members = row["members"]
    if len(members) > 1:
        parts.append(f"{len(members)} members")
    if row["latency_ms"] is not None:
        parts.append(f"{row['latency_ms']:.1f} ms an image")
    if row["params"] is not None:
        parts.append(f"{row['params'] / 1e6:.2f} M parameters")
    return parts


def _concerns(run: View) -> None:
    found = concerns(run.board, run.manifest)
    if found:
        with st.expander("; ".join(title for title, _ in found), icon=":material/warning:"):
            for title, details in found:
                st.markdown(f"**{title}**")
                lines(*details)


def _next(run: View) -> None:
    steps = [step for step in next_steps(run) if known(step.module)]
    if not steps:
        return
    st.subheader("What to do next", anchor=False)
    for step in steps:
        with st.container(gap=None):
            link(step.module, step.label, run.store.name, **step.query)
            st.caption(plain(step.why))


def _far(run: View) -> None:
    st.subheader("How far the run is", anchor=False)
    if at_work(run.store):
        st.info("Somebody works on this run: what is shown here may change.", icon=":material/hourglass_top:")
        link("live", "Watch it", run.store.name)
    lines(*made_of(run.manifest), *stages_done(run.manifest))
    rows = count(len(run.board.frame), "row")
    link("leaderboard", f"All {rows} of the leaderboard", run.store.name)
