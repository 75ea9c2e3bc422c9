"""What moves and what does not, under each strategy and option."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from ensembler.probability import softmax
from ensembler.training import backbone, features, loop
from ensembler.training.adaptation import freeze_below, hold_statistics
from ensembler.training.augment import BatchAugment
from ensembler.training.candidate import CellJob, CellResult, TrainingData
from ensembler.training.loop import train_cell
from ensembler.training.recipe import Recipe
from ensembler.training.strategies.gradual import Thaw, thawed
from ensembler.training.strategies.lora import LoraUpdates, LowRank

Job = Callable[..., CellJob]
Arrays = Mapping[str, NDArray[Any]]


def _start(job: CellJob, data: TrainingData) -> Arrays:
    """The weights that a Cell of random weights starts from, but for its head."""
    torch.manual_seed(loop._seed(job, "model"))
    name = job.candidate.backbone
    return backbone.to_arrays(backbone.create(name, 3, image_size=32).state_dict())


def _moved(result: CellResult, start: Arrays, what: str = "") -> set[str]:
    return {k for k, v in start.items() if what in k and not np.array_equal(v, result.weights[k])}


def _predicts_itself(result: CellResult, data: TrainingData, **create: Any) -> None:
    """The stored weights, in a plain timm model, give the Cell's own predictions."""
    name = result.job.candidate.backbone
    model = backbone.create(name, 3, image_size=32, **create)
    backbone.load_arrays(model, result.weights)
    assert set(result.weights) == set(model.state_dict())
    logits = features.predict_logits(
        model.eval(),
        BatchAugment(*backbone.normalisation(name)),
        np.load(data.pixels),
        data.folds[0][2],
        torch.device("cpu"),
        mirror=result.job.candidate.recipe.tta,
    )
    np.testing.assert_allclose(softmax(logits / result.temperature), result.proba, atol=1e-5)


# ---------------------------------------------------------------------- partial


def test_partial_moves_the_upper_layers_and_the_head_alone(data: TrainingData, job: Job) -> None:
    one = job("partial", backbone="test_vit", frozen=0.5, ema=0.0)
    result = train_cell(one, data)
    layers = backbone.layers(backbone.create("test_vit", 3, image_size=32))
    moved = _moved(result, _start(one, data))
    body = {n: layer for n, layer in layers.items() if not n.startswith("head")}
    top = max(body.values())
    assert moved & set(body) == {n for n, layer in body.items() if layer >= round(0.5 * (top + 1))}
    assert {"head.weight", "head.bias"} <= moved
    _predicts_itself(result, data)


@pytest.mark.parametrize(("share", "frozen"), [(0.0, 0), (1.0, "all")])
def test_the_share_of_frozen_layers_goes_from_none_to_all(share: float, frozen: Any) -> None:
    model = backbone.create("test_resnet", 3)
    freeze_below(model, share)
    body = [p.requires_grad for n, p in model.named_parameters() if not n.startswith("fc")]
    assert sum(not grad for grad in body) == (len(body) if frozen == "all" else 0)
    assert all(p.requires_grad for n, p in model.named_parameters() if n.startswith("fc"))


def test_statistics_of_frozen_layers_do_not_drift(data: TrainingData, job: Job) -> None:
    """A frozen BatchNorm still follows its batches unless it is put into eval mode."""
    one = job("partial", frozen=0.5, ema=0.0)
    result = train_cell(one, data)
    start = _start(one, data)
    model = backbone.create("test_resnet", 3)
    freeze_below(model, 0.5)
    still = {n for n, p in model.named_parameters() if not p.requires_grad}
    for name in (k for k in start if k.endswith("running_mean")):
        frozen = name.replace("running_mean", "weight") in still
        assert np.array_equal(start[name], result.weights[name]) == frozen, name


# ---------------------------------------------------------------------- BatchNorm


def test_frozen_batch_norm_keeps_its_statistics_and_trains_its_weights(data: TrainingData, job: Job) -> None:
    one = job("full", batchnorm="frozen", ema=0.0)
    result, start = train_cell(one, data), _start(one, data)
    assert _moved(result, start, "running_") == set()
    assert _moved(result, start, "bn1.weight")
    adapted = train_cell(job("full", ema=0.0), data)
    assert len(_moved(adapted, start, "running_mean")) > 3


def test_held_statistics_are_those_of_frozen_weights_or_all() -> None:
    model = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2), nn.Dropout()).train()
    model[0].requires_grad_(False)
    hold_statistics(model, everywhere=False)
    assert [m.training for m in model] == [False, True, True]
    hold_statistics(model, everywhere=True)
    assert [m.training for m in model] == [False, False, True]


# ---------------------------------------------------------------------- gradual


def test_layers_thaw_from_the_top_over_the_first_half_of_the_epochs() -> None:
    assert [thawed(e, 8) for e in range(1, 9)] == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    assert thawed(1, 1) == 1
    model = backbone.create("test_vit", 3, image_size=32)
    layers = backbone.layers(model)
    trained = []
    for epoch in (1, 2, 3, 4):
        Thaw().epoch(model, epoch, Recipe(epochs=8))
        free = {layers[n] for n, p in model.named_parameters() if p.requires_grad}
        trained.append(free)
    assert all(a < b for a, b in itertools.pairwise(trained))
    assert max(layers.values()) in trained[0]
    assert trained[-1] == set(layers.values())


def test_gradual_moves_the_lowest_layer_only_once_it_has_thawed(data: TrainingData, job: Job) -> None:
    one = job("gradual", epochs=4, ema=0.0)
    start, run = _start(one, data), loop.fit_cell(one, data)
    next(run)
    frame = run.gi_yieldfrom  # type: ignore[union-attr]
    while frame.gi_yieldfrom is not None:
        frame = frame.gi_yieldfrom
    model = frame.gi_frame.f_locals["model"]
    assert np.array_equal(backbone.to_arrays(model.state_dict())["conv1.0.weight"], start["conv1.0.weight"])
    next(run)
    assert not np.array_equal(
        backbone.to_arrays(model.state_dict())["conv1.0.weight"], start["conv1.0.weight"]
    )
    run.close()


# ---------------------------------------------------------------------- LoRA


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_convnext"])
def test_a_lora_update_has_the_rank_asked_for_and_nothing_else_of_the_body_moves(
    name: str, data: TrainingData, job: Job
) -> None:
    one = job("lora", backbone=name, lora_rank=2, ema=0.0)
    result, start = train_cell(one, data), _start(one, data)
    heads = set(backbone.head_names(backbone.create(name, 3, image_size=32)))
    moved = _moved(result, start) - heads
    assert any("qkv" in k for k in moved) or name != "test_vit"  # the fused projection too
    assert len(moved) >= 5
    for key in moved:
        assert start[key].ndim >= 2, key
        change = (result.weights[key] - start[key]).reshape(len(start[key]), -1)
        assert np.linalg.matrix_rank(change, tol=1e-5) <= 2, key
    _predicts_itself(result, data)


def test_a_lora_update_starts_at_nothing_and_has_few_parameters() -> None:
    layer = nn.Linear(64, 48)
    update = LowRank(layer.weight, 4)
    assert torch.equal(update(layer.weight), layer.weight)
    assert sum(p.numel() for p in update.parameters()) == 4 * (64 + 48)
    model = backbone.create("test_vit", 3, image_size=32)
    inputs = torch.randn(2, 3, 32, 32)
    before = model.eval()(inputs)
    LoraUpdates().begin(model, Recipe())
    torch.testing.assert_close(model(inputs), before)


# ---------------------------------------------------------------------- heads, mirrors, memory


@pytest.mark.parametrize("strategy", ["full", "lp-ft"])
def test_a_head_of_hidden_layers_is_trained_stored_and_predicts(
    strategy: str, data: TrainingData, job: Job
) -> None:
    result = train_cell(job(strategy, head_layers=2, head_width=8, dropout=0.1), data)
    shapes = {k: v.shape for k, v in result.weights.items() if k.startswith("fc.")}
    assert [s for k, s in shapes.items() if k.endswith("weight")] == [(8, 96), (8, 8), (3, 8)]
    _predicts_itself(result, data, hidden=(8, 8))


def test_a_fitted_hidden_head_beats_chance_and_fits_behind_the_raw_features(
    data: TrainingData, job: Job
) -> None:
    from ensembler.training.hidden_head import fit_hidden_head

    rng = np.random.default_rng(0)
    x = rng.normal(3, 5, (200, 6)).astype(np.float32)
    y = ((x[:, 0] - 3) * (x[:, 1] - 3) > 0).astype(np.int64)  # no linear head tells these apart
    arrays = fit_hidden_head(x[:150], y[:150], x[150:], y[150:], 2, job(head_layers=1, head_width=32))
    head = backbone.HiddenHead(6, 2, (32,))
    head.load_state_dict({k: torch.from_numpy(v) for k, v in arrays.items()})
    right = (head.eval()(torch.from_numpy(x[150:])).argmax(1).numpy() == y[150:]).mean()
    assert right > 0.8


def test_mirrored_predictions_are_the_average_of_both_sides(data: TrainingData, job: Job) -> None:
    result = train_cell(job("full", tta=True), data)
    _predicts_itself(result, data)
    flipped = np.load(data.pixels)[:, :, ::-1]
    np.save(data.pixels, flipped)
    _predicts_itself(result, data)  # left and right no longer matter


def test_accumulated_gradients_are_those_of_the_whole_batch(data: TrainingData, job: Job) -> None:
    """Without BatchNorm and augmentation, two halves of a batch give the step of the whole."""
    plain: dict[str, Any] = {
        "backbone": "test_vit", "augment": 0.0, "flip": False, "epochs": 1, "ema": 0.0, "clip": 0.0,
        "optimizer": "sgd", "lr": 0.01, "head_lr": 0.01,
    }  # fmt: skip
    whole = job("full", batch_size=16, **plain)
    halves = job("full", batch_size=8, accumulate=2, **plain)
    split = dataclasses.replace(whole, splits=2)
    one, two = train_cell(whole, data), train_cell(split, data)
    for key, value in one.weights.items():
        np.testing.assert_allclose(two.weights[key], value, atol=1e-6, err_msg=key)
    assert train_cell(halves, data).history[0].images_per_s > 0


def test_out_of_memory_halves_the_batch_keeps_the_step_and_says_so(
    data: TrainingData, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = BatchAugment.__call__

    def augment(self: BatchAugment, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        sizes.append(len(images))
        if len(images) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(self, images, generator)

    monkeypatch.setattr(BatchAugment, "__call__", augment)
    one = job("full", batch_size=16)
    result = train_cell(one, data)
    assert sizes[:3] == [16, 8, 4]
    assert set(sizes[2:]) == {4}
    assert result.notes == ("out of memory: batches of 16 in 4 parts",)
    assert result.job.key("f") == one.key("f")
    assert len(result.history) == one.candidate.recipe.epochs


def test_memory_that_is_too_small_for_the_smallest_batch_ends_the_cell(
    data: TrainingData, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def augment(*_: Any) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(BatchAugment, "__call__", augment)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        train_cell(job("full", batch_size=16), data)


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    data: TrainingData, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def augment(*_: Any) -> torch.Tensor:
        calls.append(1)
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(BatchAugment, "__call__", augment)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train_cell(job("full"), data)
    assert len(calls) == 1


# ---------------------------------------------------------------------- regularisers in the loop


@pytest.mark.parametrize(
    "change",
    [
        {"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}, {"focal": 2.0}, {"erasing": 0.5},
        {"policy": "trivial"}, {"policy": "rand"}, {"l1": 1e-3}, {"l2_sp": 0.1}, {"schedule": "step"},
        {"class_weights": "balanced", "focal": 1.0}, {"sampling": "balanced"}, {"dropout": 0.5},
    ],
    ids=str,
)  # fmt: skip
def test_each_option_changes_what_is_trained_and_the_same_seed_gives_the_same_bits(
    change: dict[str, Any], data: TrainingData, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seeds follow from the candidate: with those, any two recipes would differ.
    monkeypatch.setattr(loop, "_seed", lambda _job, *what: len(what))
    plain, one = (
        train_cell(job("full", batch_size=8), data),
        train_cell(job("full", batch_size=8, **change), data),
    )
    assert np.isfinite(one.proba).all()
    assert not np.array_equal(one.proba, plain.proba)
    assert np.array_equal(train_cell(job("full", batch_size=8, **change), data).proba, one.proba)


def test_stochastic_depth_is_on_where_the_architecture_has_it(
    data: TrainingData, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_seed", lambda _job, *what: len(what))

    def drops(name: str) -> list[float]:
        model = backbone.create(name, 3, drop_path=0.3, image_size=32)
        return [m.drop_prob for m in model.modules() if type(m).__name__ == "DropPath"]

    assert max(drops("test_vit")) == pytest.approx(0.3)
    assert drops("test_mambaout") is not None
    plain, one = (train_cell(job("full", backbone="test_vit", drop_path=d), data) for d in (0.0, 0.5))
    assert not np.array_equal(plain.proba, one.proba)
