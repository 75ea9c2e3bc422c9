"""Stacking by a small neural network that starts at the mean ensemble."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..metrics import METRICS, clipped_log
from ..probability import softmax
from .base import Floats, Fold, Labels, Proba, weighted_mean
from .inner import best_step, inner_splits
from .meta import Stacker

#: Rows a step.
BATCH = 128

#: Decay rates and guard of Adam (Kingma & Ba 2015), as everybody uses them.
BETA_1, BETA_2, GUARD = 0.9, 0.999, 1e-8

Layers = list[NDArray[np.float32]]


@dataclass(eq=False, kw_only=True)
class StackingMlp(Stacker):
    """One hidden layer of rectified units, whose output is added to the log of the averaged probabilities.

    The output layer starts at zero, so epoch 0 is the mean ensemble, already calibrated as well as that is.
    The number of epochs is chosen before the fit, as in `boosting`: one network for each inner split learns in
    step with the others until their held-out log loss, taken together, has not improved for `patience`
    epochs; early stopping on log loss is what keeps the network calibrated. All rows then train for the
    chosen number. Steps are Adam's, with decoupled weight decay (Loshchilov & Hutter 2019).

    Attributes:
        hidden: units, 1 or more.
        epochs: most epochs, 0 or more.
        patience: epochs without improvement that end the search, 1 or more.
        learning_rate: positive.
        weight_decay: 0 or more.
        seed: of the first weights and of the order of rows.
        layers_in_: float32 (columns + 1, hidden), the intercepts last.
        layers_out_: float32 (hidden + 1, classes), the intercepts last.
        epochs_: int64 (1,), the number chosen.
    """

    name: ClassVar[str] = "stacking_mlp"
    learned: ClassVar[tuple[str, ...]] = (*Stacker.learned, "layers_in_", "layers_out_", "epochs_")

    hidden: int = 16
    epochs: int = 60
    patience: int = 4
    learning_rate: float = 0.003
    weight_decay: float = 0.05
    seed: int = 0
    layers_in_: NDArray[np.float32] = field(init=False, repr=False)
    layers_out_: NDArray[np.float32] = field(init=False, repr=False)
    epochs_: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("hidden", int, 1)
        self._require("epochs", int, 0)
        self._require("patience", int, 1)
        self._require("learning_rate", (int, float), 1e-9)
        self._require("weight_decay", (int, float), 0)
        self._require("seed", int, 0)

    def _fit_design(self, design: Floats, proba: Proba, labels: Labels, fold: Fold) -> None:
        inputs, offset = _inputs(design), clipped_log(weighted_mean(proba, None)).astype(np.float32)
        n_epochs, _ = best_step(self._losses(inputs, offset, labels, fold), self.patience)
        self.epochs_ = np.array([n_epochs])
        self.layers_in_, self.layers_out_ = self._first_layers(inputs.shape[1], offset.shape[1])
        training = self._training(inputs, offset, labels)
        for _, layers in zip(range(n_epochs), training, strict=False):
            self.layers_in_, self.layers_out_ = layers

    def _combine_design(self, design: Floats, proba: Proba) -> Proba:
        offset = clipped_log(weighted_mean(proba, None))
        return softmax(offset + _forward([self.layers_in_, self.layers_out_], _inputs(design))[1])

    def _losses(
        self, inputs: NDArray[np.float32], offset: NDArray[np.float32], labels: Labels, fold: Fold
    ) -> Iterator[float]:
        """Held-out log loss without an epoch, after the first one, and so on."""
        learning = [
            (self._training(inputs[fitted], offset[fitted], labels[fitted]), held_out)
            for fitted, held_out in inner_splits(labels, fold)
        ]
        predicted = softmax(offset)
        yield METRICS["log_loss"](labels, predicted)
        for _ in range(self.epochs if learning else 0):
            for training, held_out in learning:
                layers = next(training)
                predicted[held_out] = softmax(offset[held_out] + _forward(layers, inputs[held_out])[1])
            yield METRICS["log_loss"](labels, predicted)

    def _first_layers(self, n_columns: int, n_classes: int) -> Layers:
        """He et al. 2015 for the hidden layer; the output layer adds nothing yet."""
        rng = np.random.default_rng(self.seed)
        first = rng.normal(scale=np.sqrt(2 / n_columns), size=(n_columns, self.hidden))
        first[-1] = 0
        return [first.astype(np.float32), np.zeros((self.hidden + 1, n_classes), np.float32)]

    def _training(
        self, inputs: NDArray[np.float32], offset: NDArray[np.float32], labels: Labels
    ) -> Iterator[Layers]:
        """The layers after each epoch, without end; they change in place."""
        target = np.eye(offset.shape[1], dtype=np.float32)[labels]
        layers = self._first_layers(inputs.shape[1], offset.shape[1])
        rng = np.random.default_rng([self.seed, 1])
        means, squares = [np.zeros_like(w) for w in layers], [np.zeros_like(w) for w in layers]
        step = 0
        while True:
            order = rng.permutation(len(inputs))
            for start in range(0, len(order), BATCH):
                rows = order[start : start + BATCH]
                step += 1
                rate = self.learning_rate * np.sqrt(1 - BETA_2**step) / (1 - BETA_1**step)
                gradients = _gradients(layers, inputs[rows], offset[rows], target[rows])
                for i, gradient in enumerate(gradients):
                    means[i] += (1 - BETA_1) * (gradient - means[i])
                    squares[i] += (1 - BETA_2) * (gradient**2 - squares[i])
                    layers[i] *= 1 - self.learning_rate * self.weight_decay
                    layers[i] -= np.float32(rate) * means[i] / (np.sqrt(squares[i]) + GUARD)
            yield layers


def _inputs(design: Floats) -> NDArray[np.float32]:
    """The columns in units of a few, and ones: a log-probability runs from 0 to 16, and its mean size is 4."""
    return np.concatenate([design / 4, np.ones((len(design), 1))], axis=1).astype(np.float32)


def _forward(layers: Layers, inputs: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Hidden units, with ones for the intercepts, (samples, hidden + 1), and outputs (samples, classes)."""
    hidden = np.ones((len(inputs), layers[1].shape[0]), np.float32)
    np.maximum(inputs @ layers[0], 0, out=hidden[:, :-1])
    return hidden, hidden @ layers[1]


def _gradients(
    layers: Layers, inputs: NDArray[np.float32], offset: NDArray[np.float32], target: NDArray[np.float32]
) -> Layers:
    """Of the mean log loss, for both layers."""
    hidden, outputs = _forward(layers, inputs)
    error = (softmax(offset + outputs) - target) / np.float32(len(inputs))
    back = (error @ layers[1][:-1].T) * (hidden[:, :-1] > 0)
    return [inputs.T @ back, hidden.T @ error]
