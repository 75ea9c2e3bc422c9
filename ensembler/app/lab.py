"""Ensemble lab: put an ensemble together by hand, see at once what it is worth and costs, and keep it by name."""

from __future__ import annotations

import time
from collections.abc import Callable

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from ..combiners import COMBINERS
from ..comparison import read_groups
from ..errors import CombinerError
from ..evaluation.cost import Cost
from ..laboratory import Laboratory, Outcome, Setup
from ..metrics import get_metric
from ..store import understood
from . import lab_members, lab_save
from .lab_insight import contribution, diversity, weights
from .reading import View, predictions
from .wording import capital, count, headline, lines, metric_name, metric_words, number, p_text, plain, span

#: Single models that are offered: more would not be switched one by one.
MOST = 60

#: Combiners in words, and what they do; the others have their key and their docstring.
WORDS = {
    "mean": ("Equal weights", "The plain average of the members' probabilities. Nothing is fitted."),
    "weighted": ("Own weights", "The average under weights that you set. Nothing is fitted."),
    "greedy": (
        "Greedy selection",
        "Adds members one by one, again and again, as long as that helps; how often each was added is its weight.",
    ),
    "convex": ("Best convex weights", "The weights of the average with the lowest log loss."),
}

#: Seconds of fitting after which progress is shown.
PATIENCE_S = 0.5

#: State of the page that is also in the URL.
COMBINER, BUDGET = "combiner", "budget"


def page(run: View) -> None:
    """Draws the page."""
    headline("Ensemble lab")
    lines(
        "Switch models on and off and choose how their answers are combined: see what that is worth, and what it "
        "costs. Nothing is trained, and the run stays as it is until you save."
    )
    names = offered(run)
    if len(names) < 2:
        st.info("This run has one single model, and an ensemble needs two.", icon=":material/block:")
        return
    lab = laboratory(run)
    result = st.container()
    combiner, budget = _choose(lab)
    members, by_hand = lab_members.choose(lab, names, combiner)
    setup = Setup(tuple(members), combiner, tuple(by_hand), budget if combiner == "constrained" else None)
    with result:
        outcome = _measured(lab, setup)
        if outcome is not None:
            _show(lab, setup, outcome, budget)
    lab_save.save(run, lab, setup if outcome is not None else None)
    if outcome is not None:
        weights(outcome)
    if len(members) > 1:
        numbers = {name: i + 1 for i, name in enumerate(names)}
        diversity(run, lab, members, numbers)
        contribution(lab, members)


def offered(run: View) -> list[str]:
    """The single models to build from, best first."""
    frame = run.board.frame
    return [str(name) for name in frame.loc[frame["kind"] == "single", "name"].head(MOST)]


@st.cache_resource(max_entries=4, show_spinner="Reading predictions…", hash_funcs={View: lambda run: run.key})
def laboratory(run: View) -> Laboratory:
    """The lab of a run, shared by everybody who opens it.

    Raises:
        StoreError, PredictionsError: predictions are missing or damaged.
    """
    with understood(run.store.path):
        names = offered(run)
        costs = {name: Cost(**cost) for name, cost in run.manifest.get("costs", {}).items()}
        return Laboratory(predictions(run, names), get_metric(run.metric), costs, read_groups(run.store))


def finding(outcome: Outcome, metric: str) -> str:
    """What the ensemble is worth, in a sentence."""
    gain = outcome.gain
    if gain.low > 0:
        verb = "Better than"
    elif gain.high < 0:
        verb = "Worse than"
    else:
        verb = "Cannot be told from"
    return (
        f"{verb} the best single model, {gain.second}: gain {number(gain.delta, sign=True)} {metric_name(metric)}, "
        f"95 % interval {span(gain.low, gain.high, sign=True)}."
    )


def combiner_words(key: str, fast: bool) -> str:
    """A combiner as it is chosen.

    >>> combiner_words("mean", True), combiner_words("boosting", False)
    ('Equal weights', 'boosting (slower)')
    """
    words = WORDS[key][0] if key in WORDS else key
    return words if fast else f"{words} (slower)"


def explanation(key: str) -> str:
    """What a combiner does, in a sentence or two."""
    if key in WORDS:
        return WORDS[key][1]
    return " ".join((COMBINERS[key].__doc__ or "").split("\n\n")[0].split()).replace("`", "")


def flattery(yardstick: Outcome, metric: str) -> str:
    """Why a score of weights that were set by hand is not to be trusted, with what fitting costs here as a measure."""
    fit, unit = yardstick.fit, metric_name(metric)
    return (
        "You set these weights while looking at the score, and no image was left out to check them: the score "
        f"flatters. How much that can be: the best weights for these members have {unit} {number(fit.in_sample)} on "
        f"the images they were fitted to, and {number(fit.score)} on images left out, a difference of "
        f"{number(fit.optimism, sign=True)}."
    )


# ---------------------------------------------------------------------- pieces


def _choose(lab: Laboratory) -> tuple[str, float | None]:
    """The combiner, and the latency budget where latencies are known."""
    left, right = st.columns([3, 2])
    combiner = left.selectbox(
        "How the answers are combined",
        lab.choices(),
        format_func=lambda key: combiner_words(key, lab.is_fast(key)),
        key=COMBINER,
        bind="query-params",
    )
    left.caption(plain(explanation(combiner)))
    if lab.cost(lab.predictions.members).latency_ms is None:
        right.caption("Latencies are not known here, so there is no budget to set.")
        return combiner, None
    budget = right.number_input(
        "Latency budget, ms an image",
        min_value=0.0,
        value=None,
        step=1.0,
        placeholder="none",
        key=BUDGET,
        bind="query-params",
    )
    right.caption("Members run one after another, so their times add up.")
    return combiner, budget


def _measured(lab: Laboratory, setup: Setup) -> Outcome | None:
    """The answer; None where there is none, which has been said then."""
    if not setup.members:
        st.info("Switch on one member at least.", icon=":material/toggle_on:")
        return None
    if setup.combiner == "weighted" and not any(setup.weights):
        st.info("All weights are 0. Give one member more than that.", icon=":material/tune:")
        return None
    try:
        place = st.empty()
        with st.spinner("Fitting…"):
            outcome = lab.measure(setup, _reported(place))
        place.empty()
    except CombinerError as error:
        st.error(plain(error), icon=":material/error:")
        return None
    return outcome


def _reported(place: DeltaGenerator) -> Callable[[int, int], None]:
    """Draws how far the fits are, where they take long enough to be looked at."""
    began = time.monotonic()

    def report(done: int, fits: int) -> None:
        if time.monotonic() - began > PATIENCE_S:
            place.progress(done / fits, f"Fitted {done} of {fits} times")

    return report


def _show(lab: Laboratory, setup: Setup, outcome: Outcome, budget: float | None) -> None:
    metric, fitted = lab.metric.name, setup.combiner != "weighted"
    st.markdown(f"**{plain(finding(outcome, metric))}**")
    score, gain, price, members = st.columns(4)
    with score.container(border=True, height="stretch"):
        st.metric(capital(metric_name(metric)), number(outcome.fit.score))
        lines(
            f"95 % interval {span(outcome.low, outcome.high)}",
            "Cross-fitted" if fitted else "Not cross-fitted",
        )
    with gain.container(border=True, height="stretch"):
        st.metric("Gain", number(outcome.gain.delta, sign=True))
        lines(
            "On the best single model, positive is better",
            f"p = {p_text(outcome.gain.p_value)}, of this comparison alone".replace("= <", "<"),
        )
    with price.container(border=True, height="stretch"):
        _price(lab, outcome, budget)
    with members.container(border=True, height="stretch"):
        st.metric("Members that count", f"{len(outcome.members)} of {len(setup.members)}")
        lines(f"Switched on: {len(setup.members)} of {lab.predictions.n_members}")
    _over_budget(outcome, budget)
    if not fitted:
        yardstick = lab.measure(Setup(setup.members, "convex"))
        st.warning(plain(flattery(yardstick, metric)), icon=":material/visibility:")
    how = (
        "Cross-fitted: each image is answered by a combination that was fitted without its fold. "
        if fitted
        else ""
    )
    st.caption(
        f"{capital(metric_words(metric))}, over all out-of-fold images; intervals from "
        f"{count(outcome.n_resamples, 'resample')}. {how}Which members are on is your choice, made while looking at "
        "scores: the best of many tries flatters itself."
    )


def _price(lab: Laboratory, outcome: Outcome, budget: float | None) -> None:
    spent, single = outcome.cost.latency_ms, lab.cost([lab.best_single]).latency_ms
    if spent is None:
        st.metric("Price", "unknown")
        lines("No latencies were measured in this run.")
        return
    st.metric("Price", f"{spent:.1f} ms")
    told = [f"{spent / single:.1f} × the best single model" if single else "an image, one at a time"]
    if budget is not None:
        told.append(
            f"Budget {budget:g} ms: " + ("kept" if spent <= budget else f"{spent - budget:.1f} ms over")
        )
    lines(*told)


def _over_budget(outcome: Outcome, budget: float | None) -> None:
    spent = outcome.cost.latency_ms
    if budget is None or spent is None or spent <= budget:
        return
    st.warning(
        f"{spent - budget:.1f} ms over the budget. Switch members off, or search for the best members that keep to it.",
        icon=":material/timer:",
    )
    st.button("Search within the budget", on_click=_search, icon=":material/search:")


def _search() -> None:
    st.session_state[COMBINER] = "constrained"
