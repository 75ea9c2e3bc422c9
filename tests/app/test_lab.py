import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from ensembler.app import lab_insight, lab_members
from ensembler.app.lab import combiner_words, explanation, finding, flattery, laboratory, offered
from ensembler.app.reading import view
from ensembler.combiners import COMBINERS
from ensembler.comparison import read_leaderboard
from ensembler.evaluation.contribution import Contribution, Contributions
from ensembler.figures import (
    contribution_figure,
    contribution_frame,
    diversity_figure,
    diversity_frame,
    weights_figure,
    weights_frame,
)
from ensembler.laboratory import Setup
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions
from ensembler.saving import save_ensemble


@pytest.fixture
def page(open_page, trained):
    return open_page("lab", trained)


def switches(app):
    return {toggle.key.removeprefix("on-"): toggle for toggle in app.toggle}


def numbers(app):
    return {metric.label: metric.value for metric in app.metric}


def choose(app, combiner):
    app.selectbox(key="combiner").set_value(combiner).run()
    assert not app.exception
    return app


def saved(store):
    return [name for name, _ in store.manifest().get("saved_ensembles", [])]


def test_it_begins_with_the_mean_of_all_and_says_the_leaderboards_numbers(page, trained, said):
    row = read_leaderboard(trained).frame.set_index("name").loc["mean"]
    assert all(toggle.value for toggle in switches(page).values())
    assert numbers(page) == {
        "Log loss": f"{row['cv']:.4f}",
        "Gain": f"{row['delta_best_single']:+.4f}",
        "Price": f"{row['latency_ms']:.1f} ms",
        "Members that count": "3 of 3",
    }
    assert f"95 % interval {row['cv_low']:.4f} to {row['cv_high']:.4f}" in said(page)
    assert "6.0 × the best single model" in said(page)


def test_a_member_that_is_switched_off_is_out_of_score_and_price(page, trained):
    lab = laboratory(view(trained))
    worst = lab.predictions.members[-1]
    before = numbers(page)
    switches(page)[worst].set_value(False).run()
    after = numbers(page)
    expected = lab.measure(Setup(lab.predictions.members[:-1], "mean"))
    assert after["Log loss"] == f"{expected.fit.score:.4f}" != before["Log loss"]
    assert after["Price"] == f"{expected.cost.latency_ms:.1f} ms"
    assert after["Members that count"] == "2 of 2"


def test_no_member_and_no_weight_say_what_to_do(page):
    for toggle in switches(page).values():
        toggle.set_value(False)
    page.run()
    assert page.info[0].value == "Switch on one member at least."
    assert not page.metric
    page.button[0].click().run()  # "All on"
    assert numbers(page)["Members that count"] == "3 of 3"
    choose(page, "weighted")
    for slider in page.slider:
        slider.set_value(0)
    page.run()
    assert "All weights are 0" in page.info[0].value
    assert not page.exception


def test_own_weights_count_by_their_ratio_and_are_told_to_flatter(page, trained, said):
    choose(page, "weighted")
    lab = laboratory(view(trained))
    names = lab.predictions.members
    for slider, weight in zip(page.slider, (90, 30, 0), strict=True):
        slider.set_value(weight)
    page.run()
    proba = 0.75 * lab.predictions.proba[0] + 0.25 * lab.predictions.proba[1]
    assert numbers(page)["Log loss"] == f"{METRICS['log_loss'](lab.predictions.labels, proba):.4f}"
    assert numbers(page)["Members that count"] == "2 of 3"
    assert "Not cross-fitted" in said(page)
    convex = lab.measure(Setup(names, "convex")).fit
    told = (
        f"{convex.in_sample:.4f} on the images they were fitted to, and {convex.score:.4f} on images left out"
    )
    assert told in said(page).replace("\\", "")


def test_the_best_weights_can_be_taken_over(page, trained):
    choose(page, "weighted")
    button = next(b for b in page.button if b.label == "Those of the best weights")
    button.click().run()
    lab = laboratory(view(trained))
    best = lab.measure(Setup(lab.predictions.members, "convex"))
    assert [name for name, toggle in switches(page).items() if toggle.value] == [
        name for name in lab.predictions.members if name in best.members
    ]
    expected = lab_members.in_hundreds(best.weights)
    assert {s.key.removeprefix("weight-"): s.value for s in page.slider} == expected
    assert float(numbers(page)["Log loss"]) == pytest.approx(best.fit.in_sample, abs=1e-3)


@pytest.mark.parametrize("combiner", ["greedy", "convex", "stacking", "calibrated"])
def test_combiners_are_cross_fitted(page, trained, combiner):
    choose(page, combiner)
    lab = laboratory(view(trained))
    expected = lab.measure(Setup(lab.predictions.members, combiner))
    assert numbers(page)["Log loss"] == f"{expected.fit.score:.4f}"


def test_over_the_budget_a_search_under_it_is_offered(page, trained, said):
    page.number_input(key="budget").set_value(10.0).run()
    assert "Budget 10 ms: 14.0 ms over" in said(page)
    next(b for b in page.button if b.label == "Search within the budget").click().run()
    assert page.selectbox(key="combiner").value == "constrained"
    assert "Budget 10 ms: kept" in said(page)
    assert float(numbers(page)["Price"].split()[0]) <= 10
    page.number_input(key="budget").set_value(1.0).run()
    assert "no member costs 1 or less" in said(page)
    assert not page.exception


def test_a_run_of_predictions_alone_has_no_budget_and_hostile_names_are_text(open_page, bare, said):
    app = open_page("lab", bare)
    assert not app.number_input
    assert numbers(app)["Price"] == "unknown"
    assert "constrained" not in " ".join(app.selectbox(key="combiner").options)
    assert any("\\<script\\>" in toggle.label for toggle in app.toggle)
    choose(app, "weighted")
    assert len(app.slider) == 3


def test_one_single_model_is_no_ensemble(open_page, make_bare_run, tmp_path):
    store = make_bare_run(tmp_path / "one", members=["a"])
    assert "an ensemble needs two" in open_page("lab", store).info[0].value


def test_the_address_holds_members_combiner_weights_and_budget(trained):
    names = offered(view(trained))
    app = AppTest.from_function(_draw, args=(str(trained.path),), default_timeout=120)
    app.query_params |= {
        f"on-{names[1]}": "false",
        f"weight-{names[0]}": "100",
        f"weight-{names[2]}": "20",
        "combiner": "Own weights",
        "budget": "20",
    }
    app.run()
    assert not app.exception
    assert [name for name, toggle in switches(app).items() if not toggle.value] == [names[1]]
    lab = laboratory(view(trained))
    expected = lab.measure(Setup((names[0], names[2]), "weighted", (100.0, 20.0)))
    assert numbers(app)["Log loss"] == f"{expected.fit.score:.4f}"
    assert app.number_input(key="budget").value == 20


def _draw(path):
    from ensembler.app import lab
    from ensembler.app.reading import view
    from ensembler.store import RunStore

    lab.page(view(RunStore(path)))


# ---------------------------------------------------------------------- keeping


def test_a_saved_ensemble_stands_on_the_leaderboard_and_can_be_removed(page, trained, said):
    choose(page, "greedy")
    names = list(switches(page))
    switches(page)[names[0]].set_value(False).run()
    score = numbers(page)["Log loss"]
    page.text_input(key="lab-name").set_value("without-the-best").run()
    next(b for b in page.button if b.label == "Save").click().run()
    assert not page.exception
    assert "Saved: without-the-best" in page.success[0].value.replace("\\", "")
    board = read_leaderboard(trained)
    row = board.frame.set_index("name").loc["without-the-best"]
    assert f"{row['cv']:.4f}" == score
    assert set(row["members"]) <= set(names[1:])
    assert row["note"].startswith("members chosen by hand")
    assert board.verdict.best_ensemble != "without-the-best"
    assert "ensembler export" in said(page)
    next(b for b in page.button if b.label == "Remove").click().run()
    assert "without-the-best" not in set(read_leaderboard(trained).frame["name"])
    assert not (trained.path / "ensembles" / "without-the-best").exists()


@pytest.mark.parametrize("name", ["../up", "Mean"])
def test_a_name_that_is_none_is_refused_and_nothing_is_written(page, trained, name):
    before = trained.manifest()
    page.text_input(key="lab-name").set_value(name).run()
    next(b for b in page.button if b.label == "Save").click().run()
    assert "name" in page.error[0].value
    assert not page.exception
    assert trained.manifest() == before
    assert not saved(trained)


def test_while_somebody_works_on_the_run_nothing_is_saved(page, trained):
    page.text_input(key="lab-name").set_value("mine").run()
    with trained.lock():
        next(b for b in page.button if b.label == "Save").click().run()
    assert "already being worked on" in page.error[0].value.replace("\\", "")
    assert not saved(trained)


def test_an_ensemble_whose_members_are_gone_is_told(open_page, trained, said):
    save_ensemble(trained, "mine", {"combiner": "subset", "members": []})
    trained.update_manifest(unmet_saved=[{"name": "mine", "reason": "members names 'x'"}])
    assert "Not on the leaderboard: members names 'x'" in said(open_page("lab", trained))


# ---------------------------------------------------------------------- pieces


def test_at_most_sixty_models_are_offered_the_best_first(trained, make_bare_run, tmp_path):
    run = view(make_bare_run(tmp_path / "many", members=[f"m{i}" for i in range(63)]))
    names = offered(run)
    assert len(names) == 60
    assert names == [name for name in run.rows if name.startswith("m") and name != "mean"][:60]
    assert laboratory(run).best_single == names[0] == run.board.verdict.best_single


def test_finding_tells_better_worse_and_undecided(trained):
    lab = laboratory(view(trained))
    names = lab.predictions.members
    setups = [Setup(names, "stacking"), Setup(names[-1:], "mean"), Setup(names[:1], "mean")]
    told = [finding(lab.measure(setup), "log_loss") for setup in setups]
    assert told[0].startswith("Better than the best single model, ")
    assert told[1].startswith("Worse than")
    assert told[2].startswith("Cannot be told from")
    assert "a difference of +" in flattery(lab.measure(Setup(names, "convex")), "log_loss")


@pytest.mark.parametrize("key", [k for k in COMBINERS if k != "subset"])
def test_every_combiner_is_explained(key):
    assert explanation(key).endswith(".")
    assert "\n" not in explanation(key)
    assert combiner_words(key, False).endswith("(slower)")


@pytest.fixture
def three():
    """a and b choose the same; c differs from them on half of the rows."""
    labels = np.array([0, 0, 1, 1])
    chosen = [[0, 0, 1, 0], [0, 0, 1, 0], [0, 1, 1, 1]]
    proba = np.stack([0.6 * np.eye(2)[c] + 0.2 for c in chosen])
    return Predictions.from_arrays(proba, labels, [0, 1, 0, 1], members=["a", "b<i>", "c"])


def test_diversity_frame_and_map(three):
    frame = diversity_frame(three).set_index(["first", "second"])
    assert frame.loc[("a", "b<i>")].tolist() == [0.0, 0.25, 1.0]
    assert frame.loc[("a", "c"), "disagreement"] == 0.5
    assert frame.loc[("a", "c"), "both_wrong"] == 0.0
    assert frame.loc[("a", "c"), "error_correlation"] == pytest.approx(-1 / 3)
    told = lab_insight.extremes(frame.reset_index())
    assert told == "Most alike: a and b<i> (0.0% differ). Least: a and c (50.0% differ)."
    figure = diversity_figure(frame.reset_index(), "disagreement", {"a": 4, "b<i>": 1, "c": 2})
    assert list(figure.data[0].x) == ["4", "1", "2"]
    assert figure.data[0].customdata[0][1] == "a<br>b&lt;i&gt;"
    assert np.isnan(figure.data[0].z[0][0]), "a member does not differ from itself"
    wrong = diversity_figure(frame.reset_index(), "both_wrong").data[0]
    assert wrong.z[0][0] == 0.25, "a member with itself: its error rate"


def test_contribution_frame_and_figure():
    members = (Contribution("a", 0.5, 0.01, 0.2, 0.05), Contribution("<b>", 0.6, -0.02, 0.3, 0.0))
    frame = contribution_frame(Contributions(members, 1.1, 0.6, 10), METRICS["log_loss"])
    assert list(frame["member"]) == ["<b>", "a"]
    assert frame.loc[1, ["low", "high"]].tolist() == pytest.approx([0.102, 0.298])
    figure = contribution_figure(frame)
    assert [list(trace.x) for trace in figure.data] == [[0.3, 0.2], [-0.02, 0.01]]
    assert list(figure.data[0].y) == ["&lt;b&gt;", "a"]
    assert figure.data[0].marker.symbol != figure.data[1].marker.symbol


def test_weights_are_drawn_the_heaviest_on_top():
    frame = weights_frame({"a": 0.25, "b": 0.75})
    assert list(frame["member"]) == ["b", "a"]
    figure = weights_figure(frame)
    assert list(figure.data[0].text) == ["75%", "25%"]
    assert list(figure.layout.yaxis.categoryarray) == ["a", "b"]
