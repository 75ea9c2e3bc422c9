"""The state of an unfinished Cell after each epoch, so that one whose worker was killed repeats an epoch at most.

One safetensors file a Cell, replaced by a rename: tensors of the model, of its moving average, of the optimiser and of
the best epochs, with all else as JSON in its header. Randomness needs no state: every epoch is seeded anew. What goes
on from here has the same bits as what was never interrupted.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor, nn

from ..atomic import write_file
from .candidate import EVERY_ROW, CellJob, Epoch, TrainingData, digest
from .checkpoints import BestCheckpoints, Checkpoint, WeightAverage

#: Part of what a snapshot is recognised by: raise it when its content changes.
VERSION = 1

#: What a file raises that is no snapshot, or a damaged one.
_DAMAGED = (OSError, ValueError, KeyError, TypeError, SafetensorError)

#: What of a group of the optimiser or of its state is a number that may change from step to step.
_NUMBER = (bool, int, float)

#: Said of a Cell whose snapshot was there but could not be read.
DAMAGED = "its snapshot could not be read: trained again from the first epoch"


class RepeatedEpoch(Epoch):
    """An epoch that was trained before the Cell was interrupted, reported once more to whoever drives it now."""


class Snapshot:
    """What a Cell in training keeps on disk between two epochs; nothing where the data names no folder for it.

    Args:
        job, data: of the Cell.
        model: as it is trained.
        optimizer: over its parameters.
        average: of its weights.
        best: epochs, filled by `restore`.
        history: likewise.
    """

    def __init__(
        self,
        job: CellJob,
        data: TrainingData,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: WeightAverage,
        best: BestCheckpoints,
        history: list[Epoch],
    ) -> None:
        self._file = snapshot_file(job, data)
        self._key = digest([VERSION, torch.__version__, job.key(data.fingerprint), job.splits])
        self._model = model
        self._optimizer = optimizer
        self._average = average
        self._best = best
        self._history = history
        self.damaged = False

    def save(self, seconds: float) -> None:
        """Replaces the state on disk by that of now.

        Args:
            seconds: that training has taken so far.

        Raises:
            StoreError: naming path and cause; the state before stays.
        """
        if self._file is None:
            return
        state, numbers = self._optimizer_state()
        tensors = {
            **{f"model/{k}": _array(v) for k, v in self._model.state_dict().items()},
            **{f"average/{i}": _array(v) for i, v in enumerate(self._average.tensors)},
            **{f"optimizer/{k}": _array(v) for k, v in state.items()},
        }
        for i, kept in enumerate(self._best.kept):
            tensors |= {f"best/{i}/{k}": np.asarray(v, order="C") for k, v in kept.weights.items()}
            tensors[f"logits/{i}"] = np.asarray(kept.logits, order="C")
        record = {
            "key": self._key,
            "seconds": seconds,
            "history": [dataclasses.asdict(epoch) for epoch in self._history],
            "best": [[kept.epoch, kept.loss] for kept in self._best.kept],
            "average_steps": self._average.steps,
            "numbers": numbers,
            "groups": [
                {k: v for k, v in group.items() if isinstance(v, _NUMBER)}
                for group in self._optimizer.param_groups
            ],
        }
        content = save(tensors, {"record": json.dumps(record)})
        write_file(self._file, lambda stream: stream.write(content))

    def restore(self) -> float:
        """Takes up the state on disk, if there is one of this Cell.

        Returns:
            Seconds that training had taken until then; 0 where it begins at the beginning. A file that cannot be read
            is passed over, and `damaged` says so.
        """
        if self._file is None or not self._file.exists():
            return 0.0
        try:
            with safe_open(self._file, framework="numpy") as stored:
                record = json.loads(stored.metadata()["record"])
                if record["key"] != self._key:
                    return 0.0
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no mapping
        except _DAMAGED:
            self.damaged = True
            return 0.0
        self._take(record, tensors)
        return float(record["seconds"])

    def _take(self, record: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> None:
        with torch.no_grad():
            for name, live in self._model.state_dict().items():
                live.copy_(torch.from_numpy(tensors[f"model/{name}"]))
            for i, live in enumerate(self._average.tensors):
                live.copy_(torch.from_numpy(tensors[f"average/{i}"]))
        self._average.steps = record["average_steps"]
        self._restore_optimizer(record, tensors)
        for i, (epoch, loss) in enumerate(record["best"]):
            weights = dict(_under(tensors, f"best/{i}/"))
            self._best.add(Checkpoint(epoch, loss, weights, tensors[f"logits/{i}"]))
        self._history += [Epoch(**epoch) for epoch in record["history"]]

    def _optimizer_state(self) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
        """Tensors by "<parameter>/<name>", and numbers by parameter, then name."""
        tensors: dict[str, Tensor] = {}
        numbers: dict[str, dict[str, Any]] = {}
        for parameter, state in self._optimizer.state_dict()["state"].items():
            numbers[str(parameter)] = {}
            for name, value in state.items():
                if isinstance(value, Tensor):
                    tensors[f"{parameter}/{name}"] = value
                elif value is None or isinstance(value, _NUMBER):
                    numbers[str(parameter)][name] = value
                else:
                    raise TypeError(f"{name} of the optimiser is a {type(value).__name__}: it cannot be kept")
        return tensors, numbers

    def _restore_optimizer(self, record: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> None:
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        state: dict[int, dict[str, Any]] = {int(i): dict(v) for i, v in record["numbers"].items()}
        for key, array in _under(tensors, "optimizer/"):
            number, name = key.split("/")
            like, value = parameters[int(number)], torch.from_numpy(array)
            if value.shape == like.shape:
                # In the parameter's memory format, as the optimiser had made it.
                value = torch.empty_like(like, dtype=value.dtype, device="cpu").copy_(value)
            state[int(number)][name] = value
        kept = self._optimizer.state_dict()
        groups = [group | saved for group, saved in zip(kept["param_groups"], record["groups"], strict=True)]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})


def snapshot_file(job: CellJob, data: TrainingData) -> Path | None:
    """Where the state of a Cell lies while it is trained; None where the data names no folder."""
    fold = "all" if job.fold == EVERY_ROW else job.fold
    return data.unfinished and data.unfinished / f"{job.candidate.id}-{fold}.safetensors"


def discard_snapshot(job: CellJob, data: TrainingData) -> None:
    """Deletes the state of a Cell that is finished, or will not be."""
    file = snapshot_file(job, data)
    if file is not None:
        with suppress(OSError):  # one that is left is known by its key, and in nobody's way
            file.unlink(missing_ok=True)


def _array(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().cpu().contiguous().numpy()
    return array


def _under(tensors: dict[str, NDArray[Any]], prefix: str) -> Iterator[tuple[str, NDArray[Any]]]:
    return ((name.removeprefix(prefix), value) for name, value in tensors.items() if name.startswith(prefix))
