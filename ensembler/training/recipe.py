"""Hyperparameters of fine-tuning: one flat, frozen value, with the limits that a config is checked against."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of fine-tuning one backbone; a value that a strategy has no use for is ignored by it.

    Attributes:
        epochs: passes over the fold's train rows, >= 1.
        batch_size: images a step, >= 2.
        lr: peak learning rate of the body at `batch_size`.
        head_lr: peak learning rate of the new head.
        weight_decay: decoupled where the optimiser knows how, not applied to norms and biases.
        layer_decay: factor in (0, 1] by which the rate falls from one layer to the one below it.
        warmup: share of all steps with a rising rate, in [0, 1).
        label_smoothing: in [0, 1).
        dropout: before the head, in [0, 1).
        augment: strength in [0, 2] of flips, crops, rotation and colour; 0 is none, 1 the default.
        flip: mirror half of the images left to right; off where left and right mean something.
        ema: decay of the averaged weights, in [0, 1); 0 is off.
        clip: largest norm of the gradient; 0 is off.
        patience: epochs without a better monitor loss before training stops.
        optimizer: "adamw", "adam", "sgd" (Nesterov momentum 0.9), "lion" or "muon".
        schedule: of every rate after the warm-up: "cosine", "one-cycle", "step" (a tenth after 60 % and after
            85 %) or "constant".
        accumulate: batches whose gradients are added up for one step, >= 1.
        policy: of augmentation: "standard" (one affine warp and one colour matrix), "trivial" (TrivialAugment) or
            "rand" (RandAugment); the last two follow `flip` and ignore `augment`.
        rand_ops: operations that RandAugment applies to each image.
        rand_magnitude: of each of them, in [0, 30].
        erasing: probability that a rectangle of an image is erased.
        mixup: alpha of mixup's Beta distribution; 0 is off.
        cutmix: alpha of CutMix's Beta distribution; 0 is off; beside mixup, each batch draws one of the two.
        drop_path: rate of stochastic depth, in [0, 1); ignored by backbones without it.
        l1: penalty on the absolute values of the weights that decay.
        l2_sp: penalty on half the squared distance of the body from its starting point (Li et al. 2018).
        focal: gamma of the focal loss (Lin et al. 2017); 0 is cross-entropy.
        class_weights: "none", or "balanced" (the inverse of each class's share of the train rows).
        sampling: "natural", or "balanced" (every class equally often).
        batchnorm: "adapt", or "frozen": statistics stay those of the starting point.
        frozen: share of the backbone's layers, from the input, that strategy `partial` leaves as they are.
        lora_rank: of the update that strategy `lora` learns of each weight matrix.
        head_layers: hidden layers of the head; 0 is a linear head.
        head_width: of each hidden layer.
        average_best: checkpoints of the lowest monitor loss whose average is kept if the monitor set prefers it
            to the best one alone; 1 is off.
        tta: average the predictions of each image and its mirror image; doubles the cost of predicting.
    """

    epochs: int = 8
    batch_size: int = 32
    lr: float = 1e-3
    head_lr: float = 1e-2
    weight_decay: float = 0.01
    layer_decay: float = 1.0
    warmup: float = 0.1
    label_smoothing: float = 0.1
    dropout: float = 0.0
    augment: float = 1.0
    flip: bool = True
    ema: float = 0.98
    clip: float = 1.0
    patience: int = 5
    optimizer: str = "adamw"
    schedule: str = "cosine"
    accumulate: int = 1
    policy: str = "standard"
    rand_ops: int = 2
    rand_magnitude: float = 9.0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    drop_path: float = 0.0
    l1: float = 0.0
    l2_sp: float = 0.0
    focal: float = 0.0
    class_weights: str = "none"
    sampling: str = "natural"
    batchnorm: str = "adapt"
    frozen: float = 0.5
    lora_rank: int = 8
    head_layers: int = 0
    head_width: int = 256
    average_best: int = 1
    tta: bool = False

    def identity(self) -> dict[str, Any]:
        """What tells recipes apart: the first fourteen always, the others where they are not at their default.

        A hyperparameter that is added later therefore changes no candidate that does not use it.
        """
        values = dataclasses.asdict(self)
        return {k: v for k, v in values.items() if k in _ALWAYS or v != getattr(_DEFAULT, k)}


_DEFAULT = Recipe()

_ALWAYS = tuple(list(Recipe.__dataclass_fields__)[:14])

#: Lowest and highest value of each hyperparameter that is a number.
RECIPE_LIMITS: dict[str, tuple[float, float]] = {
    "epochs": (1, 10_000),
    "batch_size": (2, 65_536),
    "lr": (0, math.inf),
    "head_lr": (0, math.inf),
    "weight_decay": (0, math.inf),
    "layer_decay": (1e-6, 1),
    "warmup": (0, 0.99),
    "label_smoothing": (0, 0.99),
    "dropout": (0, 0.99),
    "augment": (0, 2),
    "ema": (0, 0.999999),
    "clip": (0, math.inf),
    "patience": (1, 10_000),
    "accumulate": (1, 65_536),
    "rand_ops": (1, 14),
    "rand_magnitude": (0, 30),
    "erasing": (0, 1),
    "mixup": (0, 100),
    "cutmix": (0, 100),
    "drop_path": (0, 0.99),
    "l1": (0, math.inf),
    "l2_sp": (0, math.inf),
    "focal": (0, 100),
    "frozen": (0, 1),
    "lora_rank": (1, 4096),
    "head_layers": (0, 8),
    "head_width": (1, 65_536),
    "average_best": (1, 100),
}

#: The words of each hyperparameter that is one of a few.
RECIPE_CHOICES: dict[str, tuple[str, ...]] = {
    "optimizer": ("adamw", "adam", "sgd", "lion", "muon"),
    "schedule": ("cosine", "one-cycle", "step", "constant"),
    "policy": ("standard", "trivial", "rand"),
    "class_weights": ("none", "balanced"),
    "sampling": ("natural", "balanced"),
    "batchnorm": ("adapt", "frozen"),
}
