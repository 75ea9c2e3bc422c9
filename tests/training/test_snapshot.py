"""A Cell that is cut off goes on after its last whole epoch, and has the bits of one that never was."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ensembler.errors import StoreError
from ensembler.training import loop
from ensembler.training.candidate import CellJob, CellResult, Epoch, Numerics, TrainingData
from ensembler.training.loop import fit_cell, train_cell
from ensembler.training.snapshot import DAMAGED, RepeatedEpoch, discard_snapshot, snapshot_file

Job = Callable[..., CellJob]


@pytest.fixture
def kept(pretrained: TrainingData, tmp_path: Path) -> TrainingData:
    """The data, with a folder for what is unfinished."""
    return dataclasses.replace(pretrained, unfinished=tmp_path / "unfinished")


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the epochs that are really begun."""
    numbers: list[int] = []
    seed = loop._seed

    def noting(job: CellJob, *what: object) -> int:
        if what[0] == "epoch":
            numbers.append(int(str(what[1])))
        return seed(job, *what)

    monkeypatch.setattr(loop, "_seed", noting)
    return numbers


def _cut_off_after(epochs: int, job: CellJob, data: TrainingData) -> list[Epoch]:
    run = fit_cell(job, data)
    reports = [next(run) for _ in range(epochs)]
    run.close()
    return reports


def _bits(result: CellResult) -> dict[str, Any]:
    return {
        **{f"weights {k}": v.tobytes() for k, v in result.weights.items()},
        "proba": result.proba.tobytes(),
        "temperature": result.temperature,
        "score": result.score,
        "best": result.best_epoch,
        "notes": result.notes,
        "history": _reports(result.history),
    }


def _reports(history: Any) -> list[tuple[float, ...]]:
    return [(e.epoch, e.lr, e.train_loss, e.monitor_loss, e.monitor_accuracy, e.score) for e in history]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"strategy": "lp-ft"},
        {"strategy": "gradual"},
        {"strategy": "lora"},
        {"strategy": "partial", "batchnorm": "frozen"},
        {"optimizer": "adam"},
        {"optimizer": "sgd"},
        {"optimizer": "lion"},
        {"optimizer": "muon"},
        {"average_best": 3},
        {"ema": 0.0},
        {"dropout": 0.3, "drop_path": 0.2, "l2_sp": 0.01, "accumulate": 2, "mixup": 0.3, "erasing": 0.5},
        {"policy": "trivial", "sampling": "balanced", "schedule": "step"},
    ],
    ids=lambda changes: "-".join(f"{k}={v}" for k, v in changes.items()) or "plain",
)
@pytest.mark.parametrize("channels_last", [True, False])
def test_cut_off_after_any_epoch_a_cell_has_the_same_bits(
    changes: dict[str, Any], channels_last: bool, kept: TrainingData, job: Job, begun: list[int]
) -> None:
    wanted = job(**{"strategy": "full", **changes}, weights="w", epochs=4)
    wanted = dataclasses.replace(wanted, numerics=Numerics(channels_last=channels_last))
    expected = train_cell(wanted, dataclasses.replace(kept, unfinished=None))
    begun.clear()
    _cut_off_after(1, wanted, kept)
    _cut_off_after(3, wanted, kept)
    assert _bits(train_cell(wanted, kept)) == _bits(expected)
    assert begun == [1, 2, 3, 4]


def test_what_was_trained_before_is_reported_again_and_its_time_counts(
    kept: TrainingData, job: Job, begun: list[int]
) -> None:
    before = _cut_off_after(2, job(epochs=4), kept)
    run = fit_cell(job(epochs=4), kept)
    again = [next(run) for _ in range(2)]
    assert begun == [1, 2]
    assert [type(e) for e in again] == [RepeatedEpoch] * 2
    assert [dataclasses.asdict(e) for e in again] == [dataclasses.asdict(e) for e in before]
    assert type(next(run)) is Epoch
    reports: list[Epoch] = []
    result = train_cell(job(epochs=4), kept, reports.append)
    assert result.train_s > sum(e.seconds for e in result.history)
    assert all(type(e) is Epoch for e in result.history)


def test_an_epoch_that_was_cut_off_is_begun_once_more(
    kept: TrainingData, job: Job, begun: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train_cell(job(epochs=3), dataclasses.replace(kept, unfinished=None))
    begun.clear()
    order = loop.epoch_order

    def dies(*given: Any) -> Any:
        if begun[-1] == 3:
            raise KeyboardInterrupt
        return order(*given)

    monkeypatch.setattr(loop, "epoch_order", dies)
    with pytest.raises(KeyboardInterrupt):
        train_cell(job(epochs=3), kept)
    monkeypatch.setattr(loop, "epoch_order", order)
    assert _bits(train_cell(job(epochs=3), kept)) == _bits(expected)
    assert begun == [1, 2, 3, 3]


def test_patience_counts_on_over_an_interruption(kept: TrainingData, job: Job) -> None:
    impatient = job(epochs=6, lr=0.3, patience=2)
    expected = train_cell(impatient, dataclasses.replace(kept, unfinished=None))
    assert len(expected.history) < 6
    _cut_off_after(len(expected.history) - 1, impatient, kept)
    assert _bits(train_cell(impatient, kept)) == _bits(expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda job: dataclasses.replace(job, seed=1),
        lambda job: dataclasses.replace(job, splits=2),
        lambda job: dataclasses.replace(job, source="other parts"),
    ],
    ids=["seed", "splits", "source"],
)
def test_the_snapshot_of_another_job_is_no_use(
    change: Callable[[CellJob], CellJob], kept: TrainingData, job: Job, begun: list[int]
) -> None:
    _cut_off_after(2, job(epochs=3), kept)
    other = change(job(epochs=3))
    assert snapshot_file(other, kept) == snapshot_file(job(epochs=3), kept)
    begun.clear()
    result = train_cell(other, kept)
    assert begun == [1, 2, 3]
    assert DAMAGED not in result.notes


def test_of_other_images_neither(kept: TrainingData, job: Job, begun: list[int]) -> None:
    _cut_off_after(2, job(epochs=3), kept)
    begun.clear()
    train_cell(job(epochs=3), dataclasses.replace(kept, fingerprint="y"))
    assert begun == [1, 2, 3]


@pytest.mark.parametrize("damage", ["torn", "empty", "text"])
def test_a_damaged_snapshot_costs_its_epochs_and_is_told(
    damage: str, kept: TrainingData, job: Job, begun: list[int]
) -> None:
    expected = train_cell(job(epochs=3), dataclasses.replace(kept, unfinished=None))
    _cut_off_after(2, job(epochs=3), kept)
    file = snapshot_file(job(epochs=3), kept)
    assert file is not None
    if damage == "torn":
        os.truncate(file, file.stat().st_size // 2)
    else:
        file.write_text("" if damage == "empty" else "no snapshot")
    begun.clear()
    result = train_cell(job(epochs=3), kept)
    assert begun == [1, 2, 3]
    assert result.notes == (DAMAGED,)
    np.testing.assert_array_equal(result.proba, expected.proba)


def test_one_that_cannot_be_written_names_its_path(kept: TrainingData, job: Job) -> None:
    assert kept.unfinished is not None
    kept.unfinished.write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="unfinished"):
        train_cell(job(epochs=2), kept)


def test_after_its_last_epoch_a_cell_keeps_no_snapshot(kept: TrainingData, job: Job) -> None:
    file = snapshot_file(job(epochs=1), kept)
    assert file is not None
    train_cell(job(epochs=1), kept)
    assert not file.exists()


def test_a_finished_one_is_discarded_and_nothing_else(kept: TrainingData, job: Job) -> None:
    for fold in (0, 1):
        _cut_off_after(1, job(epochs=2, fold=fold), kept)
    discard_snapshot(job(epochs=2, fold=0), kept)
    discard_snapshot(job(epochs=2, fold=0), kept)
    assert kept.unfinished is not None
    assert list(kept.unfinished.iterdir()) == [snapshot_file(job(epochs=2, fold=1), kept)]


def test_what_the_optimiser_keeps_has_the_layout_that_it_had(kept: TrainingData, job: Job) -> None:
    """Kernels over several tensors at once are chosen by their strides."""
    seen: list[list[tuple[int, ...]]] = []
    step = torch.optim.AdamW.step

    def noting(self: torch.optim.AdamW, *given: Any) -> Any:
        done = step(self, *given)
        seen.append([self.state[p]["exp_avg"].stride() for g in self.param_groups for p in g["params"]])
        return done

    torch.optim.AdamW.step = noting  # type: ignore[method-assign]
    try:
        _cut_off_after(1, job(epochs=2), kept)
        train_cell(job(epochs=2), kept)
    finally:
        torch.optim.AdamW.step = step  # type: ignore[method-assign]
    assert all(strides == seen[0] for strides in seen)
    assert any(len(s) == 4 and s[1] == 1 and s[0] != 1 for s in seen[0])
