"""Stacking by gradient-boosted trees (XGBoost: Chen & Guestrin 2016) that all classes share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..metrics import METRICS
from ..probability import softmax
from .base import Floats, Fold, Labels, Proba, weighted_mean
from .inner import best_step, inner_splits
from .meta import Stacker

if TYPE_CHECKING:
    import xgboost as xgb

#: float32 (samples, classes, columns)
Pairs = NDArray[np.float32]


@dataclass(eq=False, kw_only=True)
class StackingTrees(Stacker):
    """Trees that score a class by what the members say of it; probabilities are the softmax of the scores.

    Where `boosting` corrects the mean ensemble, with trees of their own for each class, these start from
    nothing and judge one (row, class) pair after another: by the log-probability that each member gives the
    class, their mean, minimum, maximum and deviation, the lead over the best class, how far the members
    disagree about the row, and which class it is. So one tree a round learns from all classes at once how to
    read the members, and only where that helps what is special about one. It is a conditional logit model
    (McFadden 1974) whose utility is a sum of trees.

    The number of rounds is chosen as in `boosting`. Where trees are no better than the mean ensemble on inner
    held-out rows, there are none and the answer is the mean.

    Attributes:
        rounds: most rounds, 0 or more.
        patience: rounds without improvement that end the search, 1 or more.
        learning_rate: in (0, 1].
        max_depth: of a tree, 1 or more.
        seed: of the draws of rows and columns.
        disagreement: on by default, because trees can tell what is clear from what is disputed.
        booster_: uint8, the model as UBJ; empty when the mean was better.
    """

    name: ClassVar[str] = "stacking_trees"
    learned: ClassVar[tuple[str, ...]] = (*Stacker.learned, "booster_")

    rounds: int = 300
    patience: int = 5
    learning_rate: float = 0.2
    max_depth: int = 3
    seed: int = 0
    disagreement: bool = True
    booster_: NDArray[np.uint8] = field(init=False, repr=False)
    _live: tuple[NDArray[np.uint8], Any] | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("rounds", int, 0)
        self._require("patience", int, 1)
        self._require("learning_rate", (int, float), 1e-9, 1)
        self._require("max_depth", int, 1)
        self._require("seed", int, 0)

    def _fit_design(self, design: Floats, proba: Proba, labels: Labels, fold: Fold) -> None:
        pairs, log_loss = _pairs(design, proba), METRICS["log_loss"]
        n_rounds, loss = best_step(self._losses(pairs, labels, fold), self.patience)
        self.booster_ = np.empty(0, np.uint8)
        if n_rounds and loss < log_loss(labels, weighted_mean(proba, None)):
            *_, booster = islice(self._growing(pairs, labels), n_rounds)
            self.booster_ = np.frombuffer(booster.save_raw("ubj"), np.uint8).copy()

    def _losses(self, pairs: Pairs, labels: Labels, fold: Fold) -> Iterator[float]:
        """Held-out log loss without a round, after the first one, and so on."""
        grown = []
        predicted = np.full(pairs.shape[:2], 1 / pairs.shape[1], np.float32)
        for fitted, held_out in inner_splits(labels, fold):
            check = _matrix(pairs[held_out])
            grown.append((self._growing(pairs[fitted], labels[fitted], check), check, held_out))
        yield METRICS["log_loss"](labels, predicted)
        for _ in range(self.rounds if grown else 0):
            for growing, check, held_out in grown:
                predicted[held_out] = _ask(next(growing), check, pairs.shape[1])
            yield METRICS["log_loss"](labels, predicted)

    def _growing(
        self, pairs: Pairs, labels: Labels, watched: xgb.DMatrix | None = None
    ) -> Iterator[xgb.Booster]:
        """The model after each round, without end; it is one that grows. `watched` are rows to be asked about."""
        import xgboost as xgb

        n_classes = pairs.shape[1]
        target, train = np.eye(n_classes)[labels], _matrix(pairs)
        train.set_label(target.ravel())

        def objective(scores: NDArray[np.float32], _: xgb.DMatrix) -> tuple[Floats, Floats]:
            proba = softmax(scores.reshape(-1, n_classes)).astype(np.float64)
            return (proba - target).ravel(), np.maximum(proba * (1 - proba), 1e-6).ravel()

        settings = {
            "learning_rate": self.learning_rate,
            "max_depth": self.max_depth,
            "subsample": 0.8,
            "colsample_bynode": 0.5,
            "tree_method": "hist",
            "max_bin": 32,
            "base_score": 0.0,
            "nthread": 1,
            "seed": self.seed,
        }
        booster = xgb.Booster(settings, [train] if watched is None else [train, watched])
        for done in itertools.count():  # pragma: no branch - whoever asks for rounds has had enough first
            booster.update(train, done, fobj=objective)
            yield booster

    def _combine_design(self, design: Floats, proba: Proba) -> Floats | Proba:
        if not self.booster_.size:
            return weighted_mean(proba, None)
        return _ask(self._booster(), _matrix(_pairs(design, proba)), proba.shape[2])

    def _booster(self) -> xgb.Booster:
        """The model behind `booster_`, loaded once."""
        import xgboost as xgb

        if self._live is None or self._live[0] is not self.booster_:
            booster = xgb.Booster({"nthread": 1})
            booster.load_model(bytearray(self.booster_.tobytes()))
            self._live = (self.booster_, booster)
        return self._live[1]


def _pairs(design: Floats, proba: Proba) -> Pairs:
    """float32 (samples, classes, columns): what is known of each class of each row."""
    n_members, n_samples, n_classes = proba.shape
    logs, extra = np.split(design, [n_members * n_classes], axis=1)
    of_members = logs.reshape(n_samples, n_members, n_classes).transpose(0, 2, 1)
    mean = of_members.mean(axis=2)
    ordered = np.sort(mean, axis=1)[:, -2:]
    rival = np.where(mean == ordered[:, 1:], ordered[:, :1], ordered[:, 1:])
    classes = np.broadcast_to(np.arange(n_classes), mean.shape)
    own = [
        mean,
        mean - rival,
        of_members.min(axis=2),
        of_members.max(axis=2),
        of_members.std(axis=2),
        classes,
    ]
    rows = np.broadcast_to(extra[:, None], (n_samples, n_classes, extra.shape[1]))
    return np.concatenate([np.stack(own, axis=2), of_members, rows], axis=2).astype(np.float32)


def _matrix(pairs: Pairs) -> xgb.DMatrix:
    import xgboost as xgb

    return xgb.DMatrix(pairs.reshape(-1, pairs.shape[2]), nthread=1)


def _ask(booster: xgb.Booster, pairs: xgb.DMatrix, n_classes: int) -> Proba:
    """float32 (samples, classes)."""
    return softmax(booster.predict(pairs, output_margin=True).reshape(-1, n_classes))
