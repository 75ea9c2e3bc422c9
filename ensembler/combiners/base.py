"""What a combiner is: it fits on Predictions, and maps Predictions to one-member Predictions.

Lifecycle: the constructor stores hyperparameters; `fit` learns from out-of-fold rows and returns self; what
was learned ends in an underscore; `predict` maps any rows of the same members and classes. A fitted combiner
is its hyperparameters and a few arrays (`get_state`), so it is stored without a pickle and restored to the
same bits.

A new combiner is a dataclass that declares its hyperparameters as fields, its key as `name`, the arrays it
learns as `learned`, and implements `_fit` and `_combine`; or, where arrays of probabilities are not all it
needs, `_fit_rows` and `_combine_rows`. One that holds other combiners is a `composite.Composite`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from ..errors import CombinerError, ConfigError
from ..metrics import get_metric
from ..predictions import Predictions

Proba = NDArray[np.float32]
Labels = NDArray[np.int64]
Fold = NDArray[np.int16]
Floats = NDArray[np.float64]


@dataclass(eq=False, kw_only=True)
class Combiner:
    """Makes one prediction out of those of several members.

    Attributes:
        name: key in the registry.
        by_name: whether `fit` puts the members in the order of their names: for what draws, or adds up in an
            order, so that the order in which members come makes no difference.
        learned: names of the array attributes that `fit` sets; with the hyperparameters they are the whole
            state.
        label: name of the member it predicts; defaults to the key.
        members_: the members it was fitted on.
        classes_: the classes it was fitted on.
        weights_: float64 (members,) summing to 1 where the members are weighted, else None. A member of
            weight 0 has no influence, and no other learned array has an axis over members where weights are
            set.
    """

    name: ClassVar[str]
    learned: ClassVar[tuple[str, ...]] = ()
    by_name: ClassVar[bool] = False

    label: str = ""
    members_: tuple[str, ...] = field(init=False, default=(), repr=False)
    classes_: tuple[str, ...] = field(init=False, default=(), repr=False)
    weights_: Floats | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        self.label = self.label or self.name

    # ------------------------------------------------------------------ what a subclass gives

    def _fit(self, proba: Proba, labels: Labels, fold: Fold) -> None:
        """Learns from `proba` (members, samples, classes), `labels` and `fold` (samples,); changes none."""
        raise NotImplementedError

    def _combine(self, proba: Proba) -> NDArray[Any]:
        """(members, samples, classes) -> (samples, classes): non-negative; `predict` normalises the rows."""
        raise NotImplementedError

    def _fit_rows(self, predictions: Predictions) -> None:
        """`_fit` of what needs more than probabilities: features, or the names of the members."""
        self._fit(predictions.proba, predictions.labels, predictions.fold)

    def _combine_rows(self, predictions: Predictions) -> NDArray[Any]:
        """`_combine` of what needs more; the members are those of `members_`, in their order."""
        return self._combine(predictions.proba)

    # ------------------------------------------------------------------ what a user calls

    def fit(self, predictions: Predictions) -> Self:
        """Learns from out-of-fold rows.

        Raises:
            CombinerError: when given the test split, which nothing learns from.
        """
        if predictions.split == "test":
            raise CombinerError(f"{self.label}: given the test split to fit on; fit on out-of-fold rows")
        if self.by_name and list(predictions.members) != sorted(predictions.members):
            predictions = predictions.select(sorted(predictions.members))
        self.members_, self.classes_ = predictions.members, predictions.classes
        # A fit is many small products: threads cost it more than they bring (ten times on a busy machine),
        # and on one its bits do not depend on the number of cores.
        with _blas().limit(limits=1):
            self._fit_rows(predictions)
        return self

    def predict(self, predictions: Predictions) -> Predictions:
        """One member, named `label`, over the same samples.

        Members may come in another order than at `fit`; they are matched by name.

        Raises:
            CombinerError: before `fit`, or when members or classes are not those of `fit`.
        """
        if not self.members_:
            raise CombinerError(f"{self.label}: not fitted; call fit first")
        if predictions.classes != self.classes_:
            raise CombinerError(
                f"{self.label}: fitted on classes {_shown(self.classes_)}; "
                f"given {_shown(predictions.classes)}"
            )
        if predictions.members != self.members_:
            if sorted(predictions.members) != sorted(self.members_):
                missing = [m for m in self.members_ if m not in predictions.members]
                extra = [m for m in predictions.members if m not in self.members_]
                raise CombinerError(
                    f"{self.label}: members differ from those of fit: {_shown(missing)} missing, "
                    f"{_shown(extra)} unknown; use Predictions.select"
                )
            predictions = predictions.select(self.members_)
        with _blas().limit(limits=1):
            proba = np.asarray(self._combine_rows(predictions), np.float64)
        return predictions.with_proba(proba / proba.sum(axis=1, keepdims=True), [self.label])

    @property
    def used_members_(self) -> tuple[str, ...]:
        """The members that influence the output, in the order of `members_`."""
        if self.weights_ is None:
            return self.members_
        return tuple(m for m, weight in zip(self.members_, self.weights_, strict=True) if weight > 0)

    def asked_(self, predictions: Predictions) -> dict[str, float]:  # noqa: ARG002 - a cascade's
        """Share of these rows, 0 to 1, for which each of `used_members_` has to be run; of fitted rows, an estimate."""
        return dict.fromkeys(self.used_members_, 1.0)

    @property
    def needs_features(self) -> bool:
        """Whether it reads `Predictions.features`, fitted or not; a bundle has none."""
        return False

    def pruned(self) -> Combiner:
        """The same predictions from `used_members_` alone: what an export ships. Itself when all are used."""
        used = self.used_members_
        if self.weights_ is None or used == self.members_:
            return self
        small = self.clone()
        small.members_, small.classes_ = used, self.classes_
        for name in self.learned:
            setattr(small, name, getattr(self, name))
        small.weights_ = self.weights_[[self.members_.index(m) for m in used]]
        return small

    # ------------------------------------------------------------------ parameters and state

    def get_params(self) -> dict[str, Any]:
        """The hyperparameters, by name; JSON-able."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.init}

    @classmethod
    def tuned_for(cls, metric: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """The hyperparameters `options`, and `metric` where it optimises one and they do not say which."""
        optimises = any(f.name == "metric" for f in fields(cls))
        return ({"metric": metric} if optimises else {}) | dict(options)

    def clone(self) -> Self:
        """The same hyperparameters, not fitted."""
        return type(self)(**self.get_params())

    def get_state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """All of a fitted combiner: a JSON-able dict, and arrays for safetensors. See `from_state`."""
        state = {
            "combiner": self.name,
            "params": self.get_params(),
            "members": list(self.members_),
            "classes": list(self.classes_),
        }
        return state, {name: np.ascontiguousarray(getattr(self, name)) for name in self.learned}

    def restore(
        self,
        members: Sequence[str],
        classes: Sequence[str],
        arrays: Mapping[str, NDArray[Any]],
        inner: Mapping[str, Combiner] | None = None,
    ) -> Self:
        """Becomes the fitted combiner whose learned arrays these are.

        Args:
            members: it was fitted on.
            classes: it was fitted on.
            arrays: by the names in `learned`.
            inner: the fitted combiners that a composite holds.

        Raises:
            CombinerError: an array is missing, the weights are not one a member, or it holds no combiners.
        """
        if inner:
            raise CombinerError(
                f"{self.label}: state holds the combiners {sorted(inner)}; {self.name} has none"
            )
        missing = [name for name in self.learned if name not in arrays]
        if missing:
            raise CombinerError(f"{self.label}: state lacks the arrays {missing}; found {sorted(arrays)}")
        self.members_, self.classes_ = tuple(members), tuple(classes)
        for name in self.learned:
            setattr(self, name, arrays[name])
        if self.weights_ is not None and self.weights_.shape != (len(self.members_),):
            raise CombinerError(
                f"{self.label}: state holds weights of shape {self.weights_.shape} for "
                f"{len(self.members_)} members"
            )
        return self

    def _require(self, name: str, kind: type | tuple[type, ...], low: float, high: float = np.inf) -> None:
        """Refuses a hyperparameter of another type or outside [low, high]."""
        value: Any = getattr(self, name)
        right_kind = isinstance(value, kind) and not isinstance(value, bool)
        if not (right_kind and low <= value <= high):
            wanted = "an integer" if kind is int else "a number"
            limit = f"of {low} or more" if high == np.inf else f"from {low} to {high}"
            raise CombinerError(f"{self.name}: {name} is {value!r}; expected {wanted} {limit}")

    def _require_metric(self, name: str) -> None:
        """Refuses a metric that is not in the table."""
        try:
            get_metric(name)
        except ConfigError as error:
            raise CombinerError(f"{self.name}: {error}") from error


@dataclass(eq=False, kw_only=True)
class WeightedMean(Combiner):
    """A combiner whose output is the weighted mean of its members; a subclass learns the weights."""

    learned: ClassVar[tuple[str, ...]] = ("weights_",)

    def _combine(self, proba: Proba) -> Floats:
        return weighted_mean(proba, self.weights_)


def weighted_mean(proba: Proba, weights: Floats | None) -> Floats:
    """(members, samples, classes) -> float64 (samples, classes).

    Member by member, so that members of weight 0 leave the bits as they are and no second cube is held.
    """
    if weights is None:
        weights = np.full(len(proba), 1 / len(proba))
    total = np.zeros(proba.shape[1:])
    for slab, weight in zip(proba, weights, strict=True):
        if weight > 0:
            total += weight * slab.astype(np.float64)
    return total


@cache
def _blas() -> ThreadpoolController:
    """The BLAS of numpy and that of scipy. Looking for them takes 10 ms, longer than many a fit: it is done once."""
    import scipy.linalg  # noqa: F401 - loads the second one, so that it is found

    return ThreadpoolController().select(user_api="blas")


def _shown(names: Sequence[str]) -> str:
    return str(list(names[:6])) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
