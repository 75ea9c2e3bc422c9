"""The page on which sweeps are checked, planned, started, stopped and resumed."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from ensembler.app import drafts, jobs, sweeps
from ensembler.app.launch import Problem, check, excerpt
from ensembler.app.plans import plan_table, plan_words, roughly
from ensembler.app.server import may_launch
from ensembler.config import Config
from ensembler.errors import ConfigError
from ensembler.planning import Speed, plan
from ensembler.store import RunStore

PATIENCE_S = 120

CONFIG = """\
# Pets.
name: pets
data: {source: digits, image_size: 32}
folds: {k: 3}
backbones: [{test_resnet: {weights: random}}]
search: {trials: 4, epochs: 2}
ensembles: [mean]
"""

#: Holds the run as a driver does, until it is told to end or finds the file `enough`.
STAND_IN = """
import sys, time
from ensembler.store import RunStore
store = RunStore(sys.argv[1])
with store.lock():
    store.write_config({"name": "pets"})
    store.update_manifest(name="pets", stages={})
    with store.stage("sweep"):
        while not (store.path / "enough").exists():
            time.sleep(0.02)
    with store.stage("test"):
        pass
"""


def draw(path):
    from pathlib import Path

    from ensembler.app import launch

    launch.page(Path(path))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a config, from which the app was started, and one for runs."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "pets.yaml").write_text(CONFIG)
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def open_launch(project, monkeypatch):
    def open_(address="127.0.0.1"):
        monkeypatch.setattr(st, "get_option", lambda _: address)
        app = AppTest.from_function(draw, args=(str(project / "runs"),), default_timeout=120).run()
        assert not app.exception
        return app

    return open_


@pytest.fixture
def stand_in(monkeypatch):
    """In the place of `ensembler run`; what was started ends with the test. Returns the (config, run) started."""
    asked, begun, started = [], [], []
    real = jobs.start

    def command(config, run):
        asked.append((config, run))
        return [sys.executable, "-c", STAND_IN, str(run)]

    def start(*args, **options):
        begun.append(asked[-1])
        started.append(real(*args, **options))
        return started[-1]

    monkeypatch.setattr(sweeps, "command", command)
    monkeypatch.setattr(jobs, "start", start)
    yield begun
    for job in started:
        if job.running:
            os.kill(job.pid, signal.SIGKILL)
            job._process.wait()


def until(moment):
    end = time.monotonic() + PATIENCE_S
    while not moment():
        assert time.monotonic() < end, "never"
        time.sleep(0.05)


def working(store):
    """Whether it has come to its stage, so that what stops it finds it there."""
    events = store.events()
    return sweeps.driver(store) and events and events[-1]["state"] == "running"


def button(app, label):
    return next((b for b in app.button if b.label == label), None)


# ---------------------------------------------------------------------- checking


def test_a_misspelt_key_is_shown_at_its_line_with_the_nearest_one(tmp_path):
    text = CONFIG.replace("trials: 4", "trails: 4").replace("search: {", "search:\n  {")
    config, wrong = check(text, tmp_path / "x.yaml")
    assert config is None
    assert wrong == Problem("unknown key; did you mean 'trials'?", 7, "search.trails")


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "said"),
    [
        ("[mean]", "[mean, stackng]", 7, "ensembles.1", "did you mean 'stacking'"),
        ("k: 3", "k: 1", 4, "folds.k", "greater than or equal to 2"),
        ("epochs: 2", "epochs: [", 6, "", "not valid YAML"),
        ("# Pets.", "name: twice", 2, "name", "given twice"),
        ("source: digits", "source: nowhere", 3, "data.source", "there is no"),
        ("name: pets", "name: ../up", 2, "name", "should match pattern"),
    ],
)
def test_every_error_says_where(tmp_path, old, new, line, field, said):
    wrong = check(CONFIG.replace(old, new), tmp_path / "a b: c" / "x.yaml")[1]
    assert (wrong.line, wrong.field) == (line, field)
    assert said in wrong.message
    assert "x.yaml" not in wrong.message


@pytest.mark.parametrize("text", ["", "just words", "- a\n- b", "a: &x 1\nb: *x", "x" * (2 << 20)])
def test_what_is_no_config_is_refused(tmp_path, text):
    config, wrong = check(text, tmp_path / "x.yaml")
    assert config is None
    assert wrong.message


def test_an_excerpt_marks_its_line_at_either_end():
    text = "\n".join("abcdefghijkl")
    assert excerpt(text, 1) == ">  1  a\n   2  b\n   3  c".replace(">  1", "> 1").replace("   ", "  ")
    assert excerpt(text, 12).splitlines()[-1] == "> 12  l"
    assert excerpt(text, 99).splitlines()[-1] == "> 12  l"
    assert excerpt("", 1) == "> 1  "


# ---------------------------------------------------------------------- planning in words


def test_a_plan_says_its_time_or_that_nobody_knows():
    config = Config.parse(CONFIG, Path("x.yaml"))
    known = plan(config, 900, {"test_resnet": Speed(100.0, "old", 32)}, 2)
    first, *rest = plan_words(known)
    assert first.startswith(f"It takes about {roughly(known.seconds)}; 12 trainings at most, 2 at a time.")
    assert any("how fast old trained" in line for line in rest)
    unknown = plan_words(plan(config, None, {}, 1))
    assert unknown[0].startswith("How long it takes is unknown;")
    assert any("Nobody has trained test_resnet" in line for line in unknown)
    assert any("an unknown number of images" in line for line in unknown)
    spent = plan_words(plan(Config.parse(CONFIG + "budget: 30m\n", Path("x.yaml")), None, {}, 1))
    assert spent[0].startswith("It takes 30 min, the budget that it is given;")
    table = plan_table(known)
    assert list(table["Trainings"]) == ["4", "8", "–"]
    assert list(plan_table(plan(config, None, {}, 1))["Time"]) == ["unknown"] * 3


# ---------------------------------------------------------------------- who may


def test_launching_is_for_this_machine_alone_unless_it_is_allowed():
    for address in ("127.0.0.1", "localhost", "::1"):
        assert may_launch(address, {})
    for address in ("0.0.0.0", "192.168.0.7", "", None):
        assert not may_launch(address, {})
        assert not may_launch(address, {"ENSEMBLER_ALLOW_LAUNCH": "0"})
        assert may_launch(address, {"ENSEMBLER_ALLOW_LAUNCH": "1"})


def test_where_others_reach_the_app_the_page_shows_and_does_nothing(open_launch, project, said):
    store = RunStore(project / "runs" / "old")
    store.write_config({"name": "old"})
    store.event("stage", stage="sweep", state="failed", reason="DataError: <b>")
    app = open_launch("0.0.0.0")
    assert "Launching is off" in app.info[0].value
    assert "did not come to an end" in said(app)
    assert not app.button
    assert not app.text_area
    assert not app.selectbox


def test_a_server_that_others_reach_starts_with_launching_off(tmp_path, monkeypatch):
    """The variable of whoever starts the server does not allow what its command line does not."""
    from ensembler.app import server

    monkeypatch.setenv(server.LAUNCH_VARIABLE, "1")
    seen = str(tmp_path / "seen")
    show = f"import os, pathlib; pathlib.Path({seen!r}).write_text(os.environ[{server.LAUNCH_VARIABLE!r}])"
    monkeypatch.setattr(server, "command", lambda *_: [sys.executable, "-c", show])
    monkeypatch.setattr(server, "_require_free", lambda *_: None)
    for allowed in (False, True):
        server.launch(tmp_path, "0.0.0.0", 1, True, allowed)
        assert Path(seen).read_text() == str(int(allowed))


# ---------------------------------------------------------------------- the page


def test_a_config_is_checked_planned_started_stopped_and_resumed(open_launch, project, stand_in, said):
    app = open_launch()
    assert app.text_area[0].value == CONFIG
    assert app.success[0].value == "The config is valid."
    assert "12 trainings at most" in said(app)
    app.button[0].click().run()
    store = RunStore(project / "runs" / "pets")
    assert stand_in[-1] == (project / "configs" / "pets.yaml", store.path)
    until(lambda: working(store))
    app.run()
    assert "**pets** is running" in said(app)
    assert app.text_input[0].value == "pets-2", "the name is taken now"

    other = open_launch()
    assert "**pets** is running" in said(other), "another tab sees it"
    button(other, "Stop").click().run()
    until(lambda: not sweeps.look(store).live)
    app.run()
    assert "**pets** is stopped" in said(app)
    assert "Whatever is finished is kept" in said(app)

    button(app, "Resume").click().run()
    assert stand_in[-1] == (store.path / "config.yaml", store.path)
    until(lambda: working(store))
    (store.path / "enough").touch()
    until(lambda: not sweeps.look(store).live)
    app.run()
    assert "**pets** is finished" in said(app)
    assert not app.exception


def test_an_error_takes_the_place_of_the_start_button(open_launch, said):
    app = open_launch()
    app.text_area[0].set_value(CONFIG.replace("folds", "flods")).run()
    assert not app.exception
    assert app.error[0].value == "Line 4, **flods**: unknown key; did you mean 'folds'?".replace(
        ";", "\\;"
    ).replace("?", "\\?").replace("'", "\\'")
    assert "> 4  flods: {k: 3}" in app.code[0].value
    assert button(app, "Start") is None
    app.text_area[0].set_value(CONFIG).run()
    assert button(app, "Start") is not None


def test_a_changed_config_is_started_as_it_was_changed(open_launch, project, stand_in):
    (project / "configs" / "images").mkdir()
    (project / "configs" / "pets.yaml").write_text(CONFIG.replace("digits", "images"))
    app = open_launch()
    app.text_area[0].set_value(CONFIG.replace("digits", "images").replace("k: 3", "k: 4")).run()
    button(app, "Start").click().run()
    file, run = stand_in[-1]
    assert run == project / "runs" / "pets"
    assert Config.load(file).folds.k == 4
    assert Config.load(file).data.source == str(project / "configs" / "images"), (
        "where the file's own paths lead"
    )


@pytest.mark.parametrize("name", ["../up", "a/b", "", "taken"])
def test_a_name_that_will_not_do_is_refused(open_launch, project, stand_in, name):
    (project / "runs" / "taken").mkdir()
    app = open_launch()
    app.text_input[0].set_value(name).run()
    assert "name of the run" in app.error[0].value
    assert button(app, "Start") is None
    assert not stand_in


def test_configs_come_from_the_project_the_runs_and_their_folder(open_launch, project, trained, said):
    (project / "runs" / "mine.yml").write_text(CONFIG.replace("name: pets", "name: mine"))
    (project / "configs" / ".hidden.yaml").write_text("")
    known = drafts.sources(project / "runs", project)
    assert list(known) == ["configs/pets.yaml", "runs/mine.yml", "as in the run pets", drafts.BLANK]
    app = open_launch()
    app.selectbox[0].set_value("runs/mine.yml").run()
    assert "name: mine" in app.text_area[0].value
    app.selectbox[0].set_value("as in the run pets").run()
    assert app.success[0].value == "The config is valid."
    assert app.text_input[0].value == "pets-2"


def test_the_template_is_a_valid_config(open_launch):
    app = open_launch()
    app.selectbox[0].set_value(drafts.BLANK).run()
    assert app.text_area[0].value == drafts.TEMPLATE
    assert app.success[0].value == "The config is valid."


def test_a_config_can_be_uploaded(open_launch, said):
    app = open_launch()
    app.file_uploader[0].upload("theirs.yaml", CONFIG.replace("name: pets", "name: theirs").encode()).run()
    assert app.text_input[0].value == "theirs"
    assert "with the text above" in said(app)
    app.file_uploader[0].upload("bad.yaml", b"\xff\xfe\x00").run()
    assert "no text in UTF" in app.error[0].value.replace("\\", "")
    assert button(app, "Start") is None
    assert not app.exception


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone.yaml: cannot be read"):
        drafts.read(tmp_path / "gone.yaml")
    with pytest.raises(ConfigError, match="larger than"):
        drafts.decoded(b"x" * ((1 << 20) + 1))


def test_hostile_names_and_reasons_are_text(open_launch, project, said):
    store = RunStore(project / "runs" / "a*b_<script>")
    store.write_config({"name": "x"})
    store.event("stage", stage="sweep", state="failed", reason="<script>alert(1)</script> :smile:")
    app = open_launch()
    assert "\\<script\\>alert\\(1\\)\\<\\/script\\>" in said(app)
    assert "**a\\*b\\_\\<script\\>** has failed" in said(app)


def test_an_app_that_was_opened_on_one_run_says_where_to_open_it(project, trained, monkeypatch):
    monkeypatch.setattr(st, "get_option", lambda _: "127.0.0.1")
    app = AppTest.from_function(draw, args=(str(trained.path),), default_timeout=120).run()
    assert "opened on one run alone" in app.info[0].value
    assert not app.text_area


def test_without_any_run_the_page_is_there(project, monkeypatch):
    monkeypatch.setattr(st, "get_option", lambda _: "127.0.0.1")
    app = AppTest.from_function(draw, args=(str(project / "none"),), default_timeout=120).run()
    assert not app.exception
    assert button(app, "Start") is not None
