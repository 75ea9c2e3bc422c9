"""Runs that are not there, not ready, not whole or not meant: each gets a message, never an exception box."""

import shutil

import pytest

from ensembler.comparison import combine, compare
from ensembler.store import RunStore

PAGES = ("overview", "leaderboard", "compare", "export")


def test_a_missing_folder_says_what_to_do(open_app, tmp_path, said):
    app = open_app(tmp_path / "none")
    assert "does not exist yet" in said(app)
    assert "ensembler run configs/quickstart.yaml" in said(app)


def test_an_empty_folder_says_what_to_do(open_app, tmp_path, said):
    (tmp_path / "not a run").mkdir()
    app = open_app(tmp_path)
    assert "is empty of runs" in said(app)
    assert "ensembler combine --predictions" in said(app)


def test_a_first_run_appears_when_looking_again(open_app, bare, tmp_path, said):
    folder = tmp_path / "later"
    app = open_app(folder)
    shutil.copytree(bare.path.parent, folder)
    app.button[0].click().run()
    assert "Use the ensemble" in said(app)


def start(store, **manifest):
    store.update_manifest(**manifest)
    store.event("stage", stage="sweep", state="running")


def train(store, number, *states):
    about = {"stage": "search", "number": number, "candidate": "net", "backbone": "net", "fold": 0}
    for state in states:
        store.event("trial", state=state, total=4, **about)


def links(app):
    return {
        link.proto.label.replace("\\", ""): (link.proto.page, link.proto.query_string)
        for link in app.get("page_link")
    }


def test_a_running_run_says_how_far_it_is_and_where_to_watch(open_app, tmp_path, said):
    store = RunStore(tmp_path / "now")
    with store.lock():
        start(store, name="now", metric="log_loss")
        train(store, 0, "started", "finished")
        train(store, 1, "started", "failed")
        app = open_app(tmp_path)
    assert "now is still running" in said(app)
    assert "Stage: training" in said(app)
    assert "2 trainings ended so far, 1 of them failed." in said(app)
    assert links(app)["Watch the sweep"] == ("live", "run=now")


def test_an_interrupted_run_says_exactly_how_to_go_on(open_app, tmp_path, said):
    store = RunStore(tmp_path / "my pets")
    start(store, name="old")
    (store.path / "config.yaml").write_text("name: old\n")
    (store.path / ".driver.json").write_text('{"pid": 999999999, "host": "here"}')
    app = open_app(tmp_path)
    assert "my pets was interrupted" in said(app)
    assert "still running" not in said(app)
    run = str(tmp_path / "my pets")
    assert app.code[0].value == f"ensembler run '{run}/config.yaml' -o '{run}'"


def test_a_run_that_was_stopped_by_hand_says_so(open_app, tmp_path, said):
    store = RunStore(tmp_path / "pets")
    store.update_manifest(name="pets")
    with pytest.raises(KeyboardInterrupt), store.stage("sweep"):
        raise KeyboardInterrupt
    assert "pets was stopped by hand" in said(open_app(tmp_path))


def test_a_run_that_was_only_trained_says_what_is_left(open_app, tmp_path, said):
    store = RunStore(tmp_path / "pets")
    store.update_manifest(name="pets")
    with store.stage("sweep"):
        pass
    app = open_app(tmp_path)
    assert "trained, but not compared yet" in said(app)
    assert app.code[0].value == f"ensembler combine {store.path}"


def test_a_run_without_events_says_so(open_app, tmp_path, said):
    RunStore(tmp_path / "pets").update_manifest(name="pets")
    assert "Nothing was trained" in said(open_app(tmp_path))


def test_a_failed_run_says_why(open_app, tmp_path, said):
    store = RunStore(tmp_path / "bad")
    store.update_manifest(name="bad")
    store.event("stage", stage="sweep", state="failed", reason="DataError: <b>cat</b> is empty")
    app = open_app(tmp_path)
    assert "bad stopped in the stage “sweep”" in said(app)
    assert r"\<b\>cat\<\/b\>" in app.error[0].value


def break_manifest(store):
    (store.path / "manifest.json").write_text("{garbage")


def break_leaderboard(store):
    (store.path / "leaderboard.parquet").write_bytes(b"PAR1garbage")


def empty_leaderboard(store):
    store.write_leaderboard([])


def strange_leaderboard(store):
    store.write_leaderboard([{"name": "x", "kind": "single", "metric": "no such metric", "cv": 1.0}])


def incomplete_leaderboard(store):
    store.write_leaderboard([{"name": "x", "kind": "neither"}])


@pytest.mark.parametrize(
    "damage",
    [break_manifest, break_leaderboard, empty_leaderboard, strange_leaderboard, incomplete_leaderboard],
    ids=lambda f: f.__name__,
)
def test_a_damaged_run_says_so_and_others_stay(open_app, bare, said, damage):
    shutil.copytree(bare.path, bare.path.parent / "whole")
    damage(bare)
    app = open_app(bare.path.parent, run="bare")
    assert "This run cannot be shown" in said(app)
    assert str(bare.path.name) in app.error[0].value
    app.sidebar.selectbox[0].set_value("whole").run()
    assert not app.exception
    assert "Use the ensemble" in said(app)


def test_damaged_predictions_are_told_on_the_page_that_needs_them(open_app, bare, trained):
    (bare.path / "ensembles" / "stacking" / "proba.npy").write_bytes(b"garbage")
    app = open_app(bare.path.parent, run="bare")
    assert not app.error, "the leaderboard does not need them"


def test_damaged_events_are_told(open_app, tmp_path, said):
    store = RunStore(tmp_path / "log")
    store.update_manifest(name="log")
    (store.path / "events.jsonl").write_text('{"t": "yesterday", "kind": "stage"}\n')
    assert "This run cannot be shown" in said(open_app(tmp_path))


def test_a_missing_leaderboard_is_made_for_the_page_and_nothing_is_written(open_app, bare, said):
    (bare.path / "leaderboard.parquet").unlink()
    assert "Use the ensemble" in said(open_app(bare.path.parent))
    assert not (bare.path / "leaderboard.parquet").exists()


def test_one_run_is_named_and_there_is_nothing_to_choose(open_app, bare, said):
    app = open_app(bare.path.parent)
    assert not app.sidebar.selectbox
    assert "Run **bare**" in [m.value for m in app.sidebar.markdown]
    assert app.query_params["run"] == "bare"


def test_a_rebuilt_leaderboard_is_shown(open_app, bare, said):
    app = open_app(bare.path.parent)
    assert f"All {len(bare.leaderboard())} rows" in said(app)
    bare.write_leaderboard(bare.leaderboard()[:-1])
    assert f"All {len(bare.leaderboard())} rows" in said(app.run())


@pytest.mark.parametrize("name", ["../../", "/etc", "..", "runs/../bare", "<script>alert(1)</script>", "*x*"])
def test_a_hostile_run_is_refused(open_app, bare, said, name):
    (bare.path.parent.parent / "manifest.json").write_text("{}")
    app = open_app(bare.path.parent, run=name)
    assert "There is no run named" in app.error[0].value
    assert not app.metric
    assert "<script>" not in app.error[0].value
    assert "*x*" not in app.error[0].value
    app.sidebar.selectbox[0].set_value("bare").run()
    assert not app.error
    assert app.query_params["run"] == "bare"


def test_the_run_is_in_the_url_and_picked_from_it(open_app, bare, trained, said):
    app = open_app(bare.path.parent, run="bare")
    assert app.sidebar.selectbox[0].value == "bare"
    app.sidebar.selectbox[0].set_value("pets").run()
    assert app.query_params["run"] == "pets"
    assert "24.0 ms" in said(app)
    assert open_app(bare.path.parent).query_params["run"] == "pets", "the newest where the URL names none"


@pytest.mark.parametrize("page", PAGES)
def test_names_are_text(open_page, bare, said, page):
    app = open_page(page, bare)
    for element in app._tree:
        if getattr(element, "type", "") == "html":
            assert "<script>" not in element.proto.body
        if getattr(element, "type", "") in ("markdown", "caption", "info", "error", "metric"):
            assert "<script>" not in said_of(element)
            assert "a|b*c_d" not in said_of(element)


def said_of(element):
    return f"{element.value} {getattr(element, 'label', '')}"


def test_a_leaderboard_of_another_version_says_how_to_make_it_again(trained, open_app, said):
    records = trained.leaderboard()
    single = next(r for r in records if r["kind"] == "single")
    single["name"] = "test_resnet-full-62d2"
    trained.write_leaderboard(records)
    app = open_app(trained.path.parent)
    assert "which is none of the run's candidates" in said(app).replace("\\", "")
    combine(trained)
    compare(trained)
    assert "none of the run" not in said(open_app(trained.path.parent)).replace("\\", "")
