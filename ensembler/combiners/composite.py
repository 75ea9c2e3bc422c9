"""Combiners that hold fitted combiners.

The state of a composite nests the states of what it holds, as JSON, and prefixes their arrays with
`inner/<key>/`; so it too is stored without a pickle and restored to the same bits, however deep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

from numpy.typing import NDArray

from ..errors import CombinerError
from ..predictions import Predictions
from .base import Combiner, Proba

#: Before the names of the arrays of what a composite holds.
INNER = "inner/"


@dataclass(eq=False, kw_only=True)
class Composite(Combiner):
    """A combiner that holds fitted ones; a subclass says which, and what it makes of their answers.

    Attributes:
        inner_: the fitted combiners, by keys without a slash. None of the arrays that the composite learns
            itself has an axis over members.
    """

    by_name: ClassVar[bool] = True

    inner_: dict[str, Combiner] = field(init=False, default_factory=dict, repr=False)

    def _ask(self, key: str, predictions: Predictions) -> Proba:
        """What an inner combiner says: float32 (samples, classes)."""
        combiner = self.inner_[key]
        if predictions.members != combiner.members_:
            predictions = predictions.select(combiner.members_)
        proba: Proba = combiner.predict(predictions).proba[0]
        return proba

    @property
    def used_members_(self) -> tuple[str, ...]:
        """The members that any inner combiner uses, in the order of `members_`."""
        used = {member for combiner in self.inner_.values() for member in combiner.used_members_}
        return tuple(member for member in self.members_ if member in used)

    def pruned(self) -> Combiner:
        """The same predictions from `used_members_` alone; each inner combiner is pruned too."""
        used = self.used_members_
        if used == self.members_:
            return self
        small = self.clone()
        small.members_, small.classes_ = used, self.classes_
        for name in self.learned:
            setattr(small, name, getattr(self, name))
        small.inner_ = {key: combiner.pruned() for key, combiner in self.inner_.items()}
        return small

    def get_state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """The state, with those of the inner combiners under `inner`."""
        state, arrays = super().get_state()
        state["inner"] = {}
        for key, combiner in self.inner_.items():
            state["inner"][key], own = combiner.get_state()
            arrays |= {f"{INNER}{key}/{name}": array for name, array in own.items()}
        return state, arrays

    def restore(
        self,
        members: Sequence[str],
        classes: Sequence[str],
        arrays: Mapping[str, NDArray[Any]],
        inner: Mapping[str, Combiner] | None = None,
    ) -> Self:
        """Becomes the fitted composite of these inner combiners and arrays.

        Raises:
            CombinerError: an array is missing, or the state holds no inner combiners.
        """
        if not inner:
            raise CombinerError(f"{self.label}: state holds no inner combiners; expected them under 'inner'")
        super().restore(members, classes, arrays)
        self.inner_ = dict(inner)
        return self


@dataclass(eq=False, kw_only=True)
class Wrapper(Composite):
    """A composite over one kind of combiner, its base.

    Attributes:
        base: key of any combiner.
        base_params: its hyperparameters.
    """

    base: str = "greedy"
    base_params: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.base_params, Mapping):
            raise CombinerError(
                f"{self.name}: base_params is {self.base_params!r}; expected names and values such as "
                "{metric: accuracy}"
            )
        self.base_params = dict(self.base_params)
        self._new_base()

    def _new_base(self) -> Combiner:
        """The base, not fitted.

        Raises:
            CombinerError: an unknown key or hyperparameter, or a value out of range.
        """
        from . import make_combiner  # the table, which holds this class too

        try:
            return make_combiner(self.base, **self.base_params)
        except (CombinerError, TypeError, ValueError) as error:
            raise CombinerError(f"{self.name}: base: {error}") from error

    @property
    def needs_features(self) -> bool:
        """Whether its base does."""
        return self._new_base().needs_features

    @classmethod
    def tuned_for(cls, metric: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """As for any combiner, and the same for its base."""
        from . import COMBINERS

        tuned = super().tuned_for(metric, options)
        default = next(f.default for f in fields(cls) if f.name == "base")
        base, given = tuned.get("base", default), tuned.get("base_params", {})
        if base in COMBINERS and isinstance(given, Mapping):  # else the constructor says what is wrong
            tuned["base_params"] = COMBINERS[base].tuned_for(metric, given)
        return tuned


def inner_arrays(arrays: Mapping[str, NDArray[Any]], key: str) -> dict[str, NDArray[Any]]:
    """The arrays of one inner combiner, under their own names."""
    prefix = f"{INNER}{key}/"
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
