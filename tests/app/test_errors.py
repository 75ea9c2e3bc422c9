import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ensembler.app.errors import (
    VOTERS,
    finding,
    named_columns,
    row_cards,
    shown_rows,
    suspect_cards,
    suspect_table,
    suspects,
    voters_of,
)
from ensembler.app.reading import predictions, view
from ensembler.comparison import combine, compare, start_bare_run
from ensembler.evaluation.labels import label_issues
from ensembler.figures import outcome_frame
from ensembler.predictions import Predictions
from ensembler.store import RunStore


def grid(app):
    bodies = [h.proto.body for h in app.get("html") if "display:grid" in h.proto.body]
    assert len(bodies) <= 1
    return bodies[0] if bodies else ""


def run_of(tmp_path, proba, labels, members, classes, ids=None):
    """A run of predictions alone."""
    source = tmp_path / "oof.npz"
    fold = 3 * np.arange(len(labels)) // len(labels)
    Predictions.from_arrays(proba, labels, fold, members=members, classes=classes, sample_ids=ids).save(
        source
    )
    store = RunStore(tmp_path / "runs" / "run")
    start_bare_run(store, source, "log_loss", [("mean", {})])
    compare(store, combine(store))
    return store


@pytest.fixture
def pair(trained):
    run = view(trained)
    first, second = run.board.verdict.best_ensemble, run.board.verdict.best_single
    return first, second, outcome_frame(predictions(run, [first, second]), first, second)


def test_the_ensemble_is_held_against_the_best_single_model_at_first(open_page, trained, pair, said):
    first, second, outcomes = pair
    app = open_page("errors", trained)
    assert [app.selectbox(key=k).value for k in ("model", "against")] == [first, second]
    counts = outcomes["outcome"].value_counts()
    assert {m.label: m.value for m in app.metric} == {
        "Both right": str(counts["both right"]),
        "Fixed": str(counts["fixed"]),
        "Broken": str(counts["broken"]),
        "Both wrong": str(counts["both wrong"]),
        "Suspect labels": str(len(suspects(view(trained)))),
    }
    assert finding(outcomes, first, second) in said(app)


def test_finding_counts_what_changes(pair):
    first, second, outcomes = pair
    n = outcomes["outcome"].value_counts()
    assert finding(outcomes, first, second) == (
        f"{first} fixes {n['fixed']} of the {n['fixed'] + n['both wrong']} mistakes of {second}, and breaks "
        f"{n['broken']} images"
    )
    one = outcomes.head(1).assign(outcome="broken")
    assert finding(one, "a", "b") == "a fixes 0 of the 0 mistakes of b, and breaks 1 image"
    assert finding(one.assign(outcome="both wrong"), "a", "a") == "a has 1 of 1 image wrong"


@pytest.mark.parametrize(
    ("kind", "column", "ascending"),
    [("Fixed", "gain", False), ("Broken", "gain", True), ("Both wrong", "first_confidence", False)],
)
def test_each_kind_shows_its_images_the_most_telling_first(kind, column, ascending, open_page, trained, pair):
    _, _, outcomes = pair
    wanted = outcomes[outcomes["outcome"] == kind.lower()].sort_values(
        column, ascending=ascending, kind="stable"
    )
    app = open_page("errors", trained)
    app.segmented_control(key="show").set_value(kind).run()
    assert not app.exception
    body = grid(app)
    shown = [body.index(f"<bdi>{name}</bdi>") for name in wanted["sample_id"].head(24)]
    assert shown == sorted(shown)
    assert body.count("<figure") == min(24, len(wanted))


def test_the_surest_mistakes_come_first(trained, pair):
    first, second, outcomes = pair
    both = predictions(view(trained), [first, second])
    rows = shown_rows(outcomes, both, "Most confident mistakes", first)
    assert len(rows) == outcomes["outcome"].isin(["broken", "both wrong"]).sum()
    assert rows["confidence"].is_monotonic_decreasing
    card = row_cards(rows, first, second)[0]
    assert card.title == rows["label"][0]
    assert card.lines == (f"{first}: {rows['said'][0]}, {rows['confidence'][0]:.0%}",)


def test_what_is_downloaded_names_the_models(pair):
    first, second, outcomes = pair
    table = named_columns(outcomes, first, second)
    assert list(table) == [
        "sample_id", "label", f"says: {first}", f"confidence: {first}", f"says: {second}", f"confidence: {second}",
        "gain", "outcome",
    ]  # fmt: skip


@pytest.fixture
def sixty(tmp_path):
    """A run of 80 images, of which one model is wrong on 60."""
    labels = np.tile([0, 1], 40)
    good = 0.8 * np.eye(2)[labels] + 0.1
    bad = good.copy()
    bad[:60] = bad[:60, ::-1]
    return run_of(tmp_path, np.stack([good, bad]), labels, ["good", "bad"], ["a", "b"])


def test_pages_hold_24_images_and_other_images_begin_at_the_first(sixty, open_page, said):
    app = open_page("errors", sixty)
    app.selectbox(key="model").set_value("good")
    app.selectbox(key="against").set_value("bad").run()
    assert app.get("pagination")[0].proto.num_pages == 3
    assert grid(app).count("<figure") == 24
    assert "Images 1 to 24 of 60." in said(app)
    app.session_state["page"] = 3
    app.run()
    assert not app.exception
    assert "Images 49 to 60 of 60." in said(app)
    assert "<div>49. <b>" in grid(app)
    app.selectbox(key="class").set_value("a").run()
    assert "Images 1 to 24 of 30." in said(app)
    assert grid(app).count(". <b><bdi>a</bdi></b>") == 24


def test_the_number_of_a_page_is_in_the_url(sixty, open_page, said):
    app = open_page("errors", sixty, model="good", against="bad", page="3")
    assert "Images 49 to 60 of 60." in said(app)
    app.session_state["page"] = 9  # of a run that has fewer images by now
    app.run()
    assert not app.exception
    assert "Images 1 to 24 of 60." in said(app)
    beyond = open_page("errors", sixty, model="good", against="bad", page="9")
    assert not beyond.exception
    assert "Images 1 to 24 of 60." in said(beyond)


def test_every_member_votes_on_each_image(open_page, trained, pair):
    first, second, _ = pair
    run = view(trained)
    voters = voters_of(run, first, second)
    assert voters[:2] == [first, second]
    assert set(voters) == {
        first,
        *[n for n in run.rows if run.board.frame.set_index("name")["kind"][n] == "single"],
    }
    assert len(voters) <= VOTERS
    body = grid(open_page("errors", trained))
    card = body.split("<figure")[1]
    assert f"of {len(voters)} models right</summary>" in card
    assert all(f"<bdi>{name}</bdi>: " in card for name in voters)


def test_pictures_are_shown_where_the_files_are_and_a_reason_where_not(
    open_page, trained, pair, tmp_path, said
):
    _, _, outcomes = pair
    fixed = (
        outcomes[outcomes["outcome"] == "fixed"]
        .sort_values("gain", ascending=False, kind="stable")["row"]
        .to_numpy()
    )
    table = trained.table()
    table["path"] = str(tmp_path / "gone.png")
    Image.new("RGB", (30, 20), "red").save(tmp_path / "<script>.png")
    table.loc[fixed[0], "path"] = str(tmp_path / "<script>.png")
    trained.write_table(table)
    app = open_page("errors", trained)
    body = grid(app)
    assert body.count("<img ") == 1
    assert "<script" not in body
    shown = body.count("<figure")
    assert f"{shown - 1} of {shown} pictures cannot be shown" in said(app)
    assert "gone.png: the file is missing" in body


def test_a_run_of_predictions_alone_shows_names_instead(open_page, bare, said):
    app = open_page("errors", bare)
    assert "This run was made from predictions alone" in said(app)
    body = grid(app)
    assert "<img" not in body
    assert "No picture" not in body
    assert "<script" not in body
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in body


def test_one_row_held_against_itself_has_mistakes_alone(open_page, trained, pair, said):
    first, _, outcomes = pair
    app = open_page("errors", trained)
    app.selectbox(key="against").set_value(first).run()
    assert not app.exception
    wrong = outcomes["outcome"].isin(["broken", "both wrong"]).sum()
    assert f"{first} has {wrong} of 240 images wrong" in said(app)
    assert app.segmented_control(key="show").options == ["Most confident mistakes", "Suspect labels"]


def test_a_class_without_such_an_image_is_said_to_have_none(tmp_path, open_page, said):
    labels = np.tile([0, 1], 30)
    good = 0.8 * np.eye(2)[labels] + 0.1
    bad = good.copy()
    bad[::10] = bad[::10, ::-1]  # wrong on some images of the first class alone
    store = run_of(tmp_path, np.stack([good, bad]), labels, ["good", "bad"], ["a", "b"])
    app = open_page("errors", store)
    app.selectbox(key="model").set_value("good")
    app.selectbox(key="against").set_value("bad").run()
    assert grid(app).count("<figure") == 6
    app.selectbox(key="class").set_value("b").run()
    assert not app.exception
    assert app.info[0].value == "There is no such image of this class."
    app.selectbox(key="class").set_value(None)
    app.segmented_control(key="show").set_value("Broken").run()
    assert app.info[0].value == "There is no such image."


# ---------------------------------------------------------------------- suspect labels


@pytest.fixture
def mislabelled(tmp_path):
    """Two labels of 90 are wrong, and both models say so."""
    truth = np.tile([0, 1, 2], 30)
    labels = truth.copy()
    labels[[7, 40]] = (truth[[7, 40]] + 1) % 3
    proba = np.stack([0.8 * np.eye(3)[truth] + 0.2 / 3] * 2)
    ids = [f"{i}\n<script>,=1+1.png" for i in range(90)]
    return run_of(tmp_path, proba, labels, ["m", "n"], ["a", "b", "c"], ids)


def test_wrong_labels_are_found_and_shown(mislabelled, open_page, said):
    run = view(mislabelled)
    found = suspects(run)
    assert {issue.sample_id.split("\n")[0] for issue in found} == {"7", "40"}
    assert [i.sample_id for i in found] == [i.sample_id for i in label_issues(predictions(run, ["m", "n"]))]
    app = open_page("errors", mislabelled)
    app.segmented_control(key="show").set_value("Suspect labels").run()
    assert not app.exception
    body = grid(app)
    assert body.count("<figure") == 2
    assert "Doubted by 2 of 2 models" in body
    assert "<script" not in body
    assert "\\n&lt;script&gt;" in body, "a line break is shown, not made"


def test_cards_of_suspects_stand_for_the_right_rows(mislabelled):
    run = view(mislabelled)
    oof = predictions(run, ["m"])
    for card in suspect_cards(suspects(run), oof, 2):
        assert oof.sample_ids[card.row] == card.sample_id
        assert card.title == f"{oof.classes[oof.labels[card.row]]}?"
        assert card.lines[0] == f"Rather {oof.classes[oof.proba[0, card.row].argmax()]}"


def test_suspects_are_downloaded_with_their_files(trained, mislabelled):
    run = view(mislabelled)
    table = pd.read_csv(io.StringIO(suspect_table(suspects(run), run).to_csv(index=False)))
    assert table["sample_id"].tolist() == [issue.sample_id for issue in suspects(run)]
    assert list(table) == ["sample_id", "label", "suggested", "self_confidence", "normalized_margin", "votes"]
    run = view(trained)
    sure = predictions(run, run.rows).proba.min(axis=0)  # what all rows give to each class
    rows = trained.table().assign(path=[f"/data/{i}.png" for i in range(len(sure))])
    surest = int(sure.max(axis=1).argmax())
    rows.loc[surest, "label"] = next(c for c in run.manifest["classes"] if c != rows["label"][surest])
    trained.write_table(rows)
    run = view(trained)
    table = suspect_table(suspects(run), run)
    assert f"i{surest}" in table["sample_id"].tolist()
    assert table["path"].tolist() == [f"/data/{name[1:]}.png" for name in table["sample_id"]]
