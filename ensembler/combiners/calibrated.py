"""Any combiner, with its probabilities calibrated on rows that it was not fitted on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from ..errors import CombinerError
from ..metrics import clipped_log
from ..predictions import Predictions
from ..probability import TEMPERATURE_PRIOR_SD, fit_temperature, log_softmax, softmax
from .base import Floats, Labels, Proba
from .composite import Wrapper
from .inner import inner_cross_fit

Method = Literal["temperature", "vector", "isotonic"]


@dataclass(eq=False, kw_only=True)
class Calibrated(Wrapper):
    """Calibrates a base on inner cross-fitted rows, then fits the base on all of them.

    - `temperature` (Guo et al. 2017) divides the logits by one number; no first choice changes.
    - `vector` (the same) gives each class a factor and a shift of its logit.
    - `isotonic` (Zadrozny & Elkan 2002) learns a monotone curve for each class against the rest; the rows are
      then normalised. A curve from n rows stays within 1 / (n + 2) of 0 and 1 (Laplace's rule of succession).

    Temperature and vector scaling are held near doing nothing by a weak prior, log T ~ N(0, 0.5) and the like
    for each factor and shift, which a few hundred rows outweigh: rows without a mistake must not drive the
    temperature to 0.

    Attributes:
        base: key of any combiner.
        base_params: its hyperparameters.
        method: `temperature`, `vector` or `isotonic`.
        factor_: float64 (classes,), multiplies the logits; ones for `isotonic`.
        shift_: float64 (classes,), added to the logits; zeros but for `vector`.
        knots_: float64 (knots, 2), probability before and after of the classes' curves, one after another;
            empty but for `isotonic`.
        knot_counts_: int64 (classes,), how many of them are each class's.
    """

    name: ClassVar[str] = "calibrated"
    learned: ClassVar[tuple[str, ...]] = ("factor_", "shift_", "knots_", "knot_counts_")

    method: Method = "temperature"
    factor_: Floats = field(init=False, repr=False)
    shift_: Floats = field(init=False, repr=False)
    knots_: Floats = field(init=False, repr=False)
    knot_counts_: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in get_args(Method):
            raise CombinerError(
                f"{self.name}: method is {self.method!r}; expected one of {', '.join(get_args(Method))}"
            )

    def _fit_rows(self, predictions: Predictions) -> None:
        base, labels, n_classes = self._new_base(), predictions.labels, predictions.n_classes
        self.inner_ = {"base": base.clone().fit(predictions)}
        self.factor_, self.shift_ = np.ones(n_classes), np.zeros(n_classes)
        self.knots_, self.knot_counts_ = np.empty((0, 2)), np.zeros(n_classes, np.int64)
        honest = inner_cross_fit(base, predictions)
        if honest is None:
            return
        if self.method == "temperature":
            self.factor_ /= fit_temperature(clipped_log(honest), labels)
        elif self.method == "vector":
            self.factor_, self.shift_ = _fit_vector(clipped_log(honest), labels)
        else:
            curves = [_curve(honest[:, k], labels == k) for k in range(n_classes)]
            self.knots_ = np.concatenate(curves)
            self.knot_counts_ = np.array([len(curve) for curve in curves])

    def _combine_rows(self, predictions: Predictions) -> NDArray[np.floating]:
        proba = self._ask("base", predictions)
        if not self.knot_counts_.any():
            return softmax(clipped_log(proba) * self.factor_ + self.shift_)
        curves = np.split(self.knots_, np.cumsum(self.knot_counts_)[:-1])
        columns = [np.interp(proba[:, k], curve[:, 0], curve[:, 1]) for k, curve in enumerate(curves)]
        return np.stack(columns, axis=1)


def _fit_vector(logits: Floats, labels: Labels) -> tuple[Floats, Floats]:
    """Factors and shifts, each (classes,), at the maximum of likelihood times prior."""
    n_samples, n_classes = logits.shape
    target = np.eye(n_classes)[labels]

    def objective(flat: Floats) -> tuple[float, Floats]:
        factor, shift = flat.reshape(2, n_classes)
        log_proba = log_softmax(logits * factor + shift)
        error = np.exp(log_proba) - target
        off = (flat - start) / TEMPERATURE_PRIOR_SD
        gradient = np.concatenate([(error * logits).sum(axis=0), error.sum(axis=0)])
        loss = -(target * log_proba).sum() + (off**2).sum() / 2
        return loss / n_samples, (gradient + off / TEMPERATURE_PRIOR_SD) / n_samples

    start = np.repeat([1.0, 0.0], n_classes)
    found = minimize(objective, start, method="L-BFGS-B", jac=True, options={"maxiter": 500, "gtol": 1e-7})
    factor, shift = found.x.reshape(2, n_classes)
    return factor, shift


def _curve(proba: Proba, positive: NDArray[np.bool_]) -> Floats:
    """The isotonic regression of `positive` on `proba`: (knots, 2), ascending, linear in between."""
    from sklearn.isotonic import IsotonicRegression

    edge = 1 / (len(proba) + 2)
    model = IsotonicRegression(y_min=edge, y_max=1 - edge)
    model.fit(proba.astype(np.float64), positive.astype(np.float64))
    return np.stack([model.X_thresholds_, model.y_thresholds_], axis=1)
