import dataclasses
import json
import threading
import time

import pandas as pd
import pytest

from ensembler.app import live
from ensembler.app.following import Follower, Story, TrialStory, state_of
from ensembler.app.live import (
    history_frame,
    loads_frame,
    look,
    rungs_table,
    time_left,
    trials_table,
    workers_table,
)
from ensembler.errors import StoreError
from ensembler.figures import live_curves_figure, live_curves_frame, load_figure
from ensembler.store import RunStore

DEAD = '{"pid": 999999999, "host": "somewhere"}'


class Teller:
    """Writes a story, event by event, as the driver of a sweep does."""

    def __init__(self):
        self.story, self.events, self.now = Story(), [], 1000.0

    def __call__(self, kind, after=1.0, **values):
        self.now += after
        event = {"t": self.now, "kind": kind, **values}
        self.events.append(event)
        self.story.take(event)

    def stage(self, name, state="running", **more):
        self("stage", stage=name, state=state, **more)

    def about(self, number, stage="search", candidate=None, fold=0):
        name = candidate or f"net-{number}"
        return {"stage": stage, "number": number, "candidate": name, "backbone": "net", "fold": fold}

    def start(self, number, total=4, epochs=8, until=None, **more):
        self("trial", state="started", total=total, epochs=epochs, until=until, **self.about(number, **more))

    def epoch(self, number, epoch, score, pid=7, after=1.0, gpu=None, **more):
        gpus = {} if gpu is None else {"gpu_bytes": gpu, "gpu_total_bytes": 10 * gpu}
        values = {"train_loss": 1.0, "images_per_s": 50.0, "score": score, "pid": pid}
        self("epoch", after, epoch=epoch, **values, **gpus, **self.about(number, **more))

    def end(self, number, state="finished", score=0.5, reason="", **more):
        self("trial", state=state, score=score, reason=reason, **self.about(number, **more))

    def write(self, store):
        store.path.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(event) + "\n" for event in self.events)
        (store.path / "events.jsonl").write_text(lines)


@pytest.fixture
def tell():
    return Teller()


@pytest.fixture
def searching(tell):
    """Two trainings ended, one of them failed; two run, the second of which has not reported yet."""
    tell.stage("sweep")
    tell.start(0)
    tell.start(1)
    for epoch, score in ((1, 0.9), (2, 0.4), (3, 0.6)):
        tell.epoch(0, epoch, score)
    tell.end(0, score=0.4)
    tell.end(1, "failed", None, "TrainingError: the loss is <b>nan</b>")
    tell.start(2)
    tell.start(3)
    tell.epoch(2, 1, 0.8, pid=9, gpu=5_000_000)
    tell.epoch(2, 2, 0.7, pid=9, gpu=6_000_000)
    workers = [{"pid": 9, "cpu": 88.0, "memory_bytes": 3e8}, {"pid": 11, "cpu": 1.0, "memory_bytes": 2e8}]
    for cpu in (50.0, 75.0):
        tell("load", cpu=cpu, memory_bytes=4e9, memory_total_bytes=16e9, workers=workers)
    return tell


# ---------------------------------------------------------------------- the story


def test_trials_are_counted_by_stage(searching):
    part = searching.story.parts["search"]
    assert (part.total, part.done, part.failed, part.state) == (4, 2, 1, "running")
    assert [t.number for t in searching.story.running] == [2, 3]
    assert [t.state for t in searching.story.trials] == ["finished", "failed", "running", "running"]
    assert searching.story.trials[1].reason == "TrainingError: the loss is <b>nan</b>"


def test_a_budget_that_goes_on_raises_the_total(tell):
    tell.stage("sweep")
    for number in range(3):
        tell.start(number, total=1)
        tell.end(number)
    assert (tell.story.parts["search"].total, tell.story.parts["search"].done) == (3, 3)


def test_a_stage_ends_when_the_next_begins(searching):
    for number in (2, 3):
        searching.end(number)
    searching.start(0, stage="crossval", total=10)
    assert [(p.name, p.state) for p in searching.story.parts.values()] == [
        ("search", "done"),
        ("crossval", "running"),
    ]
    searching.end(0, stage="crossval")
    searching.stage("sweep", "done", seconds=9.0)
    assert searching.story.parts["crossval"].state == "done"
    assert searching.story.stage.state == "done"


def test_a_worker_that_died_begins_its_training_again(tell):
    tell.stage("sweep")
    tell.start(0)
    tell.epoch(0, 1, 0.5)
    tell.epoch(0, 2, 0.4)
    tell.start(0)
    assert tell.story.trials[0].history == []
    tell.epoch(0, 1, 0.6)
    tell.epoch(0, 1, 0.7)
    assert [(h["epoch"], h["score"]) for h in tell.story.trials[0].history] == [(1, 0.7)]
    assert len(tell.story.trials) == 1


def test_a_run_that_goes_on_counts_what_was_done_and_loses_what_was_not(searching):
    searching.stage("sweep")
    assert [t.state for t in searching.story.trials] == ["finished", "failed", "lost", "lost"]
    assert searching.story.running == []
    searching.start(1, total=3)
    part = searching.story.parts["search"]
    assert (part.base, part.total, part.done, part.failed) == (1, 4, 1, 0), "the failed one is tried again"


def test_an_end_of_what_never_began_is_passed_over(tell):
    tell.stage("sweep")
    tell.end(5)
    tell.epoch(5, 1, 0.1)
    tell("ensemble", name="mean")
    assert tell.story.trials == []


def how(tell, working=False):
    return state_of(tell.story, working)


def test_how_a_run_stands(tell):
    assert how(tell) == "new"
    assert how(tell, True) == "running"
    tell.stage("sweep")
    assert how(tell) == "interrupted"
    tell.stage("sweep", "failed", reason="KeyboardInterrupt: ")
    assert how(tell) == "stopped"
    tell.stage("sweep", "failed", reason="DataError: no images")
    assert how(tell) == "failed"
    tell.stage("sweep", "done")
    assert how(tell) == "paused"
    tell.stage("combine", "done")
    assert how(tell) == "finished"
    tell.stage("sweep")
    assert how(tell) == "interrupted", "it was started again"


def test_a_follower_reads_on_and_begins_again_with_another_log(tell, tmp_path):
    store = RunStore(tmp_path)
    follower = Follower(store)
    tell.stage("sweep")
    tell.start(0)
    tell.write(store)
    with follower.up_to_date() as story:
        assert len(story.trials) == 1
    with (tmp_path / "events.jsonl").open("a") as stream:
        stream.write(
            json.dumps({"t": 2000.0, "kind": "trial", "state": "started", **tell.about(1)}) + '\n{"t": 3'
        )
    with follower.up_to_date() as story:
        assert len(story.trials) == 2
        assert story.last == 2000.0, "the torn line is waited for"
    (tmp_path / "events.jsonl").unlink()
    with follower.up_to_date() as story:
        assert story.trials == []


def test_many_readers_share_one_story_while_it_is_written(tell, tmp_path):
    store = RunStore(tmp_path)
    follower = Follower(store)
    tell.stage("sweep")
    tell.write(store)
    done, faults = threading.Event(), []

    def read():
        while not done.is_set():
            try:
                with follower.up_to_date() as story:
                    assert len(story.trials) == story.parts["search"].total if story.trials else True
            except Exception as error:
                faults.append(error)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for number in range(300):
        store.event("trial", state="started", total=number + 1, **tell.about(number))
    done.set()
    for reader in readers:
        reader.join()
    assert not faults
    with follower.up_to_date() as story:
        assert [t.number for t in story.trials] == list(range(300)), "each event once"


def test_a_damaged_log_is_told_each_time(tmp_path):
    follower = Follower(RunStore(tmp_path))
    (tmp_path / "events.jsonl").write_text('{"t": 1.0, "kind": "stage"}\n')
    for _ in range(2):
        with pytest.raises(StoreError, match="damaged"), follower.up_to_date():
            pass


# ---------------------------------------------------------------------- what is made of it


def test_time_left_is_as_fast_as_it_went(tell):
    tell.stage("sweep")
    tell.start(0, total=4, epochs=4)
    assert time_left(tell.story, tell.now) is None, "nothing is known yet"
    tell.end(0)
    tell.start(1, epochs=4)
    tell.epoch(1, 2, 0.5)
    began = tell.story.parts["search"].began
    assert time_left(tell.story, began + 30) == pytest.approx(50), "1.5 of 4 in 30 s"
    tell.end(1)
    assert time_left(Story(), 0.0) is None


def test_time_left_does_not_count_what_was_done_before(tell):
    tell.stage("sweep")
    for number in range(3):
        tell.start(number, total=4)
        tell.end(number)
    tell.start(3)
    tell.stage("sweep")
    tell.start(0, total=3)
    assert time_left(tell.story, tell.now + 100) is None
    tell.end(0)
    began = tell.story.parts["search"].began
    assert time_left(tell.story, began + 10) == pytest.approx(20), "one of three in 10 s"


def test_a_rung_is_what_a_training_of_a_rung_works_towards(tell):
    tell.start(0, epochs=8, until=2)
    tell.epoch(0, 1, 0.5)
    assert tell.story.trials[0].share == 0.5


def test_workers_are_joined_with_what_they_do(searching):
    table = workers_table(searching.story)
    rows = table.to_dict("records")
    assert [row["Training"] for row in rows] == ["net-2, fold 1", "between two trainings", "net-3, fold 1"]
    assert (rows[0]["Worker"], rows[0]["CPU, %"], rows[0]["Memory, MB"]) == (9, 88.0, 300.0)
    assert (rows[0]["Epoch"], rows[0]["Score"], rows[0]["GPU memory, MB"]) == ("2 of 8", 0.7, 6.0)
    assert pd.isna(rows[2]["Worker"]), "it has not reported yet"
    assert workers_table(Story()).empty


def test_without_samples_of_the_load_the_trainings_are_told(tell):
    tell.stage("sweep")
    tell.start(0)
    table = workers_table(tell.story)
    assert list(table) == ["Training", "Epoch"]


def test_rungs_count_each_candidate_where_it_came_last(tell):
    tell.stage("sweep")
    for number in range(3):
        tell.start(number, until=2)
        tell.epoch(number, 2, 0.5)
        tell.end(number, "stopped")
    tell.start(0, until=None)  # promoted, and trained anew
    tell.epoch(0, 8, 0.3)
    tell.end(0)
    table = rungs_table(tell.story.trials)
    assert table.to_dict("list") == {
        "Epochs": [2, 8],
        "Stopped there": [2, 0],
        "Ran to the end": [0, 1],
        "Running": [0, 0],
    }
    assert rungs_table([t for t in tell.story.trials if t.state != "stopped"]).empty


def test_load_is_in_per_cent(searching):
    frame = loads_frame(searching.story)
    assert frame["cpu"].tolist() == [50.0, 75.0]
    assert frame["memory"].tolist() == [25.0, 25.0]
    assert frame["time"].diff().dt.total_seconds().tolist()[1:] == [1.0]
    figure = load_figure(frame)
    assert [trace.name for trace in figure.data] == ["CPU", "Memory"]
    assert len({trace.line.dash for trace in figure.data}) == 2, "told apart without colour"


def test_the_load_of_an_earlier_driver_stays_but_its_workers_are_gone(searching):
    searching("stage", after=600.0, stage="sweep", state="running")
    assert workers_table(searching.story).empty
    searching("load", cpu=10.0, memory_bytes=4e9, memory_total_bytes=16e9, workers=[{"pid": 5, "cpu": 1.0}])
    assert workers_table(searching.story)["Worker"].tolist() == [5]
    cpu = loads_frame(searching.story)["cpu"].tolist()
    assert (cpu[:2], cpu[3:]) == ([50.0, 75.0], [10.0])
    assert pd.isna(cpu[2]), "no line is drawn over the gap"


def test_a_look_is_apart_from_the_story_that_goes_on(searching):
    seen = look(searching.story, True, "log_loss", searching.now + 5)
    before = dataclasses.asdict(seen.parts[0])
    searching.end(2)
    assert dataclasses.asdict(seen.parts[0]) == before
    assert seen.progress.run == "running"
    assert seen.best.candidate == "net-0"
    assert seen.took_s == searching.now - 1 + 5 - 1001
    assert [t.number for t in seen.failed] == [1]


def test_the_best_is_by_the_direction_of_the_metric(tell):
    tell.stage("sweep")
    for number, score in enumerate((0.4, 0.9)):
        tell.start(number)
        tell.end(number, score=score)
    tell.start(2)
    tell.end(2, "failed", 0.1, "died")
    assert look(tell.story, False, "log_loss", tell.now).best.score == 0.4
    assert look(tell.story, False, "accuracy", tell.now).best.score == 0.9


def test_all_trainings_of_a_run_that_has_ended_are_listed(tell, monkeypatch):
    monkeypatch.setattr(live, "LISTED", 2)
    tell.stage("sweep")
    for number in range(5):
        tell.start(number, epochs=None)
        tell.end(number, "stopped")
    assert len(look(tell.story, True, "log_loss", tell.now).trials) == 2
    table = trials_table(look(tell.story, False, "log_loss", tell.now).trials)
    assert table["Training"].tolist() == [f"net-{i}, fold 1" for i in (4, 3, 2, 1, 0)]
    assert set(table["State"]) == {"stopped early"}
    assert table["Time, s"].tolist() == [1.0] * 5


# ---------------------------------------------------------------------- learning curves


def history(*trials):
    rows = [
        (name, epoch, score, running)
        for name, running, scores in trials
        for epoch, score in enumerate(scores, 1)
    ]
    return pd.DataFrame(rows, columns=["trial", "epoch", "score", "running"])


def roles(frame):
    return dict(zip(frame["trial"], frame["role"], strict=True))


def test_those_that_run_come_last_and_the_best_of_the_others_is_marked():
    frame = live_curves_frame(
        history(("a", False, [0.9, 0.5]), ("b", True, [0.4]), ("c", False, [0.3, 0.8]), ("d", False, [0.7])),
        "log_loss",
    )
    assert roles(frame) == {"a": "ended", "c": "best", "d": "ended", "b": "running"}
    assert frame["trial"].iloc[-1] == "b"
    accuracy = live_curves_frame(history(("a", False, [0.9]), ("b", False, [0.4])), "accuracy")
    assert roles(accuracy) == {"a": "best", "b": "ended"}


def test_only_the_last_of_many_are_drawn_and_the_best_whenever_it_was():
    many = history(("first", False, [0.1]), *[(f"t{i}", False, [0.5]) for i in range(9)])
    assert list(roles(live_curves_frame(many, "log_loss", most=2))) == ["t7", "t8", "first"]


def test_an_epoch_without_a_score_is_left_out():
    frame = live_curves_frame(history(("a", True, [None, 0.5])), "log_loss")
    assert frame["epoch"].tolist() == [2]
    assert live_curves_frame(history(), "log_loss").empty


def test_curves_are_told_apart_without_colour_and_names_are_text():
    frame = live_curves_frame(
        history(("<b>x</b>", True, [0.5]), ("y", True, [0.4]), ("z", False, [0.6]), ("w", False, [0.7])),
        "log_loss",
    )
    figure = live_curves_figure(frame, "log_loss")
    named = {trace.name: trace for trace in figure.data}
    assert "&lt;b&gt;x&lt;/b&gt;" in named
    assert named["best so far: z"].line.dash == "dash"
    assert len({named[n].marker.symbol for n in ("&lt;b&gt;x&lt;/b&gt;", "y")}) == 2
    assert [t.name for t in figure.data if t.showlegend is False] == ["w"]
    assert figure.layout.yaxis.title.text == "Log loss on monitor images"


def test_attempts_of_one_training_are_told_apart(tell):
    tell.stage("sweep")
    for _ in range(2):
        tell.start(0)
        tell.epoch(0, 1, 0.5)
        tell.end(0, "stopped")
    names = history_frame(tell.story.trials)["trial"].tolist()
    assert names == ["net-0, fold 1", "net-0, fold 1, attempt 2"]


def test_what_trains_on_every_row_has_no_fold(tell):
    trial = TrialStory("collapse", 0, "net-refit", "net", -1, 0.0, history=[{"epoch": 1, "score": 0.5}])
    assert history_frame([trial])["trial"].tolist() == ["net-refit"]


# ---------------------------------------------------------------------- the page


@pytest.fixture
def run(tmp_path, searching):
    store = RunStore(tmp_path / "pets")
    store.path.mkdir()
    store.update_manifest(name="pets", metric="log_loss")
    (store.path / "config.yaml").write_text("name: pets\nbudget: 600\n")
    searching.events = [e | {"t": e["t"] - searching.now + time.time()} for e in searching.events]
    searching.write(store)
    return store


def _draw(path):
    from ensembler.app.live import page
    from ensembler.store import RunStore

    page(RunStore(path))


@pytest.fixture
def opened():
    from streamlit.testing.v1 import AppTest

    def open_(store):
        app = AppTest.from_function(_draw, args=(str(store.path),), default_timeout=120).run()
        assert not app.exception
        return app

    return open_


def test_a_running_sweep(opened, run, said):
    with run.lock():
        app = opened(run)
    told = said(app)
    assert "pets is running: searching recipes, 2 of 4 done" in told
    metrics = {m.label: m.value for m in app.metric}
    assert metrics["Trainings that ended"] == "2"
    assert metrics["Best log loss"] == "0.4000"
    assert metrics["Left in this stage"].startswith("≈ ")
    assert "of a budget of 10 min 00 s" in told
    tables = [frame.value for frame in app.dataframe]
    assert list(tables[0]["Training"])[:2] == ["net-2, fold 1", "between two trainings"]
    assert tables[1]["Reason"].tolist() == ["TrainingError: the loss is <b>nan</b>"]
    assert "The last 4 trainings" in app.expander[0].label


def test_only_a_run_that_is_alive_is_looked_at_again_by_itself(opened, run):
    asked = []

    def fragment(run_every=None):
        asked.append(run_every)
        return lambda draw: draw

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streamlit.fragment", fragment)
        with run.lock():
            opened(run)
        opened(run)
    assert asked == [live.POLL_S, None]


def test_an_interrupted_sweep_says_how_to_go_on(opened, run, said):
    (run.path / ".driver.json").write_text(DEAD)
    app = opened(run)
    assert "pets was interrupted" in said(app)
    assert app.code[0].value == f"ensembler run {run.path}/config.yaml -o {run.path}"
    assert "… Sweep: running" not in said(app), "nobody is at it"
    assert "✗ Sweep: cut off" in said(app)
    assert "running" not in set(app.dataframe[-1].value["State"])


def test_a_finished_sweep_shows_its_whole_history(opened, run, searching, said):
    for number in (2, 3):
        searching.end(number)
    searching.stage("sweep", "done", seconds=20.0)
    for stage in ("combine", "compare", "test"):
        searching.stage(stage)
        searching.stage(stage, "done", seconds=1.0)
    searching.write(run)
    app = opened(run)
    assert "pets is finished" in said(app)
    assert {m.label: m.value for m in app.metric}["Stages done"] == "4 of 4"
    assert "All 4 trainings" in app.expander[0].label
    assert "✓ Sweep: done in" in said(app)


def test_a_run_of_predictions_alone(opened, bare, said):
    app = opened(bare)
    assert "bare is finished" in said(app)
    assert not app.get("plotly_chart")


def test_a_run_without_events(opened, tmp_path, said):
    store = RunStore(tmp_path / "new")
    store.update_manifest(name="new")
    assert "Nothing of its work is on record yet" in said(opened(store))


def test_damage_is_told_on_the_page(open_app, run, said):
    (run.path / "events.jsonl").write_text('{"t": "yesterday", "kind": "stage"}\n')
    assert "This run cannot be shown" in said(open_app(run.path.parent))
