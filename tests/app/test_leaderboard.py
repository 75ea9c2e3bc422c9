import json

import pytest
from streamlit.testing.v1 import AppTest

from ensembler.app.leaderboard import ORDERS
from ensembler.app.rows import rows_table
from ensembler.comparison import read_leaderboard
from ensembler.evaluation.leaderboard import Leaderboard


def table(app: AppTest):
    return app.dataframe[0].value


def test_verdict_comes_first_and_says_what_to_do(open_page, trained, said):
    verdict = read_leaderboard(trained).verdict
    app = open_page("leaderboard", trained)
    first, second = app.main.children[0].proto.body, app.main.children[1].proto.body
    assert first.startswith("<h2")
    assert f"Use the ensemble {verdict.winner}: it is better" in first
    assert verdict.sentence in said(app)
    assert "24.0 ms an image" in said(app), second


def test_contenders_stand_side_by_side_with_interval_and_price(open_page, trained, said):
    verdict = read_leaderboard(trained).verdict
    metrics = {m.label: m.value for m in open_page("leaderboard", trained).metric}
    assert metrics["Gain in log loss"] == f"{verdict.delta:+.4f}"
    assert metrics["Price"] == f"{verdict.price.latency_ratio:.1f} × latency"
    assert list(metrics) == ["Best single model", "Best ensemble", "Gain in log loss", "Price"]


def test_every_row_stands_in_the_table_with_its_interval_and_standing(open_page, trained):
    board = read_leaderboard(trained)
    shown = table(open_page("leaderboard", trained))
    assert list(shown["Name"]) == list(board.frame["name"])
    row = board.frame.iloc[0]
    assert shown["95 % interval"][0] == f"{row['cv_low']:.4f} to {row['cv_high']:.4f}"
    assert "recommended" in shown["Standing"][0]
    assert (shown["Interval of the gain"] == "best single model").sum() == 1
    assert "Test" not in shown, "a column that nothing fills is left out"


def test_ties_are_badged(trained):
    board = read_leaderboard(trained)
    board.frame["tied_with_best"] = [True, True, *[False] * (len(board.frame) - 2)]
    standing = rows_table(board.frame, board.verdict)["Standing"].tolist()
    assert [("tied" in badges) for badges in standing[:3]] == [True, True, False]


def test_filter_by_kind_and_backbone(open_page, trained):
    app = open_page("leaderboard", trained)
    app.button_group[0].set_value("Single models").run()
    assert {tuple(k) for k in table(app)["Kind"]} == {("single",)}
    app.multiselect[0].set_value(["test_convnext"]).run()
    assert list(table(app)["Backbone"]) == ["test_convnext"]
    app.button_group[0].set_value("Ensembles").run()
    members = table(app)["Members"]
    assert len(members) > 0
    assert members.str.contains("test_convnext").all(), "an ensemble has its members' backbones"


def test_a_filter_that_leaves_nothing_says_so(open_page, make_bare_run, tmp_path):
    store = make_bare_run(tmp_path / "two", members=["a", "b"])
    records = [r for r in store.leaderboard() if r["kind"] == "single"]
    store.write_leaderboard(records)
    app = open_page("leaderboard", store)
    app.button_group[0].set_value("Ensembles").run()
    assert "Widen the filter" in app.info[0].value
    assert not app.exception


@pytest.mark.parametrize("order", [o for o, (column, _) in ORDERS.items() if column])
def test_sort(open_page, trained, order):
    column, ascending = ORDERS[order]
    app = open_page("leaderboard", trained)
    app.selectbox[0].set_value(order).run()
    frame = read_leaderboard(trained).frame.sort_values(column, ascending=ascending, kind="stable")
    assert list(table(app)["Name"]) == list(frame["name"])


def test_failures_notes_and_skipped_images_are_told(open_page, trained, said):
    app = open_page("leaderboard", trained)
    assert (
        app.expander[0].label
        == "1 candidate failed or left out; 1 row with a note; 1 image skipped, not readable"
    )
    for detail in (
        "out of memory",
        "random weights: the hub is out of reach",
        "broken.jpg: cannot be decoded",
    ):
        assert detail in said(app)


def test_downloads_are_the_whole_leaderboard(open_page, trained):
    board = read_leaderboard(trained)
    app = open_page("leaderboard", trained)
    assert [b.label for b in app.get("download_button")] == ["CSV", "JSON", "LaTeX"]
    assert len(json.loads(board.to_json())) == len(table(app))


def test_a_run_without_ensembles_names_the_best_single_model(open_page, bare, said):
    records = [r for r in bare.leaderboard() if r["kind"] == "single"]
    bare.write_leaderboard(records)
    app = open_page("leaderboard", bare)
    assert "no ensemble was made" in said(app)
    assert [m.label for m in app.metric] == ["Best single model"]


def test_a_tie_recommends_the_single_model(open_page, bare, said):
    records = bare.leaderboard()
    for record in records:
        record["p_value"] = None if record["p_value"] is None else 0.9
    bare.write_leaderboard(records)
    assert "no ensemble is shown to be better" in said(open_page("leaderboard", bare))


def test_predictions_alone_have_no_price(open_page, bare, said):
    app = open_page("leaderboard", bare)
    assert {m.label: m.value for m in app.metric}["Price"] == "unknown"
    assert not {"Latency", "Parameters", "Training", "Backbone"} & set(table(app))
    assert "Predictions alone say nothing about latency" in said(app)


def test_one_bad_row_does_not_squeeze_the_others(open_page, bare, said):
    records = bare.leaderboard()
    records[-1] |= {"cv": 90.0, "cv_low": 80.0, "cv_high": 100.0}
    bare.write_leaderboard(records)
    assert "log scale" in said(open_page("leaderboard", bare))


def test_many_rows_are_all_in_the_table_and_the_first_are_drawn(open_page, bare, said):
    records = bare.leaderboard()
    records += [{**records[-1], "name": f"more {i}"} for i in range(200)]
    bare.write_leaderboard(Leaderboard.from_records(records).to_records())
    app = open_page("leaderboard", bare)
    assert len(table(app)) == len(records)
    assert f"The first 25 of {len(records)} rows" in said(app)
