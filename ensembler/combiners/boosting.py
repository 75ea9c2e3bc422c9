"""Gradient boosting (XGBoost: Chen & Guestrin 2016) that starts from the mean ensemble and corrects it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..metrics import METRICS, clipped_log
from .base import Combiner, Floats, Fold, Labels, Proba, weighted_mean
from .inner import inner_splits

if TYPE_CHECKING:
    import xgboost as xgb


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
        booster_: uint8, the model as UBJ; empty when the mean was best.
    """

    name: ClassVar[str] = "boosting"
    learned: ClassVar[tuple[str, ...]] = ("booster_",)

    rounds: int = 300
    patience: int = 5
    learning_rate: float = 0.2
    max_depth: int = 2
    seed: int = 0
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

        features, margin = _features(proba), _margin(proba)
        settings = self._settings(proba.shape[2])
        n_rounds = self._best_rounds(features, margin, labels, fold, settings)
        self.booster_ = np.empty(0, np.uint8)
        if n_rounds:
            matrix = xgb.DMatrix(features, label=labels, base_margin=margin, nthread=1)
            booster = xgb.train(settings, matrix, num_boost_round=n_rounds)
            self.booster_ = np.frombuffer(booster.save_raw("ubj"), np.uint8).copy()

    def _best_rounds(
        self,
        features: NDArray[np.float32],
        margin: NDArray[np.float32],
        labels: Labels,
        fold: Fold,
        settings: dict[str, Any],
    ) -> int:
        import xgboost as xgb

        grown = []
        for fitted, held_out in inner_splits(labels, fold):
            train, check = (
                xgb.DMatrix(features[rows], label=labels[rows], base_margin=margin[rows], nthread=1)
                for rows in (fitted, held_out)
            )
            grown.append((xgb.Booster(settings, [train, check]), train, check, held_out))
        predicted = np.exp(margin)
        log_loss = METRICS["log_loss"]
        best_loss, best_round = log_loss(labels, predicted), 0
        for n_rounds in range(1, self.rounds + 1 if grown else 1):
            for booster, train, check, held_out in grown:
                booster.update(train, n_rounds - 1)
                predicted[held_out] = booster.predict(check)
            loss = log_loss(labels, predicted)
            if loss < best_loss:
                best_loss, best_round = loss, n_rounds
            elif n_rounds - best_round >= self.patience:
                break
        return best_round

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

        matrix = xgb.DMatrix(_features(proba), base_margin=_margin(proba), nthread=1)
        combined: Proba = self._booster().predict(matrix)
        return combined

    def _booster(self) -> xgb.Booster:
        """The model behind `booster_`, loaded once."""
        import xgboost as xgb

        if self._live is None or self._live[0] is not self.booster_:
            booster = xgb.Booster({"nthread": 1})
            booster.load_model(bytearray(self.booster_.tobytes()))
            self._live = (self.booster_, booster)
        return self._live[1]


def _features(proba: Proba) -> Proba:
    """float32 (samples, members x classes) log-probabilities."""
    logs = clipped_log(proba.transpose(1, 0, 2)).astype(np.float32)
    return logs.reshape(len(logs), -1)


def _margin(proba: Proba) -> Proba:
    """float32 (samples, classes): the logits of the mean ensemble, from which boosting starts."""
    return clipped_log(weighted_mean(proba, None)).astype(np.float32)
