"""The worker's half, in this process: one trial after another, and nothing left of the last one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensembler.errors import StoreError
from ensembler.folds import make_folds
from ensembler.training.candidate import Candidate, CellJob, CellResult, TrainingData
from ensembler.training.loop import train_cell
from ensembler.training.recipe import Recipe
from ensembler.tuning import trainable as module
from ensembler.tuning.plan import IDLE, Trial
from ensembler.tuning.trainable import CellTrainable


class Sink:
    def __init__(self) -> None:
        self.committed: list[CellResult] = []
        self.problem: Exception | None = None

    def commit_cell(self, result: CellResult, fingerprint: str) -> bool:
        if self.problem:
            raise self.problem
        self.committed.append(result)
        return True


@pytest.fixture
def data(tmp_path: Path, draw_images: Callable[..., Any]) -> TrainingData:
    pixels, labels = draw_images(36)
    np.save(tmp_path / "pixels.npy", pixels)
    folds = make_folds(labels, 2, 0, monitor_fraction=0.2)
    cut = tuple((f.train, f.monitor, f.holdout) for f in folds)
    return TrainingData(tmp_path / "pixels.npy", labels, ("a", "b", "c"), cut, "f", {}, tmp_path / "features")


@pytest.fixture
def sink() -> Sink:
    return Sink()


def _config(kind: Any = "cell", fold: int = 0, **recipe: Any) -> dict[str, Any]:
    values = {"epochs": 2, "batch_size": 8, "lr": 1e-3, **recipe}
    job = CellJob(Candidate("test_resnet", "random", "full", Recipe(**values)), fold)
    return Trial("search", kind, job, 0).to_config()


def _worker(config: dict[str, Any], data: TrainingData, sink: Sink) -> CellTrainable:
    worker = object.__new__(CellTrainable)
    worker.setup(config, data, sink)
    return worker


def _run(worker: CellTrainable) -> list[dict[str, Any]]:
    results = [worker.step()]
    while not results[-1]["done"]:
        results.append(worker.step())
    return results


def test_a_step_is_an_epoch_and_the_last_one_commits(data: TrainingData, sink: Sink) -> None:
    results = _run(_worker(_config(), data, sink))
    assert [(r["epoch"], r["reported"], r["done"]) for r in results] == [
        (1, True, False),
        (2, True, False),
        (2, False, True),
    ]
    assert results[-1]["ended"] == "finished"
    assert results[-1]["score"] == sink.committed[0].score
    assert all(r["step_s"] > 0 for r in results)


def test_a_reused_worker_trains_the_same_bits_as_a_fresh_one(data: TrainingData, sink: Sink) -> None:
    worker = _worker(_config(fold=1, epochs=3), data, sink)
    worker.step()  # abandoned half-way, as the scheduler does
    assert worker.reset_config(_config())
    results = _run(worker)
    assert "ended" not in results[0]
    alone = train_cell(Trial.from_config(_config()).job, data)
    assert len(sink.committed) == 1
    np.testing.assert_array_equal(sink.committed[0].proba, alone.proba)
    assert all(np.array_equal(sink.committed[0].weights[k], alone.weights[k]) for k in alone.weights)


def test_a_failure_ends_its_trial_alone_and_says_why(data: TrainingData, sink: Sink) -> None:
    worker = _worker(_config(lr=1e30, head_lr=1e30, warmup=0.0, clip=0.0), data, sink)
    last = _run(worker)[-1]
    assert last["ended"] == "failed"
    assert last["error_type"] == "NonFiniteLossError"
    assert "epoch 1, step" in last["reason"]
    assert sink.committed == []
    worker.reset_config(_config())
    assert _run(worker)[-1]["ended"] == "finished"
    assert len(sink.committed) == 1


@pytest.mark.parametrize(
    "problem", [ZeroDivisionError("oops"), MemoryError(), OSError(5, "Input/output error")]
)
def test_what_may_be_the_machines_ends_the_worker(problem: Exception, data: TrainingData, sink: Sink) -> None:
    """Tune then gives the trial a fresh one, a bounded number of times."""
    sink.problem = problem
    with pytest.raises(type(problem)):
        _run(_worker(_config(), data, sink))


def test_a_store_that_cannot_be_written_is_told_by_name(data: TrainingData, sink: Sink) -> None:
    sink.problem = StoreError("cells/x/0: cannot be written: No space left on device")
    last = _run(_worker(_config(), data, sink))[-1]
    assert (last["ended"], last["error_type"]) == ("failed", "StoreError")
    assert last["reason"] == "cells/x/0: cannot be written: No space left on device"


def test_measuring_ends_at_once_with_what_it_found(data: TrainingData, sink: Sink) -> None:
    results = _run(_worker(_config("measure"), data, sink))
    assert len(results) == 1
    extra = json.loads(results[0]["extra"])
    assert extra["precision"] in ("fp32", "bf16")
    assert extra["images_per_s"]
    assert sink.committed == []


def test_an_idle_trial_waits_and_reports_nothing(
    data: TrainingData, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE_S", 0.0)
    worker = _worker({"stage": IDLE, "kind": IDLE}, data, sink)
    assert worker.step()["reported"] is False
    worker.reset_config(_config(epochs=1))
    assert _run(worker)[-1]["ended"] == "finished"


def test_an_unknown_backbone_in_a_worker_is_a_recorded_failure(data: TrainingData, sink: Sink) -> None:
    config = _config()
    config["job"]["candidate"]["backbone"] = "resnt18"
    last = _run(_worker(config, data, sink))[-1]
    assert last["error_type"] == "BackboneError"
    assert "did you mean" in last["reason"]


# ---------------------------------------------------------------------- the state of what is unfinished


@pytest.fixture
def kept(data: TrainingData, tmp_path: Path) -> TrainingData:
    return dataclasses.replace(data, unfinished=tmp_path / "unfinished")


def _left(data: TrainingData) -> list[str]:
    assert data.unfinished is not None
    return sorted(p.name for p in data.unfinished.iterdir())


def test_a_new_worker_says_again_what_the_dead_one_has_trained(kept: TrainingData, sink: Sink) -> None:
    dead = _worker(_config(epochs=3), kept, sink)
    before = [dead.step(), dead.step()]
    assert len(_left(kept)) == 1
    results = _run(_worker(_config(epochs=3), kept, sink))
    assert [(r["epoch"], r.get("again", False), r["done"]) for r in results] == [
        (1, True, False),
        (2, True, False),
        (3, False, False),
        (3, False, True),
    ]
    assert [r["step_s"] for r in results[:2]] == [r["seconds"] for r in before]
    assert [r["score"] for r in results[:2]] == [r["score"] for r in before]
    np.testing.assert_array_equal(
        sink.committed[0].proba,
        train_cell(sink.committed[0].job, dataclasses.replace(kept, unfinished=None)).proba,
    )
    assert _left(kept) == []


def test_a_stopped_trial_leaves_nothing_and_one_that_could_not_be_stored_all(
    kept: TrainingData, sink: Sink
) -> None:
    worker = _worker(_config(epochs=3), kept, sink)
    worker.step()
    worker.reset_config(_config(fold=1))
    assert _left(kept) == []
    sink.problem = StoreError("disk full")
    assert _run(worker)[-1]["ended"] == "failed"
    assert len(_left(kept)) == 1
    worker.reset_config(_config(fold=0))
    assert len(_left(kept)) == 1
