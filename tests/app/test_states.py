"""Runs that are not there, not ready, not whole or not meant: each gets a message, never an exception box."""

import shutil

import pytest

from ensembler.store import RunStore

PAGES = ("leaderboard", "compare", "export")


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


def test_a_running_run_says_how_far_it_is(open_app, tmp_path, said):
    store = RunStore(tmp_path / "now")
    store.update_manifest(name="now", metric="log_loss")
    store.event("stage", stage="sweep", state="running")
    for state in ("started", "done", "started", "failed"):
        store.event("trial", state=state)
    app = open_app(tmp_path)
    assert "now is still running" in said(app)
    assert "Stage: sweep" in said(app)
    assert "2 trainings ended so far, 1 of them failed." in said(app)


def test_a_stopped_run_says_how_to_go_on(open_app, tmp_path, said):
    store = RunStore(tmp_path / "old")
    store.update_manifest(name="old")
    (store.path / "events.jsonl").write_text(
        '{"t": 1.0, "kind": "stage", "stage": "sweep", "state": "running"}\n'
    )
    app = open_app(tmp_path)
    assert "run the same command again" in said(app)
    assert "still running" not in said(app)


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


def test_a_missing_leaderboard_is_rebuilt(open_app, bare, said):
    (bare.path / "leaderboard.parquet").unlink()
    assert "Use the ensemble" in said(open_app(bare.path.parent))
    assert (bare.path / "leaderboard.parquet").exists()


def test_a_rebuilt_leaderboard_is_shown(open_app, bare):
    app = open_app(bare.path.parent)
    before = len(app.dataframe[0].value)
    bare.write_leaderboard(bare.leaderboard()[:-1])
    assert len(app.run().dataframe[0].value) == before - 1


@pytest.mark.parametrize("name", ["../../", "/etc", "..", "runs/../bare", "<script>alert(1)</script>", "*x*"])
def test_a_hostile_run_is_refused(open_app, bare, said, name):
    (bare.path.parent.parent / "manifest.json").write_text("{}")
    app = open_app(bare.path.parent, run=name)
    assert "There is no run named" in app.error[0].value
    assert not app.dataframe
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
