"""The measured choice of arithmetic."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from ensembler.training import numerics
from ensembler.training.candidate import CellJob, Numerics, TrainingData
from ensembler.training.loop import train_cell
from ensembler.training.numerics import measure_numerics


def test_the_fastest_way_is_chosen_and_all_speeds_are_told(
    data: TrainingData, job: Callable[..., CellJob]
) -> None:
    choice, speeds = measure_numerics(job(), data)
    assert isinstance(choice, Numerics)
    assert {"fp32 channels_last", "fp32 contiguous"} <= set(speeds)
    chosen = f"{choice.precision} {'channels_last' if choice.channels_last else 'contiguous'}"
    assert speeds[chosen] >= 0.95 * max(speeds.values())


def test_the_job_s_threads_are_used(data: TrainingData, job: Callable[..., CellJob]) -> None:
    torch.set_num_threads(2)
    measure_numerics(job(), data)
    assert torch.get_num_threads() == 1


def test_bfloat16_is_tried_only_where_the_hardware_has_it(monkeypatch: object) -> None:
    ways = numerics._ways(torch.device("cpu"))
    assert Numerics("fp32", channels_last=True) in ways
    assert (Numerics("bf16", channels_last=True) in ways) == numerics._cpu_has_bf16()


def test_compiling_pays_only_in_long_cells() -> None:
    assert numerics.compile_pays(images=100_000, plain=100, compiled=150, compile_s=60)
    assert not numerics.compile_pays(images=1_000, plain=100, compiled=150, compile_s=60)
    assert not numerics.compile_pays(images=10**9, plain=100, compiled=99, compile_s=1)


def test_compiling_is_tried_where_a_cell_is_long_and_kept_where_it_is_faster(
    data: TrainingData, job: Callable[..., CellJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def compiled(model: torch.nn.Module) -> torch.nn.Module:
        tried.append(1)
        return model

    monkeypatch.setattr(numerics.torch, "compile", compiled)
    monkeypatch.setattr(numerics, "compile_pays", lambda *_: True)
    assert not measure_numerics(job(), data)[0].compile
    assert tried == []
    monkeypatch.setattr(numerics, "COMPILE_FROM_S", 0.0)
    choice, speeds = measure_numerics(job(), data)
    assert choice.compile
    assert sum(name.endswith(" compiled") for name in speeds) == len(tried) == 1


@pytest.mark.slow
def test_a_compiled_step_trains_what_a_plain_one_does(
    data: TrainingData, job: Callable[..., CellJob]
) -> None:
    plain = train_cell(job(epochs=2), data)
    compiled = train_cell(dataclasses.replace(job(epochs=2), numerics=Numerics(compile=True)), data)
    np.testing.assert_allclose(compiled.proba, plain.proba, atol=1e-3)
    assert set(compiled.weights) == set(plain.weights)
