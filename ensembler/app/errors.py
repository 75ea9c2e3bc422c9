"""The images: which of them the ensemble fixes, which it breaks, what all have wrong, and which labels are suspect."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from ..evaluation.labels import LabelIssue, label_issues
from ..figures import changes_figure, changes_frame, mistakes_frame, outcome_frame, votes_frame
from ..predictions import Predictions
from ..store import understood
from .charts import draw
from .gallery import Card, show
from .reading import View, predictions
from .thumbnails import has_images
from .wording import count, headline, lines, plain

#: Most models whose votes are shown, and most whose doubts make a label suspect.
VOTERS = 24
DOUBTERS = 50

#: Most classes that are drawn; the cards have all.
DRAWN = 20

FIXED, BROKEN, BOTH, SURE, SUSPECT = (
    "Fixed",
    "Broken",
    "Both wrong",
    "Most confident mistakes",
    "Suspect labels",
)

#: What each choice shows, in a sentence; {first} and {second} are rows.
MEANINGS = {
    FIXED: "{first} is right and {second} is wrong; first where it makes the greatest difference.",
    BROKEN: "{first} is wrong and {second} is right; first where it makes the greatest difference.",
    BOTH: "Neither {first} nor {second} is right; first where {first} is surest.",
    SURE: "All that {first} has wrong; first where it is surest. Wrong labels often come up here.",
    SUSPECT: "The single models, none of which has seen these labels in training, agree on another class.",
}


def page(run: View) -> None:
    """Draws the page."""
    top = st.container()
    first, second = _chosen(run)
    pair = predictions(run, list(dict.fromkeys((first, second))))
    outcomes = outcome_frame(pair, first, second)
    with top:
        headline(finding(outcomes, first, second))
    _counts(outcomes, run)
    kind, label = _filters(pair, alone=first == second)
    lines(MEANINGS[kind].format(first=first, second=second))
    found = suspects(run) if kind == SUSPECT else None
    if found is not None:
        table, cards = suspect_table(found, run), suspect_cards(found, pair, min(DOUBTERS, _n_singles(run)))
    else:
        table = shown_rows(outcomes, pair, kind, first)
        cards = row_cards(table, first, second)
    if label is not None:
        cards = [card for card, of in zip(cards, table["label"], strict=True) if of == label]
        table = table[table["label"] == label]
    _download(named_columns(table, first, second), run, kind)
    if cards:
        voters = predictions(run, voters_of(run, first, second))
        key = "\n".join([kind, label or "", first, second])
        show(run, cards, lambda rows: votes_frame(voters, rows), key)
    else:
        st.info("There is no such image." if label is None else "There is no such image of this class.")
    if first != second and kind in (FIXED, BROKEN, BOTH):
        _by_class(outcomes)


def finding(outcomes: pd.DataFrame, first: str, second: str) -> str:
    """What changes from the second row to the first, in a sentence; `outcomes` is of `figures.outcome_frame`."""
    n = outcomes["outcome"].value_counts()
    fixed, broken, both = (int(n.get(kind, 0)) for kind in ("fixed", "broken", "both wrong"))
    if first == second:
        return f"{first} has {both:,} of {count(len(outcomes), 'image')} wrong"
    mistakes = count(fixed + both, "mistake")
    return f"{first} fixes {fixed:,} of the {mistakes} of {second}, and breaks {count(broken, 'image')}"


def shown_rows(outcomes: pd.DataFrame, pair: Predictions, kind: str, first: str) -> pd.DataFrame:
    """The images of one kind, in the order in which they are worth a look."""
    if kind == SURE:
        return mistakes_frame(pair, first)
    part = outcomes[outcomes["outcome"] == kind.lower()]
    by = {FIXED: "gain", BROKEN: "gain", BOTH: "first_confidence"}[kind]
    return part.sort_values(by, ascending=kind == BROKEN, kind="stable").reset_index(drop=True)


def row_cards(rows: pd.DataFrame, first: str, second: str) -> list[Card]:
    """Cards of what `shown_rows` returns."""
    if "said" in rows:
        return [
            Card(row, name, label, (f"{first}: {said}, {sure:.0%}",))
            for row, name, label, said, sure in rows[
                ["row", "sample_id", "label", "said", "confidence"]
            ].itertuples(index=False)
        ]
    columns = ["row", "sample_id", "label", "first", "first_confidence", "second", "second_confidence"]
    return [
        Card(row, name, label, (f"{first}: {a}, {p:.0%}", f"{second}: {b}, {q:.0%}"))
        for row, name, label, a, p, b, q in rows[columns].itertuples(index=False)
    ]


def named_columns(rows: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """Rows as they are downloaded: by the names of the models, without positions."""
    names: dict[str, str] = {}
    for column, name in (("first", first), ("second", second), ("said", first)):
        names |= {column: f"says: {name}", f"{column}_confidence": f"confidence: {name}"}
    return rows.rename(columns=names).drop(columns="row", errors="ignore")


@st.cache_data(max_entries=8, show_spinner="Doubting labels…", hash_funcs={View: lambda run: run.key})
def suspects(run: View) -> list[LabelIssue]:
    """The labels that the best single models suspect together, most suspect first.

    Raises:
        StoreError, PredictionsError: predictions are missing or damaged.
    """
    singles = run.board.frame.loc[run.board.frame["kind"] == "single", "name"].head(DOUBTERS)
    return label_issues(predictions(run, [str(name) for name in singles]))


def suspect_table(found: list[LabelIssue], run: View) -> pd.DataFrame:
    """The suspect labels as they are downloaded, with the files where the run has any."""
    columns = ["sample_id", "label", "suggested", "self_confidence", "normalized_margin", "votes"]
    table = pd.DataFrame([vars(issue) for issue in found], columns=columns)
    if has_images(run):
        with understood(run.store.path):
            rows = run.store.table()
            paths = dict(zip(rows["id"], rows["path"], strict=True))
        table.insert(1, "path", [paths.get(name, "") for name in table["sample_id"]])
    return table


def suspect_cards(found: list[LabelIssue], oof: Predictions, n_models: int) -> list[Card]:
    """Cards of suspect labels."""
    position = {name: i for i, name in enumerate(oof.sample_ids.tolist())}
    return [
        Card(
            position[issue.sample_id],
            issue.sample_id,
            f"{issue.label}?",
            (
                f"Rather {issue.suggested}",
                f"Doubted by {issue.votes} of {count(n_models, 'model')}; "
                f"its label has a probability of {issue.self_confidence:.0%}",
            ),
            "agree with the label",
        )
        for issue in found
    ]


def voters_of(run: View, first: str, second: str) -> list[str]:
    """Whose votes are shown: both rows, then what the ensembles among them are made of."""
    made_of = run.board.frame.set_index("name")["members"]
    members = [str(m) for name in (first, second) for m in made_of[name] if str(m) in made_of.index]
    return list(dict.fromkeys([first, second, *members]))[:VOTERS]


# ---------------------------------------------------------------------- pieces


def _chosen(run: View) -> tuple[str, str]:
    verdict = run.board.verdict
    best = verdict.best_ensemble or verdict.winner
    other = verdict.best_single
    if other == best:
        other = next((name for name in run.rows if name != best), best)
    left, right = st.columns(2)
    first = left.selectbox("Row", run.rows, run.rows.index(best), key="model", bind="query-params")
    second = right.selectbox(
        "Held against", run.rows, run.rows.index(other), key="against", bind="query-params"
    )
    return str(first), str(second)


def _counts(outcomes: pd.DataFrame, run: View) -> None:
    n = outcomes["outcome"].value_counts()
    shown = [
        ("Both right", "both right"),
        (FIXED, "fixed"),
        (BROKEN, "broken"),
        (BOTH, "both wrong"),
    ]
    with st.container(horizontal=True):
        for title, outcome in shown:
            st.metric(title, f"{int(n.get(outcome, 0)):,}", border=True)
        st.metric(SUSPECT, f"{len(suspects(run)):,}", border=True)


def _filters(pair: Predictions, alone: bool) -> tuple[str, str | None]:
    kinds = [SURE, SUSPECT] if alone else [FIXED, BROKEN, BOTH, SURE, SUSPECT]
    kind = st.segmented_control(
        "Show", kinds, default=kinds[0], key="show", required=True, bind="query-params"
    )
    label = st.selectbox(
        "True class", list(pair.classes), None, key="class", placeholder="All classes", bind="query-params"
    )
    return str(kind or kinds[0]), label


def _download(table: pd.DataFrame, run: View, kind: str) -> None:
    name = f"{run.store.name}-{kind.lower().replace(' ', '-')}.csv"
    st.download_button(
        f"Download {count(len(table), 'image')} as CSV",
        table.to_csv(index=False),
        name,
        "text/csv",
        icon=":material/download:",
        on_click="ignore",
        disabled=table.empty,
    )


def _by_class(outcomes: pd.DataFrame) -> None:
    st.subheader("In which classes", anchor=False)
    frame = changes_frame(outcomes)
    changed = frame[(frame["fixed"] > 0) | (frame["broken"] > 0)]
    if changed.empty:
        st.info("Both rows are right and wrong on the same images.")
        return
    draw(changes_figure(changed.head(DRAWN)), "changes", "Fixed and broken images of each class")
    if len(changed) > DRAWN:
        st.caption(f"The {DRAWN} classes of {plain(len(changed))} in which most changes.")


def _n_singles(run: View) -> int:
    return int((run.board.frame["kind"] == "single").sum())
