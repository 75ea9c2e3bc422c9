"""The training room: one Cell, from pixels to calibrated holdout probabilities, in plain PyTorch.

`train_cell` runs a job to its end; `fit_cell` is the same as a generator that pauses after each epoch, which is
how Ray Tune drives it. Neither knows Ray.

Nothing here depends on what the process did before: seeds derive from the job alone, so a Cell trained after a
crash, in another worker or in another order has the same bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from .. import metrics
from ..errors import NonFiniteLossError
from ..probability import fit_temperature, softmax
from . import backbone
from .augment import BatchAugment
from .candidate import CellJob, CellResult, Epoch, TrainingData, digest
from .features import predict_logits
from .heads import LinearHead


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
    """The generator behind `train_cell`; closing it early abandons the Cell."""
    from .strategies import get_strategy

    torch.set_num_threads(job.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return (yield from get_strategy(job.candidate.strategy).fit(job, data, device))


def fine_tune(
    job: CellJob, data: TrainingData, device: torch.device, start: LinearHead | None = None
) -> Generator[Epoch, None, CellResult]:
    """Trains body and head with gradients; see `Strategy.fit`.

    Args:
        job: what to train.
        data: what to train on.
        device: where.
        start: a head fitted on frozen features; None leaves the random one.
    """
    began = time.perf_counter()
    recipe, candidate = job.candidate.recipe, job.candidate

    # Data: the out-of-fold pixels are mapped, the fold's rows are picked a batch at a time.
    train, monitor, holdout = data.folds[job.fold]
    pixels = np.load(data.pixels, mmap_mode="r")
    labels = torch.from_numpy(data.labels)
    augment = BatchAugment(*backbone.normalisation(candidate.backbone), recipe.augment, recipe.flip)
    metric = metrics.get_metric(data.metric)

    # Model: weights, new head.
    torch.manual_seed(_seed(job, "model"))
    model = backbone.create(
        candidate.backbone,
        len(data.classes),
        data.weights_files.get(candidate.weights),
        dropout=recipe.dropout,
        image_size=pixels.shape[1],
    )
    if start is not None:
        with torch.no_grad():
            layer = backbone.head(model)
            layer.weight.copy_(torch.from_numpy(start.weight))
            layer.bias.copy_(torch.from_numpy(start.bias))
    memory = torch.channels_last if job.numerics.channels_last else torch.contiguous_format
    model = model.to(device, memory_format=memory)  # type: ignore[call-overload]
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=job.numerics.precision == "bf16")

    # Optimiser and schedule.
    groups = backbone.parameter_groups(model, recipe.weight_decay, recipe.layer_decay)
    for group in groups:
        group["peak_lr"] = (recipe.head_lr if group["is_head"] else recipe.lr) * group["lr_scale"]
        group["lr"] = group["peak_lr"]
    optimiser = torch.optim.AdamW(groups, fused=True)
    parameters = [p for group in groups for p in group["params"]]
    steps = max(1, len(train) // recipe.batch_size)
    average = WeightAverage(model, recipe.ema)

    # Epochs.
    history: list[Epoch] = []
    best = Best()
    for epoch in range(1, recipe.epochs + 1):
        epoch_began = time.perf_counter()
        torch.manual_seed(_seed(job, "epoch", epoch))  # dropout
        generator = torch.Generator().manual_seed(_seed(job, "augment", epoch))
        order = train[torch.randperm(len(train), generator=generator).numpy()]
        model.train()
        total = torch.zeros((), device=device)
        for step in range(steps):
            factor = schedule((epoch - 1) * steps + step, steps * recipe.epochs, recipe.warmup)
            for group in optimiser.param_groups:
                group["lr"] = group["peak_lr"] * factor
            rows = np.sort(order[step * recipe.batch_size : (step + 1) * recipe.batch_size])
            images = augment(_to_device(pixels[rows], device), generator)
            with autocast:
                logits = model(images.contiguous(memory_format=memory))
                loss = F.cross_entropy(
                    logits.float(), labels[rows].to(device), label_smoothing=recipe.label_smoothing
                )
            if device.type == "cpu":
                _check_finite(loss, job, epoch, step + 1)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if recipe.clip:
                nn.utils.clip_grad_norm_(parameters, recipe.clip, foreach=True)
            optimiser.step()
            average.update()
            total += loss.detach()
        # On a GPU reading the loss each step would stall the queue: the sum of the epoch tells as much.
        _check_finite(total, job, epoch, steps)

        # Monitor: the only rows that any choice looks at.
        trained_s = time.perf_counter() - epoch_began
        with average.applied():
            model.eval()
            monitor_logits = predict_logits(model, augment, pixels, monitor, device)
            _check_logits(monitor_logits, job, f"monitor logits after epoch {epoch}, step {steps}")
            log_loss = metrics.get_metric("log_loss")(data.labels[monitor], softmax(monitor_logits))
            if best.improve(epoch, log_loss):
                best.keep(model, monitor_logits)
        proba = softmax(monitor_logits)
        history.append(
            Epoch(
                epoch=epoch,
                lr=recipe.lr * schedule(epoch * steps - 1, steps * recipe.epochs, recipe.warmup),
                train_loss=float(total) / steps,
                monitor_loss=log_loss,
                monitor_accuracy=float((proba.argmax(1) == data.labels[monitor]).mean()),
                score=metric(data.labels[monitor], proba),
                seconds=time.perf_counter() - epoch_began,
                images_per_s=steps * min(recipe.batch_size, len(train)) / trained_s,
            )
        )
        yield history[-1]
        if epoch - best.epoch >= recipe.patience:
            break

    # Holdout: predicted once, when every choice has been made.
    temperature = fit_temperature(best.logits, data.labels[monitor])
    average.close()
    backbone.load_arrays(model, best.weights)
    model.eval()
    holdout_logits = predict_logits(model, augment, pixels, holdout, device)
    _check_logits(holdout_logits, job, f"holdout logits of epoch {best.epoch}")
    return CellResult(
        job=job,
        proba=softmax(holdout_logits / temperature),
        weights=best.weights,
        temperature=temperature,
        score=metric(data.labels[monitor], softmax(best.logits / temperature)),
        best_epoch=best.epoch,
        history=tuple(history),
        train_s=time.perf_counter() - began,
        params=backbone.count_parameters(model),
    )


def schedule(step: int, total: int, warmup: float) -> float:
    """Factor on every peak rate: a linear rise over the first share `warmup` of all steps, then a cosine."""
    rise = max(1, round(total * warmup)) if warmup else 0
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))


class Best:
    """The weights at the epoch of the lowest monitor loss."""

    def __init__(self) -> None:
        self.loss = math.inf
        self.epoch = 0
        self.weights: dict[str, NDArray[Any]] = {}
        self.logits: NDArray[np.float32] = np.empty(0, np.float32)

    def improve(self, epoch: int, loss: float) -> bool:
        """Notes the epoch if its loss is the lowest so far; `keep` must follow."""
        if loss >= self.loss and self.epoch:
            return False
        self.loss, self.epoch = loss, epoch
        return True

    def keep(self, model: nn.Module, logits: NDArray[np.float32]) -> None:
        """Copies the weights, and the monitor logits that they gave."""
        self.weights = backbone.to_arrays(model.state_dict())
        self.logits = logits


class WeightAverage:
    """Exponential moving average of weights and BatchNorm statistics.

    The decay grows from 0.1 towards its limit as (1 + t) / (10 + t), as TensorFlow's does: a short fine-tuning
    would otherwise be averaged with its own beginning.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self._live = [t for t in model.state_dict().values() if t.is_floating_point()]
        self._average = [t.detach().clone() for t in self._live] if decay else []

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards the weights of this step."""
        if self.decay:
            self.steps += 1
            decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
            torch._foreach_lerp_(self._average, self._live, 1 - decay)

    def applied(self) -> _Swap:
        """Context in which the model holds the averaged weights."""
        return _Swap(self._live, self._average)

    def close(self) -> None:
        """Frees the average's memory."""
        self._average = []


class _Swap:
    def __init__(self, live: list[Tensor], average: list[Tensor]) -> None:
        self._pairs = list(zip(live, average, strict=False))

    def __enter__(self) -> None:
        self._exchange()

    def __exit__(self, *_: object) -> None:
        self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for live, average in self._pairs:
            kept = live.clone()
            live.copy_(average)
            average.copy_(kept)


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
