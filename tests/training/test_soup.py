"""Soups: what is averaged, what is kept, and that the monitor rows alone decide."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import nn

from ensembler.training.candidate import EVERY_ROW, Candidate, CellJob, CellResult, TrainingData
from ensembler.training.checkpoints import Arrays, mean_weights
from ensembler.training.loop import train_cell
from ensembler.training.recipe import Recipe
from ensembler.training.soup import Kitchen, Taste, best_soup, statistics_differ

Job = Callable[..., CellJob]
CPU = torch.device("cpu")


def _weights(*values: float) -> list[Arrays]:
    return [{"w": np.array([value], np.float32)} for value in values]


def _taste(members: Sequence[Arrays]) -> Taste:
    """The loss is how far the mean lies from 0."""
    weights = mean_weights(members)
    return Taste(weights, np.empty((0, 2), np.float32), 1.0, abs(float(weights["w"][0])))


# ---------------------------------------------------------------------- arithmetic


def test_the_mean_is_the_arithmetic_mean_and_that_of_equal_weights_is_themselves() -> None:
    rng = np.random.default_rng(0)
    models = [{"w": rng.normal(size=(3, 4)).astype(np.float32), "n": np.array(i)} for i in range(7)]
    mean = mean_weights(models)
    np.testing.assert_allclose(mean["w"], np.mean([m["w"] for m in models], 0), rtol=1e-6)
    assert mean["w"].dtype == np.float32
    assert mean["n"] == 0
    for n in range(1, 12):
        np.testing.assert_array_equal(mean_weights([models[0]] * n)["w"], models[0]["w"])


@pytest.mark.parametrize(
    ("values", "mean", "note"),
    [
        ((5.0, 1.0, -1.25), -0.125, "greedy soup of 2 of 3"),  # 5 spoils it
        ((1.0, 2.0, -3.0), 0.0, "uniform soup of 3"),  # no pair is better than 1 alone
        ((6.0, 1.0, 5.0), 1.0, "no soup, the best of 3 alone"),
        ((1.0, -1.0), 0.0, "soup of all 2"),
        ((2.0, 2.0), 2.0, "no soup, the best of 2 alone"),
    ],
)
def test_the_best_of_greedy_uniform_and_alone(values: tuple[float, ...], mean: float, note: str) -> None:
    best, said = best_soup(_weights(*values), _taste)
    assert (float(best.weights["w"][0]), said) == (mean, note)


def test_a_soup_is_never_worse_on_the_monitor_rows_than_its_best_ingredient() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        values = rng.normal(size=rng.integers(1, 6))
        best, _ = best_soup(_weights(*values), _taste)
        assert best.loss <= abs(values.astype(np.float32)).min()


# ---------------------------------------------------------------------- networks


def _soup(parts: Sequence[CellJob], kind: str = "soup", fold: int = 0) -> CellJob:
    first = parts[0].candidate
    ids = tuple(part.candidate.id for part in parts)
    return CellJob(Candidate(first.backbone, first.weights, "soup", Recipe(), kind, ids), fold)


def _same(a: CellResult, b: CellResult) -> bool:
    return a.temperature == b.temperature and all(
        np.array_equal(a.weights[k], b.weights[k]) for k in a.weights
    )


def test_a_soup_of_identical_models_is_the_model(
    pretrained: TrainingData, job: Job, finish: Callable[..., TrainingData]
) -> None:
    part = job("lp-ft", weights="w")
    data = finish(pretrained, part)
    soup, alone = train_cell(_soup([part] * 3), data), train_cell(part, pretrained)
    assert _same(soup, alone)
    np.testing.assert_allclose(soup.proba, alone.proba, atol=1e-6)
    assert soup.score == pytest.approx(alone.score, rel=1e-4)


def test_a_soup_is_one_network_at_least_as_good_on_the_monitor_rows_as_each_part(
    pretrained: TrainingData, job: Job, finish: Callable[..., TrainingData]
) -> None:
    parts = [job("lp-ft", weights="w", epochs=n) for n in (2, 3, 4)]
    data = finish(pretrained, *parts)
    soup = _soup(parts)
    result = train_cell(soup, data)
    kitchen = Kitchen(soup, data, CPU)
    assert data.cells is not None
    alone = [kitchen.taste([data.cells.cell(part.candidate.id, 0).weights()]).loss for part in parts]
    assert result.score <= min(alone) + 1e-6  # the metric is log loss
    assert {k: v.shape for k, v in result.weights.items()} == {
        k: v.shape for k, v in data.cells.cell(parts[0].candidate.id, 0).weights().items()
    }
    assert result.proba.shape == (len(data.folds[0][2]), 3)
    assert result.notes[0].startswith(("greedy soup of", "uniform soup of", "soup of all", "no soup"))
    assert _same(result, train_cell(soup, data))


def test_the_holdout_decides_nothing_in_a_soup(
    pretrained: TrainingData, job: Job, finish: Callable[..., TrainingData]
) -> None:
    """Its parts have the same bits whatever is in the holdout rows, which `test_loop.py` tests."""
    parts = [job("lp-ft", weights="w", epochs=n) for n in (1, 2)]
    data = finish(pretrained, *parts)
    holdout = data.folds[0][2]
    labels, pixels = data.labels.copy(), np.load(data.pixels)
    labels[holdout] = (labels[holdout] + 1) % 3
    pixels[holdout] = 7
    np.save(data.pixels.with_name("changed.npy"), pixels)
    changed = dataclasses.replace(data, labels=labels, pixels=data.pixels.with_name("changed.npy"))
    before, after = train_cell(_soup(parts), data), train_cell(_soup(parts), changed)
    assert _same(before, after)
    assert before.notes == after.notes
    assert not np.array_equal(before.proba, after.proba)


def test_statistics_that_differ_are_those_of_the_train_images(
    pretrained: TrainingData, job: Job, finish: Callable[..., TrainingData]
) -> None:
    parts = [job("lp-ft", weights="w", epochs=n) for n in (2, 3)]
    data = finish(pretrained, *parts)
    assert data.cells is not None
    members = [data.cells.cell(part.candidate.id, 0).weights() for part in parts]
    assert statistics_differ(members)
    kitchen = Kitchen(_soup(parts), data, CPU)
    mixed, mean = kitchen.mix(members), mean_weights(members)
    model = kitchen.reader.model
    name, norm = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d))
    seen: list[torch.Tensor] = []
    norm.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    with torch.no_grad():
        model(kitchen.reader.images(data.folds[0][0]))
    np.testing.assert_allclose(mixed[f"{name}.running_mean"], seen[0].mean((0, 2, 3)), rtol=1e-3, atol=1e-5)
    for key in mixed:
        if not key.endswith("num_batches_tracked"):
            same = np.array_equal(mixed[key], mean[key])
            assert same == (not key.endswith(("running_mean", "running_var"))), key


def test_statistics_that_are_the_same_stay(
    pretrained: TrainingData, job: Job, finish: Callable[..., TrainingData]
) -> None:
    parts = [job("lp-ft", weights="w", epochs=n, batchnorm="frozen") for n in (1, 2)]
    data = finish(pretrained, *parts)
    assert data.cells is not None
    members = [data.cells.cell(part.candidate.id, 0).weights() for part in parts]
    mixed, mean = Kitchen(_soup(parts), data, CPU).mix(members), mean_weights(members)
    assert all(np.array_equal(mixed[key], mean[key]) for key in mean)


# ---------------------------------------------------------------------- soups of folds


def test_a_soup_of_folds_has_the_folds_temperature_and_predicts_nothing_by_itself(
    pretrained: TrainingData, job: Job, finish: Callable[..., TrainingData]
) -> None:
    folds = [job("lp-ft", weights="w", fold=fold, epochs=4) for fold in range(3)]
    data = finish(pretrained, *folds)
    assert data.cells is not None
    result = train_cell(_soup(folds[:1], "fold-soup", EVERY_ROW), data)
    temperatures = [data.cells.cell(folds[0].candidate.id, fold).temperature for fold in range(3)]
    assert result.temperature == pytest.approx(np.prod(temperatures) ** (1 / 3))
    assert result.proba.shape == (0, 3)
    assert np.isnan(result.score)
    members = [data.cells.cell(folds[0].candidate.id, fold).weights() for fold in range(3)]
    for key, value in mean_weights(members).items():
        if "running" not in key and "num_batches" not in key:
            np.testing.assert_array_equal(result.weights[key], value)


def test_a_soup_of_folds_that_started_apart_says_that_it_is_none(
    data: TrainingData, job: Job, finish: Callable[..., TrainingData]
) -> None:
    folds = [job("full", fold=fold, epochs=8, augment=0.0) for fold in range(3)]
    result = train_cell(_soup(folds[:1], "fold-soup", EVERY_ROW), finish(data, *folds))
    (note,) = result.notes
    assert note.startswith("no soup: log loss")
