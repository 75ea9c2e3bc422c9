"""A plan in words and as a table."""

from __future__ import annotations

import pandas as pd

from ..planning import Plan
from .wording import count, listed

#: What each step is called in front of people, and what it does.
STEPS = {
    "screen": ("Screening", "a head on the frozen features of each backbone"),
    "search": ("Searching recipes", "trials on the first fold"),
    "crossval": ("Cross-validating", "the best candidates on all folds"),
    "boosted": ("Boosting backbones", "each on the errors of those before"),
    "collapse": ("Collapsing folds", "one network in place of the fold models"),
    "combine": ("Combining and comparing", "ensembles, intervals, the test split"),
}


def plan_words(plan: Plan) -> list[str]:
    """The plan in a few lines, the first one for those who read no further."""
    planned = count(plan.trainings, "training")
    trained = planned + (" at most" if plan.budget is None else " if there is time for all")
    return [f"{_time_words(plan)} {trained}, {plan.workers:,} at a time.", *_reasons(plan)]


def _time_words(plan: Plan) -> str:
    if plan.budget is not None:
        return f"It takes {roughly(plan.budget)}, the budget that it is given;"
    if plan.seconds is None:
        return "How long it takes is unknown;"
    return f"It takes about {roughly(plan.seconds)};"


def _reasons(plan: Plan) -> list[str]:
    images = "an unknown number of" if plan.images is None else f"{plan.images:,}"
    said = [f"It trains on {images} images in {plan.folds} folds."]
    if plan.budget is not None:
        said.append("Within the budget more is tried where there is time, and less where there is not.")
        if plan.seconds is not None:
            said.append(f"Without a budget this would take about {roughly(plan.seconds)}.")
    if plan.unknown:
        said.append(
            f"Nobody has trained {listed(plan.unknown)} on this machine yet, so their speed is unknown: after a first "
            "run in this folder it is known."
        )
    if plan.speeds and not plan.unknown:
        runs = list(dict.fromkeys(speed.run for speed in plan.speeds.values()))
        said.append(f"The time is estimated from how fast {listed(runs, 3)} trained on this machine.")
    return said


def plan_table(plan: Plan) -> pd.DataFrame:
    """One row a step: Step, Time, Trainings, Epochs of each, Candidates, What; a dash where there is nothing."""
    return pd.DataFrame(
        [
            {
                "Step": STEPS[step.name][0],
                "Time": "unknown" if step.seconds is None else roughly(step.seconds),
                "Trainings": _number(step.trainings),
                "Epochs of each": _number(step.epochs),
                "Candidates": _number(step.candidates),
                "What": STEPS[step.name][1],
            }
            for step in plan.steps
        ]
    )


def _number(value: int) -> str:
    return f"{value:,}" if value else "–"


def roughly(seconds: float) -> str:
    """A time that is only estimated: rounded to two digits at most.

    >>> roughly(43), roughly(312), roughly(7700)
    ('40 s', '5 min', '2.1 h')
    """
    if seconds < 90:
        return f"{max(10, 10 * round(seconds / 10))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36_000 else f"{round(seconds / 3600)} h"
