"""The training room: one Cell, from pixels to calibrated holdout probabilities, in plain PyTorch.

`train_cell` runs a job to its end; `fit_cell` is the same as a generator that pauses after each epoch, which is
how Ray Tune drives it. Neither knows Ray.

Nothing here depends on what the process did before: seeds derive from the job alone, so a Cell trained after a
crash, in another worker or in another order has the same bits.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .. import metrics
from ..errors import NonFiniteLossError
from ..probability import fit_temperature, softmax
from . import backbone
from .adaptation import Adaptation, hold_statistics
from .augment import BatchAugment
from .candidate import CellJob, CellResult, Epoch, TrainingData, digest
from .checkpoints import BestCheckpoints, Checkpoint, WeightAverage
from .features import predict_logits
from .losses import Goals, TrainingLoss, epoch_order
from .mixing import mix
from .optimise import Penalties, make_optimizer
from .processor import use_threads
from .schedules import rate_factor
from .snapshot import DAMAGED, RepeatedEpoch, Snapshot

#: Below so many images a batch is not halved when memory runs out: BatchNorm would see too few.
MIN_BATCH = 4


def train_cell(
    job: CellJob, data: TrainingData, report: Callable[[Epoch], None] = lambda _: None
) -> CellResult:
    """Trains one Cell to its end, calling `report` after each epoch.

    Raises:
        NonFiniteLossError: naming epoch and step.
        BackboneError, WeightsError: see `backbone.create`.
    """
    run = fit_cell(job, data)
    while True:
        try:
            report(next(run))
        except StopIteration as end:
            result: CellResult = end.value
            return result


def fit_cell(job: CellJob, data: TrainingData) -> Generator[Epoch, None, CellResult]:
    """The generator behind `train_cell`; closing it early abandons the Cell.

    Out of memory, the Cell starts again with batches of half the size and twice as many of them a step: the
    effective batch stays, and the result says so. Epochs are then reported from 1 again.
    """
    from .kinds import fit

    use_threads(job.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    while True:
        try:
            return (yield from fit(job, data, device))
        except (torch.OutOfMemoryError, RuntimeError) as error:
            smaller = _smaller(job, error)
            if smaller is None:
                raise
            job = smaller
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _smaller(job: CellJob, error: Exception) -> CellJob | None:
    """The job with its batches halved once more, if memory is what it lacked and there is anything to halve."""
    out_of_memory = isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
    if not out_of_memory or job.candidate.recipe.batch_size // (2 * job.splits) < MIN_BATCH:
        return None
    return dataclasses.replace(job, splits=2 * job.splits)


def fine_tune(
    job: CellJob,
    data: TrainingData,
    device: torch.device,
    start: Mapping[str, NDArray[Any]] | None = None,
    adaptation: Adaptation | None = None,
) -> Generator[Epoch, None, CellResult]:
    """Trains with gradients; see `Strategy.fit`.

    A Cell that was interrupted goes on after the last epoch that it finished, and first reports those again.
    Where the fold has no monitor rows nothing is chosen: the weights are those of the last epoch, the temperature is 1.

    Args:
        job: what to train.
        data: what to train on.
        device: where.
        start: arrays of a head fitted on frozen features; None leaves the random one.
        adaptation: what of the model moves, and when; None is everything.
    """
    began = time.perf_counter()
    recipe, candidate = job.candidate.recipe, job.candidate
    adaptation = adaptation or Adaptation()

    # Data: the out-of-fold pixels are mapped, the fold's rows are picked a batch at a time.
    train, monitor, holdout = data.rows(job.fold)
    pixels = np.load(data.pixels, mmap_mode="r")
    goals = Goals(data, device)
    n_classes = len(data.classes)
    augment = BatchAugment.from_recipe(*backbone.normalisation(candidate.backbone), recipe)
    metric, log_loss, accuracy = map(metrics.get_metric, (data.metric, "log_loss", "accuracy"))

    infer = functools.partial(
        predict_logits, normalise=augment, pixels=pixels, device=device, splits=job.splits, mirror=recipe.tta
    )

    def predict(model: nn.Module, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return infer(model, rows=rows) if len(rows) else np.empty((0, n_classes), np.float32)

    def judge(score: metrics.Metric, logits: NDArray[Any]) -> float:
        return score(data.labels[monitor], softmax(logits)) if len(monitor) else math.nan

    # Model: weights, new head.
    torch.manual_seed(_seed(job, "model"))
    model = backbone.create(
        candidate.backbone,
        n_classes,
        data.weights_files.get(candidate.weights),
        dropout=recipe.dropout,
        drop_path=recipe.drop_path,
        hidden=backbone.hidden_widths(recipe),
        image_size=pixels.shape[1],
    )
    if start is not None:
        backbone.head(model).load_state_dict({k: torch.from_numpy(v) for k, v in start.items()})
    adaptation.begin(model, recipe)
    memory = torch.channels_last if job.numerics.channels_last else torch.contiguous_format
    model = model.to(device, memory_format=memory)  # type: ignore[call-overload]
    forward = torch.compile(model) if job.numerics.compile else model  # shares the model's own weights
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=job.numerics.precision == "bf16")

    # Optimiser, loss, averages.
    optimizer = make_optimizer(model, recipe)
    penalties = Penalties(optimizer, recipe)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    loss_of = TrainingLoss(recipe, np.bincount(data.labels[train], minlength=n_classes), device)
    batch = recipe.batch_size * recipe.accumulate
    steps = max(1, len(train) // batch)
    rate = functools.partial(
        rate_factor, total=steps * recipe.epochs, warmup=recipe.warmup, schedule=recipe.schedule
    )
    average = WeightAverage(model, recipe.ema)

    # What an interrupted training has left.
    history: list[Epoch] = []
    best = BestCheckpoints(recipe.average_best)
    snapshot = Snapshot(job, data, model, optimizer, average, best, history)
    began -= snapshot.restore()
    for done in tuple(history):
        yield RepeatedEpoch(**dataclasses.asdict(done))

    # Epochs.
    for epoch in range(len(history) + 1, recipe.epochs + 1):
        epoch_began = time.perf_counter()
        torch.manual_seed(_seed(job, "epoch", epoch))  # dropout
        generator = torch.Generator().manual_seed(_seed(job, "augment", epoch))
        order = epoch_order(train, data.labels, recipe.sampling, generator)
        model.train()
        adaptation.epoch(model, epoch, recipe)
        hold_statistics(model, everywhere=recipe.batchnorm == "frozen")
        total = torch.zeros((), device=device)
        for step in range(steps):
            factor = rate((epoch - 1) * steps + step)
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
            optimizer.zero_grad(set_to_none=True)
            chunk = order[step * batch : (step + 1) * batch]
            for part in np.array_split(chunk, min(recipe.accumulate * job.splits, len(chunk))):
                rows = np.sort(part)
                images = augment(_to_device(pixels[rows], device), generator)
                targets, emphasis = goals.of(rows)
                if recipe.mixup or recipe.cutmix:
                    columns = goals.columns(targets, emphasis)
                    images, columns = mix(images, columns, recipe.mixup, recipe.cutmix, generator)
                    targets, emphasis = goals.split(columns)
                with autocast:
                    logits = forward(images.contiguous(memory_format=memory))
                loss = loss_of(logits.float(), targets, emphasis)
                if device.type == "cpu":
                    _check_finite(loss, job, epoch, step + 1)
                share = len(rows) / len(chunk)
                (loss * share if share < 1 else loss).backward()  # type: ignore[no-untyped-call]
                total += loss.detach() * share
            penalties.add()
            if recipe.clip:
                nn.utils.clip_grad_norm_(parameters, recipe.clip, foreach=True)
            optimizer.step()
            average.update()
        # On a GPU reading the loss each step would stall the queue: the sum of the epoch tells as much.
        _check_finite(total, job, epoch, steps)

        # Monitor: the only rows that any choice looks at.
        trained_s = time.perf_counter() - epoch_began
        with average.applied():
            logits_now = predict(model.eval(), rows=monitor)
            _check_logits(logits_now, job, f"monitor logits after epoch {epoch}, step {steps}")
            monitor_loss = judge(log_loss, logits_now)
            height = (
                -float(epoch) if math.isnan(monitor_loss) else monitor_loss
            )  # unwatched, the last is best
            if best.wants(height):
                best.add(Checkpoint(epoch, height, adaptation.arrays(model), logits_now))
        history.append(
            Epoch(
                epoch=epoch,
                lr=recipe.lr * rate(epoch * steps - 1),
                train_loss=float(total) / steps,
                monitor_loss=monitor_loss,
                monitor_accuracy=judge(accuracy, logits_now),
                score=judge(metric, logits_now),
                seconds=time.perf_counter() - epoch_began,
                images_per_s=steps * min(batch, len(train)) / trained_s,
            )
        )
        last = epoch == recipe.epochs or epoch - best.best.epoch >= recipe.patience
        if not last:  # what is left after the last epoch is shorter than it
            snapshot.save(time.perf_counter() - began)
        yield history[-1]
        if last:
            break
    average.close()
    adaptation.finish(model)
    model.eval()

    # The average of the best checkpoints, where the monitor set says that it helps.
    weights, monitor_logits, notes = best.best.weights, best.best.logits, _notes(job, snapshot)
    if len(best.kept) > 1:
        together = best.average()
        backbone.load_arrays(model, together)
        averaged_logits = predict(model, rows=monitor)
        if judge(log_loss, averaged_logits) < best.best.loss:
            weights, monitor_logits = together, averaged_logits
            notes = (*notes, f"average of {len(best.kept)} checkpoints")

    # Holdout: predicted once, when every choice has been made.
    temperature = fit_temperature(monitor_logits, data.labels[monitor]) if len(monitor) else 1.0
    backbone.load_arrays(model, weights)
    holdout_logits = predict(model, rows=holdout)
    _check_logits(holdout_logits, job, f"holdout logits of epoch {best.best.epoch}")
    return CellResult(
        job=job,
        proba=softmax(holdout_logits / temperature),
        weights=weights,
        temperature=temperature,
        score=judge(metric, monitor_logits / temperature),
        best_epoch=best.best.epoch,
        history=tuple(history),
        train_s=time.perf_counter() - began,
        params=backbone.count_parameters(model),
        notes=notes,
    )


def _notes(job: CellJob, snapshot: Snapshot) -> tuple[str, ...]:
    size = job.candidate.recipe.batch_size
    parts = f"out of memory: batches of {size} in {job.splits} parts"
    return (*((parts,) if job.splits > 1 else ()), *((DAMAGED,) if snapshot.damaged else ()))


def _seed(job: CellJob, *what: object) -> int:
    return int(digest([job.candidate.id, job.fold, job.seed, *what], 15), 16)


def _to_device(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    batch = torch.from_numpy(images)
    return batch.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else batch


def _check_finite(loss: Tensor, job: CellJob, epoch: int, step: int) -> None:
    if not torch.isfinite(loss):
        raise _not_finite(job, f"loss is {float(loss.detach())} at epoch {epoch}, step {step}")


def _check_logits(logits: NDArray[np.float32], job: CellJob, what: str) -> None:
    """The last step of an epoch may ruin weights whose loss nobody computes any more."""
    if not np.isfinite(logits).all():
        raise _not_finite(job, f"{what} are not finite")


def _not_finite(job: CellJob, what: str) -> NonFiniteLossError:
    recipe = job.candidate.recipe
    return NonFiniteLossError(
        f"{job.candidate.name}, fold {job.fold}: {what}; lower lr ({recipe.lr:g}) or head_lr ({recipe.head_lr:g})"
    )
