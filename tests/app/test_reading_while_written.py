"""Pages that are loaded while a sweep writes the run that they show."""

import importlib
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest

from ensembler.app.main import PAGES
from ensembler.app.reading import stamp
from ensembler.comparison import combine, compare
from ensembler.store import RunStore

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
#: Of a run; the others show none, or start something.
READING = tuple(page.module for group in PAGES.values() for page in group if page.needs != "folder")

TRIAL = {
    "stage": "crossval",
    "number": 0,
    "candidate": "test_resnet-full",
    "backbone": "test_resnet",
    "fold": 0,
}


@pytest.fixture
def page_loads(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("page_loads")
    sys.modules.pop("page_loads", None)


def write_on(store, stop):
    """What a sweep does to a run, again and again: events, the manifest, Cells, ensembles, the leaderboard."""
    store.event("trial", state="started", total=1, epochs=9, until=None, **TRIAL)
    step = 0
    while not stop.wait(0.02):
        step += 1
        with store.stage("combine"):
            store.event("epoch", **TRIAL, epoch=step, train_loss=1.0, monitor_loss=1 / step, score=1.0)
            store.update_manifest(step=step)
            cell = store.cell_path(store.candidates()[0].id, step % 3)
            shutil.copytree(cell, store.path / "cells" / f"of-{step}")
            if step % 5 == 0:
                compare(store, combine(store))


def test_what_is_gone_before_it_is_looked_at_was_never_there(trained):
    before = stamp(trained)
    (trained.path / "unfinished").symlink_to("nowhere")
    assert stamp(trained) == before


def test_no_page_fails_over_a_run_that_is_being_written(trained, page_loads):
    failed = []

    def write():
        try:
            write_on(RunStore(trained.path), stop)
        except Exception as error:
            failed.append(error)

    stop = threading.Event()
    writer = threading.Thread(target=write)
    with page_loads.serving(trained.path.parent) as address:
        assert not page_loads.load(address, "", "run=pets")
        with page_loads.Readers(address, READING, 20, "run=pets") as readers:
            writer.start()
            stop.wait(5)
            enough, end = 2 * len(READING), time.monotonic() + 200
            while len(readers.seconds) < enough and writer.is_alive() and time.monotonic() < end:
                stop.wait(0.1)
            stop.set()
            writer.join()
    assert not failed
    assert not sorted(set(readers.faults))
    assert len(readers.seconds) >= enough
