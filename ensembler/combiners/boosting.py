"""Gradient boosting (XGBoost: Chen & Guestrin 2016) that starts from the mean ensemble and corrects it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..metrics import METRICS, clipped_log
from .base import Combiner, Floats, Fold, Labels, Proba, weighted_mean
from .inner import best_step, inner_splits

if TYPE_CHECKING:
    import xgboost as xgb

#: Columns for what the members say beside their mean; 200 columns instead of 42 take four times as long.
MAX_AXES = 32


@dataclass(eq=False, kw_only=True)
class Boosting(Combiner):
    """Trees on the members' log-probabilities, added to the log of the averaged probabilities.

    The number of rounds is chosen before the fit: one model for each inner split grows in step with the
    others, until their held-out log loss, taken together, has not improved for `patience` rounds. Round 0 is
    the mean ensemble and takes part, so trees that do not help are not grown. All rows then train the chosen
    number.

    Attributes:
        rounds: most rounds, 0 or more.
        patience: rounds without improvement that end the search, 1 or more.
        learning_rate: in (0, 1].
        max_depth: of a tree, 1 or more.
        seed: of the draws of rows and columns.
        axes_: float32 (members x classes, axes), see `principal_axes`.
        booster_: uint8, the model as UBJ; empty when the mean was best.
    """

    name: ClassVar[str] = "boosting"
    learned: ClassVar[tuple[str, ...]] = ("axes_", "booster_")
    by_name: ClassVar[bool] = True

    rounds: int = 300
    patience: int = 5
    learning_rate: float = 0.2
    max_depth: int = 2
    seed: int = 0
    axes_: Proba = field(init=False, repr=False)
    booster_: NDArray[np.uint8] = field(init=False, repr=False)
    _live: tuple[NDArray[np.uint8], Any] | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("rounds", int, 0)
        self._require("patience", int, 1)
        self._require("learning_rate", (int, float), 1e-9, 1)
        self._require("max_depth", int, 1)
        self._require("seed", int, 0)

    def _fit(self, proba: Proba, labels: Labels, fold: Fold) -> None:
        import xgboost as xgb

        self.axes_ = principal_axes(proba)
        features, margin = self._features(proba), _margin(proba)
        settings = self._settings(proba.shape[2])
        n_rounds, _ = best_step(self._losses(features, margin, labels, fold, settings), self.patience)
        self.booster_ = np.empty(0, np.uint8)
        if n_rounds:
            matrix = xgb.DMatrix(features, label=labels, base_margin=margin, nthread=1)
            booster = xgb.train(settings, matrix, num_boost_round=n_rounds)
            self.booster_ = np.frombuffer(booster.save_raw("ubj"), np.uint8).copy()

    def _losses(
        self, features: Proba, margin: Proba, labels: Labels, fold: Fold, settings: dict[str, Any]
    ) -> Iterator[float]:
        """Held-out log loss without a round, after the first one, and so on."""
        import xgboost as xgb

        grown = []
        for fitted, held_out in inner_splits(labels, fold):
            train, check = (
                xgb.DMatrix(features[rows], label=labels[rows], base_margin=margin[rows], nthread=1)
                for rows in (fitted, held_out)
            )
            grown.append((xgb.Booster(settings, [train, check]), train, check, held_out))
        predicted = np.exp(margin)
        yield METRICS["log_loss"](labels, predicted)
        for done in range(self.rounds if grown else 0):
            for booster, train, check, held_out in grown:
                booster.update(train, done)
                predicted[held_out] = booster.predict(check)
            yield METRICS["log_loss"](labels, predicted)

    def _settings(self, n_classes: int) -> dict[str, Any]:
        return {
            "objective": "multi:softprob",
            "num_class": n_classes,
            "learning_rate": self.learning_rate,
            "max_depth": self.max_depth,
            "subsample": 0.8,
            "colsample_bytree": 0.5,
            "tree_method": "hist",
            "max_bin": 64,
            "nthread": 1,
            "seed": self.seed,
        }

    def _combine(self, proba: Proba) -> Floats | Proba:
        if not self.booster_.size:
            return weighted_mean(proba, None)
        import xgboost as xgb

        matrix = xgb.DMatrix(self._features(proba), base_margin=_margin(proba), nthread=1)
        combined: Proba = self._booster().predict(matrix)
        return combined

    def _features(self, proba: Proba) -> Proba:
        """float32 (samples, columns): log-probabilities, all or their mean and what the axes see of the rest."""
        logs = _logs(proba)
        if not self.axes_.shape[1]:
            return logs.reshape(len(logs), -1).astype(np.float32)
        return np.concatenate([logs.mean(axis=1), _rest(logs) @ self.axes_], axis=1).astype(np.float32)

    def _booster(self) -> xgb.Booster:
        """The model behind `booster_`, loaded once."""
        import xgboost as xgb

        if self._live is None or self._live[0] is not self.booster_:
            booster = xgb.Booster({"nthread": 1})
            booster.load_model(bytearray(self.booster_.tobytes()))
            self._live = (self.booster_, booster)
        return self._live[1]


def principal_axes(proba: Proba) -> Proba:
    """The directions in which the members differ most: float32 (members x classes, at most `MAX_AXES`).

    A tree's time goes with the columns, and those of many members say much the same: the log-probabilities
    less their mean over the members are seen along these axes alone. None, (members x classes, 0), where there
    are hardly more columns than that.
    """
    n_columns, n_classes = proba.shape[0] * proba.shape[2], proba.shape[2]
    if n_columns <= MAX_AXES + n_classes:
        return np.empty((n_columns, 0), np.float32)
    rest = _rest(_logs(proba))
    return np.linalg.eigh(rest.T @ rest)[1][:, : -MAX_AXES - 1 : -1].astype(np.float32)


def _logs(proba: Proba) -> Floats:
    """float64 (samples, members, classes)."""
    return clipped_log(proba.transpose(1, 0, 2))


def _rest(logs: Floats) -> Floats:
    """(samples, members x classes): what is left of the log-probabilities without their mean."""
    return np.asarray((logs - logs.mean(axis=1, keepdims=True)).reshape(len(logs), -1))


def _margin(proba: Proba) -> Proba:
    """float32 (samples, classes): the logits of the mean ensemble, from which boosting starts."""
    return clipped_log(weighted_mean(proba, None)).astype(np.float32)
