"""One Cell: what moves, how fast, which epoch is kept, and that nothing leaks into anything."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ensembler import metrics
from ensembler.errors import NonFiniteLossError
from ensembler.probability import fit_temperature, softmax
from ensembler.training import backbone, loop, losses
from ensembler.training.augment import BatchAugment
from ensembler.training.candidate import CellJob, CellResult, Epoch, Numerics, TrainingData
from ensembler.training.checkpoints import BestCheckpoints, Checkpoint, WeightAverage
from ensembler.training.features import ensure_features
from ensembler.training.loop import fit_cell, train_cell
from ensembler.training.schedules import rate_factor

Job = Callable[..., CellJob]


def _same(a: CellResult, b: CellResult) -> bool:
    return (
        a.weights.keys() == b.weights.keys()
        and all(np.array_equal(a.weights[k], b.weights[k]) for k in a.weights)
        and np.array_equal(a.proba, b.proba)
        and a.temperature == b.temperature
        and _history(a) == _history(b)
    )


def _history(result: CellResult) -> list[tuple[float, ...]]:
    return [
        (e.epoch, e.lr, e.train_loss, e.monitor_loss, e.monitor_accuracy, e.score) for e in result.history
    ]


def _with_pixels(data: TrainingData, rows: np.ndarray, value: int) -> TrainingData:
    pixels = np.load(data.pixels)
    pixels[rows] = value
    file = data.pixels.with_name(f"changed-{value}.npy")
    np.save(file, pixels)
    return dataclasses.replace(data, pixels=file, features=data.features.with_name("changed"))


# ---------------------------------------------------------------------- the same bits


@pytest.mark.parametrize("strategy", ["full", "lp-ft", "probe", "partial", "gradual", "lora", "ridge"])
def test_a_cell_has_the_same_bits_whatever_the_process_did_before(
    strategy: str, data: TrainingData, job: Job
) -> None:
    first = train_cell(job(strategy, dropout=0.2), data)
    train_cell(job("full", fold=1), data)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 - nothing may read it
    torch.rand(7)
    again = train_cell(job(strategy, dropout=0.2), data)
    assert _same(first, again)


def test_order_does_not_matter_nor_do_two_cells_interleaved(data: TrainingData, job: Job) -> None:
    alone = [train_cell(job(fold=f), data) for f in (0, 1)]
    runs = [fit_cell(job(fold=f), data) for f in (1, 0)]
    results: dict[int, CellResult] = {}
    while len(results) < 2:
        for i, run in enumerate(runs):
            if i not in results:
                try:
                    next(run)
                except StopIteration as end:
                    results[i] = end.value
    assert _same(results[1], alone[0])
    assert _same(results[0], alone[1])


def test_seed_fold_and_recipe_change_the_bits(data: TrainingData, job: Job) -> None:
    base = train_cell(job(), data)
    assert not _same(base, train_cell(dataclasses.replace(job(), seed=1), data))
    assert not _same(base, train_cell(job(lr=2e-3), data))


def test_the_number_of_threads_is_the_job_s(data: TrainingData, job: Job) -> None:
    train_cell(dataclasses.replace(job(epochs=1), threads=2), data)
    assert torch.get_num_threads() == 2
    train_cell(job(epochs=1), data)
    assert torch.get_num_threads() == 1


# ---------------------------------------------------------------------- no leak


@pytest.mark.parametrize("strategy", ["full", "lp-ft", "probe", "ridge"])
def test_holdout_labels_and_pixels_touch_nothing_but_the_holdout_s_own_rows(
    strategy: str, data: TrainingData, job: Job
) -> None:
    base = train_cell(job(strategy), data)
    holdout = data.folds[0][2]
    labels = data.labels.copy()
    labels[holdout] = (labels[holdout] + 1) % 3
    assert _same(base, train_cell(job(strategy), dataclasses.replace(data, labels=labels)))
    changed = train_cell(job(strategy), _with_pixels(data, holdout, 7))
    assert all(np.array_equal(base.weights[k], changed.weights[k]) for k in base.weights)
    assert _history(base) == _history(changed)
    assert base.temperature == changed.temperature
    assert not np.array_equal(base.proba, changed.proba)


def test_monitor_labels_choose_but_give_no_gradient(data: TrainingData, job: Job) -> None:
    monitor = data.folds[0][1]
    labels = data.labels.copy()
    labels[monitor] = (labels[monitor] + 1) % 3
    one = job(epochs=1)
    base, changed = train_cell(one, data), train_cell(one, dataclasses.replace(data, labels=labels))
    assert all(np.array_equal(base.weights[k], changed.weights[k]) for k in base.weights)
    assert base.history[0].train_loss == changed.history[0].train_loss
    assert base.history[0].monitor_loss != changed.history[0].monitor_loss
    assert base.temperature != changed.temperature


def test_train_rows_do_give_gradients(data: TrainingData, job: Job) -> None:
    labels = data.labels.copy()
    labels[data.folds[0][0][:3]] = (labels[data.folds[0][0][:3]] + 1) % 3
    base, changed = (
        train_cell(job(epochs=1), data),
        train_cell(job(epochs=1), dataclasses.replace(data, labels=labels)),
    )
    assert any(not np.array_equal(base.weights[k], changed.weights[k]) for k in base.weights)


# ---------------------------------------------------------------------- what comes out


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_a_few_epochs_beat_chance_on_images_told_apart_by_colour(
    name: str, data: TrainingData, job: Job
) -> None:
    result = train_cell(job(backbone=name, epochs=6, augment=0.5), data)
    holdout = data.folds[0][2]
    assert result.proba.shape == (len(holdout), 3)
    assert result.proba.dtype == np.float32
    assert (result.proba.argmax(1) == data.labels[holdout]).mean() > 0.7


def test_a_result_tells_what_it_is(data: TrainingData, job: Job) -> None:
    result = train_cell(job(), data)
    np.testing.assert_allclose(result.proba.sum(1), 1, atol=1e-5)
    assert len(result.history) == 2
    assert result.history[0].epoch == 1
    assert all(e.images_per_s > 0 and e.seconds > 0 for e in result.history)
    model = backbone.create("test_resnet", 3)
    assert result.params == sum(p.numel() for p in model.parameters())
    assert result.weights.keys() == model.state_dict().keys()
    assert {v.dtype for v in result.weights.values()} <= {np.dtype(np.float32), np.dtype(np.int64)}


def test_the_holdout_is_predicted_by_the_stored_weights_and_temperature(data: TrainingData, job: Job) -> None:
    result = train_cell(job(epochs=3), data)
    model = backbone.create("test_resnet", 3)
    backbone.load_arrays(model, result.weights)
    model.eval()
    augment = BatchAugment(*backbone.normalisation("test_resnet"))
    pixels = np.load(data.pixels)

    def logits(rows: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(augment.plain(torch.from_numpy(pixels[rows]))).numpy()

    _, monitor, holdout = data.folds[0]
    temperature = fit_temperature(logits(monitor), data.labels[monitor])
    assert result.temperature == pytest.approx(temperature, rel=1e-3)
    np.testing.assert_allclose(result.proba, softmax(logits(holdout) / result.temperature), atol=1e-5)
    monitor_proba = softmax(logits(monitor) / result.temperature)
    assert result.score == pytest.approx(
        metrics.get_metric("log_loss")(data.labels[monitor], monitor_proba), rel=1e-3
    )


def test_the_search_metric_is_the_one_asked_for(data: TrainingData, job: Job) -> None:
    result = train_cell(job(), dataclasses.replace(data, metric="accuracy"))
    assert result.history[-1].score == result.history[-1].monitor_accuracy


# ---------------------------------------------------------------------- which epoch


def _scripted(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> list[dict[str, np.ndarray]]:
    """Makes the monitor loss follow a script; returns the weights seen at the end of each epoch."""
    seen: list[dict[str, np.ndarray]] = []
    script = iter(losses)
    real = metrics.get_metric
    keep = loop.predict_logits

    def predict(model: nn.Module, **options: Any) -> np.ndarray:
        seen.append(backbone.to_arrays(model.state_dict()))
        return keep(model, **options)

    monkeypatch.setattr(loop, "predict_logits", predict)
    monkeypatch.setattr(
        loop.metrics, "get_metric", lambda n: (lambda *_: next(script)) if n == "log_loss" else real(n)
    )
    return seen


def test_the_epoch_of_the_lowest_monitor_loss_is_kept(
    data: TrainingData, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _scripted(monkeypatch, [0.9, 0.5, 0.5, 0.7])
    result = train_cell(job(epochs=4), dataclasses.replace(data, metric="accuracy"))
    assert result.best_epoch == 2  # the first of two equal ones
    assert [e.monitor_loss for e in result.history] == [0.9, 0.5, 0.5, 0.7]
    assert all(np.array_equal(result.weights[k], seen[1][k]) for k in result.weights)
    assert all(np.array_equal(seen[-1][k], seen[1][k]) for k in result.weights)  # which predict the holdout
    assert any(not np.array_equal(seen[3][k], seen[1][k]) for k in result.weights)


def test_training_stops_when_patience_is_out(
    data: TrainingData, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    _scripted(monkeypatch, [0.5, 0.6, 0.4, 0.7, 0.8, 0.3])
    result = train_cell(job(epochs=6, patience=2), dataclasses.replace(data, metric="accuracy"))
    assert len(result.history) == 5
    assert result.best_epoch == 3


def _checkpoint(epoch: int, loss: float) -> Checkpoint:
    weights = {"w": np.full(2, epoch, np.float32), "n": np.array(epoch)}
    return Checkpoint(epoch, loss, weights, np.empty((0, 2), np.float32))


def test_the_best_checkpoints_are_kept_the_earlier_of_equal_ones_first() -> None:
    best = BestCheckpoints(2)
    for epoch, loss in enumerate([5.0, 5.0, 4.9, 5.0], 1):
        if best.wants(loss):
            best.add(_checkpoint(epoch, loss))
    assert [(c.epoch, c.loss) for c in best.kept] == [(3, 4.9), (1, 5.0)]
    averaged = best.average()
    np.testing.assert_array_equal(averaged["w"], [2.0, 2.0])
    assert averaged["w"].dtype == np.float32
    assert averaged["n"] == 3  # a counter is no weight


def test_an_average_of_checkpoints_is_kept_only_where_the_monitor_set_prefers_it(
    data: TrainingData, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_seed", lambda _job, *what: len(what))  # the same training each time
    single = train_cell(job(epochs=4, ema=0.0), data)
    results = [train_cell(job(epochs=4, ema=0.0, average_best=n), data) for n in (2, 3, 4)]
    labels = data.labels[data.folds[0][1]]
    assert len(labels)
    for result in results:
        taken = any(note.startswith("average of") for note in result.notes)
        same = all(np.array_equal(result.weights[k], single.weights[k]) for k in single.weights)
        assert taken != same
        assert result.best_epoch == single.best_epoch


# ---------------------------------------------------------------------- rates


def test_the_schedule_rises_then_falls_as_a_cosine() -> None:
    factors = [rate_factor(step, 20, 0.25) for step in range(20)]
    assert factors[:5] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert factors[5] == 1.0
    assert factors[12] == pytest.approx(0.5 * (1 + math.cos(math.pi * 7 / 15)))
    assert factors[5:] == sorted(factors[5:], reverse=True)
    assert 0 < factors[-1] < 0.02
    assert rate_factor(0, 20, 0) == 1.0
    assert rate_factor(0, 1, 0.1) == 1.0


def test_every_group_follows_its_own_rate(data: TrainingData, job: Job) -> None:
    rates: list[list[float]] = []
    groups: list[dict[str, Any]] = []

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        rates.append([g["lr"] for g in optimizer.param_groups])
        groups[:] = optimizer.param_groups

    hook = register_optimizer_step_pre_hook(note)
    one = job(
        backbone="test_vit", epochs=4, batch_size=8, layer_decay=0.5, warmup=0.25, lr=1e-3, head_lr=5e-3
    )
    result = train_cell(one, data)
    hook.remove()
    steps = len(data.folds[0][0]) // 8
    assert len(rates) == 4 * steps
    for n, row in enumerate(rates):
        factor = rate_factor(n, 4 * steps, 0.25)
        assert row == pytest.approx([g["peak_lr"] * factor for g in groups])
    assert {g["peak_lr"] for g in groups if g["is_head"]} == {5e-3}
    body = sorted({g["peak_lr"] for g in groups if not g["is_head"]})
    assert body[-1] <= 1e-3
    ratios = {round(b / a, 6) for a, b in itertools.pairwise(body)}
    assert ratios == {2.0}
    assert len(body) >= 6  # stem, six blocks, norm
    assert [e.lr for e in result.history] == pytest.approx(
        [1e-3 * rate_factor(e * steps - 1, 4 * steps, 0.25) for e in (1, 2, 3, 4)]
    )


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_norms_and_biases_are_not_decayed_and_every_parameter_is_in_one_group(name: str) -> None:
    model = backbone.create(name, 3)
    names = {id(p): n for n, p in model.named_parameters()}
    groups = backbone.parameter_groups(model, 0.1, 0.9)
    grouped = [id(p) for g in groups for p in g["params"]]
    assert sorted(grouped) == sorted(names)
    for group in groups:
        for p in group["params"]:
            exempt = p.ndim <= 1 or names[id(p)] in ("pos_embed", "cls_token", "reg_token")
            assert group["weight_decay"] == (0.0 if exempt else 0.1), names[id(p)]
    heads = {names[id(p)] for g in groups if g["is_head"] for p in g["params"]}
    assert heads == set(backbone.head_names(model))


def test_frozen_parameters_are_in_no_group() -> None:
    model = backbone.create("test_resnet", 3)
    model.requires_grad_(False)
    backbone.head(model).requires_grad_(True)
    groups = backbone.parameter_groups(model, 0.1, 0.5)
    assert sum(len(g["params"]) for g in groups) == 2
    assert all(g["is_head"] for g in groups)


# ---------------------------------------------------------------------- average


def test_the_moving_average_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    average = WeightAverage(model, 0.25)
    expected = 1.0
    for step, value in enumerate((2.0, 4.0, 8.0), 1):
        with torch.no_grad():
            model.weight.fill_(value)
        average.update()
        decay = min(0.25, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    with average.applied():
        assert model.weight.item() == pytest.approx(expected)
    assert model.weight.item() == 8.0
    with average.applied():  # a second look sees the same
        assert model.weight.item() == pytest.approx(expected)


def test_the_average_holds_the_statistics_of_batch_norm_and_leaves_counters_alone() -> None:
    norm = nn.BatchNorm1d(2)
    average = WeightAverage(norm, 0.9)
    norm.train()(torch.full((4, 2), 10.0) * torch.arange(4)[:, None])
    live = norm.running_mean.clone()  # type: ignore[union-attr]
    average.update()
    with average.applied():
        torch.testing.assert_close(norm.running_mean, live * (1 - 2 / 11))
        assert norm.num_batches_tracked.item() == 1  # type: ignore[union-attr]


def test_without_a_decay_the_live_weights_are_used() -> None:
    model = nn.Linear(1, 1)
    average = WeightAverage(model, 0.0)
    with torch.no_grad():
        model.weight.fill_(3.0)
    average.update()
    with average.applied():
        assert model.weight.item() == 3.0


def test_averaged_and_live_weights_differ_in_training(data: TrainingData, job: Job) -> None:
    averaged, live = train_cell(job(epochs=1), data), train_cell(job(epochs=1, ema=0.0), data)
    assert any(not np.array_equal(averaged.weights[k], live.weights[k]) for k in live.weights)


# ---------------------------------------------------------------------- losses


def test_label_smoothing_is_in_the_loss(
    data: TrainingData, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    real = losses.F.cross_entropy

    def cross_entropy(*args: Any, label_smoothing: float = 0.0, **kwargs: Any) -> torch.Tensor:
        seen.append(label_smoothing)
        return real(*args, label_smoothing=label_smoothing, **kwargs)

    monkeypatch.setattr(losses.F, "cross_entropy", cross_entropy)
    train_cell(job(epochs=1, label_smoothing=0.3), data)
    assert set(seen) == {0.3}


def test_the_gradient_is_clipped(data: TrainingData, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    real = nn.utils.clip_grad_norm_

    def clip(parameters: Any, limit: float, **kwargs: Any) -> torch.Tensor:
        norms.append(limit)
        return real(parameters, limit, **kwargs)

    monkeypatch.setattr(loop.nn.utils, "clip_grad_norm_", clip)
    train_cell(job(epochs=1, clip=0.5), data)
    assert set(norms) == {0.5}
    norms.clear()
    train_cell(job(epochs=1, clip=0.0), data)
    assert norms == []


def test_a_loss_that_is_not_finite_stops_the_cell_naming_epoch_and_step(data: TrainingData, job: Job) -> None:
    reported: list[Epoch] = []
    with pytest.raises(
        NonFiniteLossError, match=r"fold 0: loss is (nan|inf) at epoch 1, step 2; lower lr \(1e\+30\)"
    ):
        train_cell(
            job(lr=1e30, head_lr=1e30, clip=0, warmup=0.0, ema=0.0, batch_size=8), data, reported.append
        )
    assert reported == []


def test_weights_ruined_by_the_last_step_of_an_epoch_are_found_out(data: TrainingData, job: Job) -> None:
    one_step = job(lr=1e30, head_lr=1e30, clip=0, warmup=0.0, ema=0.0, batch_size=64)
    with pytest.raises(
        NonFiniteLossError, match=r"(monitor logits after epoch 1, step 1 are not finite|epoch 2, step 1)"
    ):
        train_cell(one_step, data)


def test_a_loss_that_becomes_nan_later_names_the_later_epoch(
    data: TrainingData, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = losses.F.cross_entropy, iter(range(1000))
    steps = len(data.folds[0][0]) // 8

    def cross_entropy(*args: Any, **kwargs: Any) -> torch.Tensor:
        loss = real(*args, **kwargs)
        return loss * float("nan") if next(calls) == steps else loss

    monkeypatch.setattr(losses.F, "cross_entropy", cross_entropy)
    with pytest.raises(NonFiniteLossError, match="loss is nan at epoch 2, step 1"):
        train_cell(job(batch_size=8), data)


# ---------------------------------------------------------------------- numerics


def test_bfloat16_trains_and_predicts_in_float32(data: TrainingData, job: Job) -> None:
    half = dataclasses.replace(job(epochs=1), numerics=Numerics("bf16", channels_last=False))
    result = train_cell(half, data)
    assert result.proba.dtype == np.float32
    assert all(v.dtype != np.float16 for v in result.weights.values())
    assert not _same(result, train_cell(job(epochs=1), data))


def test_fewer_images_than_a_batch_are_one_step(data: TrainingData, job: Job) -> None:
    result = train_cell(job(batch_size=500, epochs=1), data)
    assert result.history[0].images_per_s > 0


def test_an_abandoned_cell_can_be_trained_again(data: TrainingData, job: Job) -> None:
    run = fit_cell(job(), data)
    next(run)
    run.close()
    assert _same(train_cell(job(), data), train_cell(job(), data))


def test_features_are_those_of_the_untrained_body(data: TrainingData, job: Job) -> None:
    values = ensure_features(job().candidate, data, torch.device("cpu"))
    assert values.shape[0] == len(data.labels)
    assert np.isfinite(values).all()
