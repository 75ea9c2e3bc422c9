"""The measured choice of arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ensembler.training import numerics
from ensembler.training.candidate import CellJob, Numerics, TrainingData
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
