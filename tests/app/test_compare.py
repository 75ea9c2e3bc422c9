import numpy as np
import pytest

from ensembler.app.compare import (
    ALL,
    class_table,
    finding,
    fold_table,
    group_finding,
    group_table,
    mcnemar_table,
)
from ensembler.app.confusion import cell_rows, clicked
from ensembler.app.reading import predictions, view
from ensembler.comparison import read_leaderboard
from ensembler.evaluation.hypothesis_tests import mcnemar_of
from ensembler.figures import class_figure, class_frame, difference_figure, difference_frame
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions


def test_best_single_and_best_ensemble_are_compared_at_first(open_page, trained, said):
    verdict = read_leaderboard(trained).verdict
    app = open_page("compare", trained)
    assert app.multiselect[0].value == [verdict.best_single, verdict.best_ensemble]
    assert f"{verdict.best_ensemble} is better than {verdict.best_single}: gain {verdict.delta:+.4f}" in said(
        app
    )


def test_the_difference_is_the_leaderboards(trained):
    run = view(trained)
    row = run.board.frame.set_index("name").loc[run.board.verdict.best_ensemble]
    names = [run.board.verdict.best_single, run.board.verdict.best_ensemble]
    found = difference_frame(predictions(run, names), METRICS["log_loss"], names[0]).iloc[0]
    expected = [row["delta_best_single"], row["delta_low"], row["delta_high"]]
    assert [found["delta"], found["low"], found["high"]] == pytest.approx(expected)


def test_rows_can_be_exchanged_and_added(open_page, trained, said):
    names = list(read_leaderboard(trained).frame["name"])
    app = open_page("compare", trained)
    app.multiselect[0].set_value(names[::-1]).run()
    assert not app.exception
    assert list(app.dataframe[0].value["Name"]) == names[::-1]
    assert len([p for p in app.get("plotly_chart") if "confusion" in p.key]) == len(names)
    app.multiselect[0].set_value(names[:1]).run()
    assert app.info[0].value == "Choose at least two rows."


def test_finding_tells_better_worse_and_undecided():
    row = {"name": "a", "reference": "b", "delta": 0.2, "low": 0.1, "high": 0.3, "p_value": 0.0001}
    assert finding(row, "log_loss") == (
        "a is better than b: gain +0.2000 log loss, 95 % interval +0.1000 to +0.3000, p < 0.001."
    )
    assert "is worse than" in finding(row | {"low": -0.3, "high": -0.1}, "log_loss")
    assert "cannot be told from" in finding(row | {"low": -0.1, "p_value": 0.4}, "log_loss")


def test_folds_are_the_leaderboards(trained):
    run = view(trained)
    table = fold_table(run, run.rows[:2])
    assert list(table.columns) == ["Name", "Fold 1", "Fold 2", "Fold 3", "Mean", "Std"]
    scores = run.board.frame["fold_scores"][0]
    assert table.iloc[0]["Mean"] == pytest.approx(np.mean(scores))
    assert table.iloc[0]["Std"] == pytest.approx(np.std(scores, ddof=1))


@pytest.fixture
def oof():
    labels = [0, 0, 0, 0, 1, 1]
    good, bad = [0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0]
    proba = np.stack([0.8 * np.eye(3)[c] + 0.2 / 3 for c in (good, bad)])
    return Predictions.from_arrays(
        proba, labels, [0, 0, 1, 1, 0, 1], members=["good", "b<i>d"], classes=["x", "<b>y</b>", "none"]
    )


def test_class_frame_counts_what_is_found_and_what_is_right(oof):
    frame = class_frame(oof).set_index(["member", "label"])
    assert frame.loc[("good", "x"), ["count", "recall", "precision"]].tolist() == [4, 0.75, 1.0]
    assert frame.loc[("good", "<b>y</b>"), ["count", "recall"]].tolist() == [2, 1.0]
    assert frame.loc[("good", "<b>y</b>"), "precision"] == pytest.approx(2 / 3)
    assert np.isnan(frame.loc[("b<i>d", "none"), "recall"]), "a class without images has no recall"
    assert np.isnan(frame.loc[("b<i>d", "<b>y</b>"), "precision"]), "nothing is taken for it"
    figure = class_figure(class_frame(oof))
    assert [t.name for t in figure.data] == ["good", "b&lt;i&gt;d"]
    assert list(figure.data[0].y) == ["x", "&lt;b&gt;y&lt;/b&gt;", "none"]


def test_classes_that_differ_most_come_first(oof):
    table = class_table(oof, "good", ["b<i>d"])
    assert list(table["label"]) == ["<b>y</b>", "x", "none"]
    assert table["recall: good"][0] == 100


def test_difference_frame_is_paired_and_holds_out_its_reference(oof):
    frame = difference_frame(oof, METRICS["accuracy"], "b<i>d", n_boot=200)
    assert list(frame["name"]) == ["good"]
    assert frame["delta"][0] == pytest.approx(5 / 6 - 4 / 6)
    assert frame["low"][0] <= frame["delta"][0] <= frame["high"][0]
    same = difference_frame(
        oof.select(["good"]).with_proba(oof.proba[[0, 0]], ["a", "b"]), METRICS["log_loss"], "a"
    )
    assert same[["delta", "low", "high", "p_value"]].iloc[0].tolist() == [0, 0, 0, 1]
    figure = difference_figure(frame)
    assert figure.data[0].x[0] + figure.data[0].error_x.array[0] == pytest.approx(frame["high"][0])
    assert figure.layout.title.text == "Gain on b&lt;i&gt;d"


def test_rows_of_a_group_are_resampled_together(oof):
    grouped = difference_frame(oof, METRICS["accuracy"], "b<i>d", groups=["g"] * 6, n_boot=50)
    assert grouped["low"][0] == pytest.approx(grouped["high"][0]), "one group: every resample is the same"


def test_images_of_a_group_count_as_on_the_leaderboard(open_page, trained, said):
    table = trained.table()
    trained.write_table(table.assign(group=[f"g{i % 40}" for i in range(len(table))]))
    (trained.path / "leaderboard.parquet").unlink()
    row = read_leaderboard(trained).verdict
    app = open_page("compare", trained)
    assert f"95 % interval {row.low:+.4f} to {row.high:+.4f}" in said(app)


# ---------------------------------------------------------------------- who is right, group by group


def test_mcnemar_counts_who_alone_is_right(oof):
    row = mcnemar_table(oof.select(["b<i>d", "good"])).iloc[0]
    assert row["Name"] == "good"
    assert row[["Both right", "Only it is right", "Only b<i>d is right", "Both wrong"]].tolist() == [
        3,
        2,
        1,
        0,
    ]
    assert row["p"] == f"{mcnemar_of(oof, 'good', 'b<i>d').p_value:.3f}"
    assert row["Test"] == "exact"


def test_groups_that_differ_most_come_first(oof):
    table = group_table(oof.select(["b<i>d", "good"]), np.array(list("aaabbb")))
    assert table["group"].tolist() == ["b", "a"]
    assert table["images"].tolist() == [3, 3]
    assert table["right: b<i>d"].to_list() == pytest.approx([100 / 3, 100])
    assert table["right: good"].to_list() == pytest.approx([200 / 3, 100])
    assert group_finding(table, "b<i>d", "good") == (
        "Of 2 groups, good has more right than b<i>d in 1, fewer in 0, and as many in 1."
    )


def test_groups_are_shown_where_the_images_have_any(open_page, trained, said):
    assert "Group by group" not in said(open_page("compare", trained))
    table = trained.table()
    trained.write_table(table.assign(group=[f"<script>{i % 40}" for i in range(len(table))]))
    app = open_page("compare", trained)
    assert "Group by group" in said(app)
    groups = next(d.value for d in app.dataframe if "group" in d.value)
    assert len(groups) == 40
    assert groups["images"].sum() == len(table)


# ---------------------------------------------------------------------- confusion, and its images


def test_a_click_names_the_cell():
    classes = ["a", "b", "c"]
    assert clicked({"points": [{"point_index": 5}]}, classes) == ("b", "c")
    assert clicked({"points": [{"point_index": 0}]}, classes) == ("a", "a")
    for nothing in (
        {},
        {"points": []},
        {"points": [{"point_index": 9}]},
        {"points": [{"point_index": None}]},
    ):
        assert clicked(nothing, classes) is None


def test_the_images_of_a_cell_are_those_that_the_matrix_counts(oof):
    assert cell_rows(oof, "good", "x", "<b>y</b>").tolist() == [3]
    assert cell_rows(oof, "good", "x", "none").tolist() == []
    sure = oof.with_proba(np.array([[[0.6, 0.2, 0.2]] * 3 + [[0.9, 0.1, 0.0]] * 3]), ["m"])
    assert cell_rows(sure, "m", "x", "x").tolist() == [3, 0, 1, 2], "the surest first"


def test_a_chosen_cell_opens_its_images(open_page, bare, said):
    app = open_page("compare", bare)
    verdict = read_leaderboard(bare).verdict
    rows = [verdict.best_single, verdict.best_ensemble]
    oof = predictions(view(bare), rows)
    assert not app.get("html")[-1].proto.body.startswith('<div style="display:grid')
    label, taken = oof.classes[2], oof.classes[0]  # the first of them is a script
    app.selectbox(key="true").set_value(label)
    app.selectbox(key="taken").set_value(taken).run()
    assert not app.exception
    found = cell_rows(oof, rows[1], label, taken)
    assert len(found)
    text = said(app).replace("\\", "")
    assert f"{rows[1]} takes {len(found)} image" in text
    body = next(h.proto.body for h in app.get("html") if "display:grid" in h.proto.body)
    assert body.count("<figure") == min(24, len(found))
    assert "<script" not in body
    app.selectbox(key="of").set_value(rows[0]).run()
    assert f"{rows[0]} takes {len(cell_rows(oof, rows[0], label, taken))} image" in said(app).replace(
        "\\", ""
    )


def test_a_row_that_is_no_longer_compared_does_not_stay_chosen(open_page, trained):
    names = list(read_leaderboard(trained).frame["name"])
    app = open_page("compare", trained)
    app.multiselect[0].set_value(names[:3]).run()
    app.selectbox(key="of").set_value(names[2]).run()
    app.multiselect[0].set_value(names[:2]).run()
    assert not app.exception
    assert app.selectbox(key="of").value == names[1]


def test_with_many_classes_those_are_drawn_that_are_confused_most(make_bare_run, tmp_path, open_page, said):
    classes = [f"c{i:02}" for i in range(45)]
    store = make_bare_run(tmp_path / "runs" / "many", members=("one", "two"), classes=classes)
    app = open_page("compare", store)
    assert "The 40 of 45 classes that are confused most." in said(app)


# ---------------------------------------------------------------------- ROC, precision and recall


def test_curves_are_of_all_classes_or_one(open_page, trained, said):
    app = open_page("compare", trained)
    assert app.selectbox(key="class").options == [ALL, *view(trained).manifest["classes"]]
    figures = {p.key: p for p in app.get("plotly_chart") if p.key in ("roc", "precision recall")}
    before = {key: p.proto.spec for key, p in figures.items()}
    app.selectbox(key="class").set_value("cat").run()
    assert not app.exception
    after = {p.key: p.proto.spec for p in app.get("plotly_chart") if p.key in before}
    assert all(after[key] != before[key] for key in before)


def test_two_classes_have_no_average(make_bare_run, tmp_path, open_page):
    store = make_bare_run(tmp_path / "runs" / "two", members=("one", "two"), classes=("no", "yes"))
    assert open_page("compare", store).selectbox(key="class").options == ["yes", "no"]
