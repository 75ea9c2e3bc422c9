"""What is trained: a `Candidate`, the `CellJob` that trains it on one fold, the `CellResult` that comes back.

Plain values without torch or Ray, so that the store, the app and the combiners can hold them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .recipe import Recipe

#: Part of every Cell's key: raise it when a change of the training code changes what a Cell computes.
TRAINING_VERSION = 2

#: Strategies that learn a head and leave the backbone as it is: they have no epochs, and use nothing of a recipe.
FROZEN_BODY = ("probe", "ridge")

#: The fold of what is trained on every row: it has no monitor and no holdout rows.
EVERY_ROW = -1

#: Kinds of candidates that are trained on every row: one network instead of the k fold models.
COLLAPSED = ("refit", "fold-soup", "student")


def digest(value: Any, length: int = 16) -> str:
    """Hex digest of a JSON-able value, the same on every machine and in every session."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


@dataclass(frozen=True)
class Candidate:
    """A backbone, the weights it starts from, a strategy and a recipe.

    Attributes:
        backbone: timm's name of the architecture.
        weights: "random", or "<file name>#<digest of its content>": a moved file keeps its identity, a
            changed one loses it.
        strategy: a name of `ensembler.training.strategies.STRATEGIES`.
        recipe: hyperparameters.
        kind: how its Cells come to be, a key of `training.kinds.KINDS`.
        parts: ids of the candidates whose Cells they are made from.
    """

    backbone: str
    weights: str
    strategy: str
    recipe: Recipe = field(default_factory=Recipe)
    kind: str = "trained"
    parts: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Hash of the content: the same settings are the same candidate everywhere."""
        return digest(self.identity(), 10)

    @property
    def name(self) -> str:
        """Readable and unique: backbone, strategy, kind, and enough of the id to tell recipes apart."""
        made = "" if self.kind in ("trained", self.strategy) else f"-{self.kind}"
        return f"{self.backbone}-{self.strategy}{made}-{self.id[:6]}"

    @property
    def frozen_body(self) -> bool:
        """Whether its Cells hold a head alone, and share the backbone that it starts from."""
        return self.strategy in FROZEN_BODY

    @property
    def fine_tuned(self) -> bool:
        """Whether each of its Cells was trained epoch by epoch, watched on the monitor rows."""
        return self.kind in ("trained", "boosted") and not self.frozen_body

    def with_epochs(self, epochs: int) -> Candidate:
        """The same, trained for another number of epochs."""
        return dataclasses.replace(self, recipe=dataclasses.replace(self.recipe, epochs=epochs))

    def identity(self) -> dict[str, Any]:
        """Plain values, as they are hashed."""
        return {**self.to_dict(), "recipe": self.recipe.identity()}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they are stored."""
        values = dataclasses.asdict(self)
        made = {"kind": values.pop("kind"), "parts": list(values.pop("parts"))}
        return values if self.kind == "trained" else values | made

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Candidate:
        """The inverse of `to_dict`."""
        return cls(
            backbone=values["backbone"],
            weights=values["weights"],
            strategy=values["strategy"],
            recipe=Recipe(**values["recipe"]),
            kind=values.get("kind", "trained"),
            parts=tuple(values.get("parts", ())),
        )


@dataclass(frozen=True)
class Numerics:
    """How the arithmetic of training is done; every prediction is float32 whatever stands here.

    Attributes:
        precision: "fp32" or "bf16" (autocast of the forward and backward pass).
        channels_last: memory format of images and weights.
        compile: whether the training step runs through `torch.compile`.
    """

    precision: str = "fp32"
    channels_last: bool = True
    compile: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Numerics:
        """From a mapping that may hold more, such as speeds, and less."""
        return cls(**{key: values[key] for key in cls.__dataclass_fields__ if key in values})


class FinishedCell(Protocol):
    """What training reads of a finished Cell."""

    @property
    def candidate(self) -> Candidate:
        """What was trained."""

    @property
    def key(self) -> str:
        """See `CellJob.key`."""

    @property
    def temperature(self) -> float:
        """See `CellResult`."""

    @property
    def score(self) -> float:
        """See `CellResult`."""

    def weights(self) -> Mapping[str, NDArray[Any]]:
        """See `CellResult`."""


class Cells(Protocol):
    """The finished Cells of a run; its store in production."""

    def cell(self, candidate_id: str, fold: int) -> FinishedCell:
        """A finished Cell."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What every Cell of a sweep reads: the out-of-fold images, never a test image.

    Attributes:
        pixels: `.npy` uint8 (samples, size, size, 3), mapped by all workers.
        labels: int64 (samples,).
        classes: class names.
        folds: for each fold the int64 index arrays (train, monitor, holdout).
        fingerprint: hash of the images' content, ids and labels.
        weights_files: `Candidate.weights` -> the file on this machine.
        features: folder of frozen features, one `.npy` a (backbone, weights).
        metric: name of the metric that the search maximises or minimises.
        cells: reads finished Cells of the run, for what is made from them; None where nothing is.
        teacher: `.npy` float32 (samples, classes) of the probabilities that a student learns from.
        emphasis: float32 (samples,), what each row weighs in the training loss, mean 1 over the train rows; None is 1.
        targets: float32 (samples, classes), rows that sum to 1, which the training loss holds predictions against;
            None is the labels.
        unfinished: folder of the state of Cells in training, see `training.snapshot`; None keeps none.
    """

    pixels: Path
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    folds: tuple[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]], ...]
    fingerprint: str
    weights_files: Mapping[str, Path]
    features: Path
    metric: str = "log_loss"
    cells: Cells | None = None
    teacher: Path | None = None
    emphasis: NDArray[np.float32] | None = None
    targets: NDArray[np.float32] | None = None
    unfinished: Path | None = None

    def rows(self, fold: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Train, monitor and holdout rows of a fold; of `EVERY_ROW`, all of them to train on and no others."""
        none = np.empty(0, np.int64)
        return (np.arange(len(self.labels)), none, none) if fold == EVERY_ROW else self.folds[fold]

    def features_file(self, candidate: Candidate) -> Path:
        """Where the frozen features of a candidate's backbone lie, once screening has made them."""
        return self.features / features_name(candidate)


def features_name(candidate: Candidate) -> str:
    """File name of the frozen features of a candidate's backbone."""
    return f"{candidate.backbone}-{digest(candidate.weights, 10)}.npy"


@dataclass(frozen=True)
class CellJob:
    """One (candidate, fold), and how to train it.

    Attributes:
        candidate: what to train.
        fold: its number.
        seed: of everything random.
        numerics: the arithmetic of training.
        threads: of the CPU.
        splits: parts of each batch, when memory does not hold it whole; their gradients are added up.
        source: digest of what the Cell is made from beside the candidate and the data; "" where that is nothing.
    """

    candidate: Candidate
    fold: int
    seed: int = 0
    numerics: Numerics = field(default_factory=Numerics)
    threads: int = 1
    splits: int = 1
    source: str = ""

    def key(self, fingerprint: str) -> str:
        """What a stored Cell must have been made from to be used again.

        Threads, splits and numerics are left out: the last are fixed by the run's manifest, and a Cell trained on a GPU
        is as good as one trained on a CPU.
        """
        content = [TRAINING_VERSION, self.candidate.identity(), fingerprint, self.fold, self.seed]
        return digest([*content, self.source] if self.source else content, 32)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a trial's config."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CellJob:
        """The inverse of `to_dict`."""
        return cls(
            candidate=Candidate.from_dict(values["candidate"]),
            fold=values["fold"],
            seed=values["seed"],
            numerics=Numerics(**values["numerics"]),
            threads=values["threads"],
            splits=values["splits"],
            source=values["source"],
        )


@dataclass(frozen=True)
class Epoch:
    """What training reports after each epoch; `monitor_*` are measured on the monitor rows only."""

    epoch: int
    lr: float
    train_loss: float
    monitor_loss: float
    monitor_accuracy: float
    score: float
    seconds: float
    images_per_s: float


@dataclass(frozen=True, eq=False)
class CellResult:
    """A finished Cell.

    Attributes:
        job: what was trained.
        proba: float32 (holdout samples, classes), calibrated with `temperature`, in the order of the fold's
            holdout index.
        weights: the tensors that prediction needs, float32 or int64, under timm's parameter names; of a probe
            the head alone.
        temperature: divides the logits; fitted on the monitor rows.
        score: the search metric on the monitor rows, at the chosen epoch.
        best_epoch: the epoch whose weights these are, counted from 1; 0 for a probe.
        history: one entry an epoch.
        train_s: wall time in seconds.
        params: number of parameters of the whole model.
        notes: what a reader of the leaderboard has to know, such as a fallback.
    """

    job: CellJob
    proba: NDArray[np.float32]
    weights: Mapping[str, NDArray[Any]]
    temperature: float
    score: float
    best_epoch: int
    history: tuple[Epoch, ...]
    train_s: float
    params: int
    notes: tuple[str, ...] = ()
