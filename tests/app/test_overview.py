from ensembler.app.advice import advice, next_steps, on_test
from ensembler.app.links import known
from ensembler.app.reading import view
from ensembler.comparison import read_leaderboard
from ensembler.store import RunStore


def links(app):
    return {
        link.proto.label.replace("\\", ""): (link.proto.page, link.proto.query_string)
        for link in app.get("page_link")
    }


def with_test(store, single, ensemble):
    """Gives the two contenders a score on the test split."""
    verdict = read_leaderboard(store).verdict
    scores = {verdict.best_single: single, verdict.best_ensemble: ensemble}
    records = store.leaderboard()
    for record in records:
        record["test"] = scores.get(record["name"])
    store.write_leaderboard(records)
    return verdict


def test_the_verdict_comes_first_and_says_what_to_do(open_page, trained, said):
    verdict = read_leaderboard(trained).verdict
    app = open_page("overview", trained)
    first = app.main.children[0].proto.body
    assert first.startswith("<h2")
    assert f"Use the ensemble {verdict.winner}: it is better" in first
    assert verdict.sentence in said(app)
    assert "24.0 ms an image" in said(app)


def test_contenders_stand_side_by_side_with_interval_and_price(open_page, trained, said):
    board = read_leaderboard(trained)
    verdict = board.verdict
    app = open_page("overview", trained)
    metrics = {m.label: m.value for m in app.metric}
    assert list(metrics) == ["Best single model", "Best ensemble", "Gain in log loss", "Price"]
    assert metrics["Gain in log loss"] == f"{verdict.delta:+.4f}"
    assert metrics["Price"] == f"{verdict.price.latency_ratio:.1f} × latency"
    best = board.frame.set_index("name").loc[verdict.best_ensemble]
    assert f"95 % interval {best['cv_low']:.4f} to {best['cv_high']:.4f}" in said(app)
    assert "log loss, lower is better" in said(app), "what the numbers are"
    assert f"{100 * best['accuracy']:.1f} % of images right" in said(app)


def test_a_run_without_ensembles_names_the_best_single_model(open_page, bare, said):
    bare.write_leaderboard([r for r in bare.leaderboard() if r["kind"] == "single"])
    app = open_page("overview", bare)
    assert "no ensemble was made" in said(app)
    assert [m.label for m in app.metric] == ["Best single model"]


def test_a_tie_recommends_the_single_model(open_page, bare, said):
    records = bare.leaderboard()
    for record in records:
        record["p_value"] = None if record["p_value"] is None else 0.9
    bare.write_leaderboard(records)
    assert "no ensemble is shown to be better" in said(open_page("overview", bare))


def test_predictions_alone_have_no_price(open_page, bare, said):
    app = open_page("overview", bare)
    assert {m.label: m.value for m in app.metric}["Price"] == "unknown"
    assert "Predictions alone say nothing about latency" in said(app)


def test_failures_notes_and_skipped_images_are_told(open_page, trained, said):
    app = open_page("overview", trained)
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


def test_it_says_how_far_the_run_is(open_page, trained, said):
    trained.update_manifest(stages={"combine": 0.2, "test": 75.4})
    told = said(open_page("overview", trained))
    assert "240 images of 3 classes in 3 folds" in told
    assert "✓ combined in less than 1 s" in told
    assert "✓ measured and tested in 1 min 15 s" in told
    assert "✓ trained" not in told, "no sweep is on record"
    assert "Somebody works on this run" not in told


def test_it_says_when_somebody_works_on_the_run(open_page, trained, said):
    with trained.lock():
        app = open_page("overview", trained)
    assert "Somebody works on this run" in said(app)
    assert links(app)["Watch it"] == ("live", "run=pets")


def test_the_test_score_is_told_where_there_is_one(open_page, trained, said):
    assert "test images" not in said(open_page("overview", trained))
    verdict = with_test(trained, 0.7, 0.6)
    trained.update_manifest(test_images=40)
    app = open_page("overview", trained)
    told = "On 40 test images, which no step had seen: "
    assert f"{told}{verdict.best_single} 0.7000, {verdict.best_ensemble} 0.6000 log loss." in said(app)
    assert not app.warning


def test_a_test_score_that_says_otherwise_is_a_warning(open_page, trained):
    with_test(trained, 0.6, 0.7)
    app = open_page("overview", trained)
    assert "There the single model is ahead" in app.warning[0].value


def test_a_test_score_of_one_contender_compares_nothing(trained):
    verdict = with_test(trained, 0.6, None)
    said, agrees = on_test(read_leaderboard(trained), None)
    assert agrees
    assert said == f"On the test images, which no step had seen: {verdict.best_single} 0.6000 log loss."


def test_next_steps_are_links_that_keep_the_run(open_page, trained):
    verdict = read_leaderboard(trained).verdict
    found = links(open_page("overview", trained))
    assert found[f"Export {verdict.winner}"] == ("export", "run=pets")
    single, ensemble = verdict.best_single, verdict.best_ensemble
    assert found["Compare the two side by side"] == ("compare", f"run=pets&row={single}&row={ensemble}")
    assert all(known(page) for page, _ in found.values() if page)


def test_what_cannot_be_done_is_not_proposed(bare, trained):
    assert {"export", "launch"} <= {step.module for step in next_steps(view(trained))}
    assert not {"export", "launch"} & {step.module for step in next_steps(view(bare))}, "there are no models"
    bare.write_leaderboard([r for r in bare.leaderboard() if r["kind"] == "single"])
    assert next_steps(view(bare)) == []


def labels(store):
    return [step.label for step in next_steps(view(store))]


def test_more_epochs_are_proposed_where_training_was_still_getting_better(
    trained, make_trained_run, tmp_path
):
    name = read_leaderboard(trained).verdict.best_single
    candidate = next(c for c in trained.candidates() if c.name == name)
    assert "Train for more epochs" not in labels(trained), "the best epoch was the first"
    import json

    for fold in range(3):
        file = trained.cell_path(candidate.id, fold) / "result.json"
        record = json.loads(file.read_text())
        file.write_text(json.dumps(record | {"best_epoch": candidate.recipe.epochs}))
    assert "Train for more epochs" in labels(trained)


def test_more_images_are_proposed_where_the_gain_is_hardly_measured(trained):
    assert "Sweep with more images or backbones" not in labels(trained)
    records = trained.leaderboard()
    for record in records:
        if record["kind"] == "ensemble":
            record |= {"p_value": 0.9, "delta_low": -0.2, "delta_high": 0.21, "delta_best_single": 0.01}
    trained.write_leaderboard(records)
    assert "Sweep with more images or backbones" in labels(trained)


def test_a_test_split_is_proposed_where_there_is_none(trained):
    assert "Keep images aside for a test" in labels(trained)
    trained.update_manifest(test_images=40)
    assert "Keep images aside for a test" not in labels(trained)


def test_the_home_page_is_the_overview(open_app, trained, said):
    app = open_app(trained.path.parent)
    assert advice(read_leaderboard(RunStore(trained.path)).verdict) in said(app)
    assert [m.label for m in app.metric][:2] == ["Best single model", "Best ensemble"]
