import json

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from ensembler.app.leaderboard import ORDERS
from ensembler.app.rows import Scale, differing, drawn_interval, rows_table, scale_of
from ensembler.comparison import read_leaderboard
from ensembler.evaluation.leaderboard import Leaderboard


def table(app: AppTest):
    return app.dataframe[0].value


def test_one_line_says_what_to_use(open_page, trained, said):
    verdict = read_leaderboard(trained).verdict
    assert f"Use the ensemble {verdict.winner}: it is better" in said(open_page("leaderboard", trained))


def test_every_row_stands_in_the_table_with_its_interval_and_standing(open_page, trained):
    board = read_leaderboard(trained)
    shown = table(open_page("leaderboard", trained))
    assert list(shown["Name"]) == list(board.frame["name"])
    row = board.frame.iloc[0]
    assert shown["95 % interval"][0] == f"{row['cv_low']:.4f} to {row['cv_high']:.4f}"
    assert "recommended" in shown["Standing"][0]
    assert (shown["Interval of the gain"] == "best single model").sum() == 1
    assert shown["Interval"].str.startswith("data:image/svg+xml;utf8,<svg ").all()
    assert "Test" not in shown, "a column that nothing fills is left out"


def test_ties_are_badged(trained):
    board = read_leaderboard(trained)
    board.frame["tied_with_best"] = [True, True, *[False] * (len(board.frame) - 2)]
    standing = rows_table(board.frame, board.verdict, Scale(0, 1))["Standing"].tolist()
    assert [("tied" in badges) for badges in standing[:3]] == [True, True, False]


def test_filter_by_kind_and_backbone(open_page, trained):
    app = open_page("leaderboard", trained)
    app.button_group[0].set_value("Single models").run()
    assert {tuple(k) for k in table(app)["Kind"]} == {("single",)}
    app.multiselect[0].set_value(["test_convnext"]).run()
    assert all(name.startswith("test_convnext") for name in table(app)["Name"])
    assert len(table(app)) == 1
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


def test_downloads_are_the_whole_leaderboard(open_page, trained):
    board = read_leaderboard(trained)
    app = open_page("leaderboard", trained)
    assert [b.label for b in app.get("download_button")] == ["CSV", "JSON", "LaTeX"]
    assert len(json.loads(board.to_json())) == len(table(app))


def test_predictions_alone_have_no_columns_of_cost(open_page, bare):
    assert not {"Latency", "Parameters", "Training", "Backbone"} & set(table(open_page("leaderboard", bare)))


def columns_of(app):
    return next(group for group in app.button_group if group.label == "Columns to show")


def test_columns_are_chosen_and_the_name_stays(open_page, trained):
    app = open_page("leaderboard", trained)
    assert {"Score", "Interval", "Standing"} <= set(table(app))
    assert "Training" not in table(app), "not of the first columns"
    columns_of(app).set_value(["Training", "Backbone"]).run()
    assert list(table(app)) == ["Name", "Training", "Backbone"]
    columns_of(app).set_value([]).run()
    assert list(table(app)) == ["Name"]


def test_only_the_settings_that_differ(open_page, trained):
    app = open_page("leaderboard", trained)
    app.toggle[0].set_value(True).run()
    shown = table(app).set_index("Name")
    assert list(shown)[:4] == ["Kind", "Standing", "Score", "Interval"]
    added = list(shown)[4 : list(shown).index("95 % interval")]
    assert {"backbone", "lr"} <= set(added)
    assert not {"strategy", "epochs", "weights"} & set(added), "the same for all"
    other = next(c for c in trained.candidates() if c.recipe.lr == 0.5)
    assert shown.loc[other.name, "lr"] == 0.5
    assert shown.loc[other.name, "backbone"] == "test_resnet"
    assert shown.loc[read_leaderboard(trained).verdict.best_ensemble, ["backbone", "lr"]].isna().all()


def test_differing_settings_keep_numbers_and_say_the_rest_in_words(trained):
    candidates = trained.manifest()["candidates"]
    candidates[0]["recipe"]["flip"] = False
    frame = differing(candidates)
    assert frame["lr"].dtype == "float64"
    assert sorted(frame["flip"]) == ["False", "True", "True"]
    assert differing(candidates[:1]).empty


def test_an_interval_is_drawn_where_it_lies():
    scale = Scale(0.0, 1.0, reference=0.5)
    single, ensemble = (drawn_interval(0.25, 0.5, 0.75, kind, scale) for kind in ("single", "ensemble"))
    assert "<circle cx='75.0'" in single
    assert "circle" not in ensemble
    assert "d='M40.5 14H109.5'" in single
    assert "d='M40.5 14H109.5'" in ensemble
    assert "#" not in single, "it would end the address"
    assert drawn_interval(float("nan"), 0.5, 0.7, "single", scale) == ""


def test_what_lies_beyond_the_scale_ends_in_an_arrow():
    scale = Scale(0.0, 1.0)
    right, left = (drawn_interval(s - 0.1, s, s + 0.1, "single", scale) for s in (2.0, -1.0))
    assert "circle" not in right + left
    assert "M150 14L141" in right
    assert "M0 14L9" in left


@pytest.mark.parametrize(("metric", "low", "high"), [("log_loss", -0.5, 4.5), ("accuracy", 4.5, 9.5)])
def test_the_scale_is_that_of_the_better_half(bare, metric, low, high):
    scores = pd.Series(range(10), dtype="float64")
    frame = pd.DataFrame({"name": "x", "cv": scores, "cv_low": scores - 0.5, "cv_high": scores + 0.5})
    found = scale_of(frame, metric, read_leaderboard(bare).verdict)
    assert (found.low, found.high) == (low, high)
    assert found.reference is None, "no such row"


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
