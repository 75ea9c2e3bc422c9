"""Combiners of combiners of members (multi-layer stacking: Wolpert 1992; Erickson et al. 2020, "AutoGluon-Tabular")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import CombinerError
from ..predictions import Predictions
from .base import Combiner, Floats, Proba
from .composite import Composite
from .inner import inner_cross_fit

#: A combiner's key, or {key: hyperparameters}.
Entry = str | Mapping[str, Any]


@dataclass(eq=False, kw_only=True)
class Levels(Composite):
    """Fits combiners to the members, others to what those say and the members, and so on.

    What a level is fitted on are inner cross-fitted outputs of the one before: no combiner is given an output
    that was fitted to the label of its own row. When it predicts, each level's combiners, fitted on all rows,
    speak for themselves. The combiners of the last level are averaged.

    What remains is what remains in `cross_fit`: the level below was fitted on other rows with the labels of
    those it is judged on.

    Attributes:
        levels: first to last, each a list of keys or of {key: hyperparameters}.
        members: whether the later levels see the members too, beside the outputs of the level before.
    """

    name: ClassVar[str] = "levels"

    levels: tuple[tuple[Entry, ...], ...] = (("mean", "greedy", "stacking"), ("greedy",))
    members: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if (
            not _is_list(self.levels)
            or not self.levels
            or not all(_is_list(one) and one for one in self.levels)
        ):
            raise CombinerError(
                f"{self.name}: levels is {self.levels!r}; expected lists of combiners, such as "
                "[[mean, stacking], [greedy]]"
            )
        if not isinstance(self.members, bool):
            raise CombinerError(f"{self.name}: members is {self.members!r}; expected true or false")
        self.levels = tuple(tuple(level) for level in self.levels)
        self._new_levels()

    @classmethod
    def tuned_for(cls, metric: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Every combiner that optimises a metric and is not told which has that of the run."""
        from . import COMBINERS

        def tuned(entry: Entry) -> Entry:
            key, params = _key_and_params(entry)
            return {key: COMBINERS[key].tuned_for(metric, params)} if key in COMBINERS else entry

        levels = options.get("levels", cls.levels)
        if not _is_list(levels) or not all(_is_list(level) for level in levels):
            return dict(options)  # the constructor says what is wrong
        return dict(options) | {"levels": [[tuned(entry) for entry in level] for level in levels]}

    @property
    def needs_features(self) -> bool:
        """Whether one of them does."""
        return any(combiner.needs_features for level in self._new_levels() for combiner in level.values())

    @property
    def used_members_(self) -> tuple[str, ...]:
        """The members that reach the last level, by themselves or through a combiner."""
        used = {member for name in self._needed() for member in self.inner_[name].used_members_}
        return tuple(member for member in self.members_ if member in used)

    def pruned(self) -> Combiner:
        """The same predictions from `used_members_` alone; combiners that nobody asks are left out."""
        small = super().pruned()
        if isinstance(small, Levels) and small is not self:
            needed = self._needed()
            small.inner_ = {name: one for name, one in small.inner_.items() if name in needed}
        return small

    def _fit_rows(self, predictions: Predictions) -> None:
        self.inner_ = {}
        seen, levels = predictions, self._new_levels()
        for number, level in enumerate(levels):
            self.inner_ |= {name: combiner.clone().fit(seen) for name, combiner in level.items()}
            if number < len(levels) - 1:
                outputs = {name: self._honest(name, combiner, seen) for name, combiner in level.items()}
                seen = self._beside(predictions, outputs)

    def _combine_rows(self, predictions: Predictions) -> Floats:
        seen = predictions
        for level in self._new_levels():
            outputs = {name: self._ask(name, seen) for name in level if name in self.inner_}
            seen = self._beside(predictions, outputs)
        return np.asarray(np.mean(list(outputs.values()), axis=0, dtype=np.float64))

    @property
    def level_names(self) -> list[list[str]]:
        """Keys of the inner combiners of each level, first to last."""
        return [list(level) for level in self._new_levels()]

    def _honest(self, name: str, combiner: Combiner, seen: Predictions) -> Proba:
        """What a combiner says of rows that it was not fitted on; of a single row, what it says of it."""
        honest = inner_cross_fit(combiner, seen)
        return self._ask(name, seen) if honest is None else honest

    def _beside(self, predictions: Predictions, outputs: Mapping[str, Proba]) -> Predictions:
        """What the next level sees."""
        said = predictions.with_proba(np.stack(list(outputs.values())), list(outputs))
        return Predictions.concat([predictions, said]) if self.members else said

    def _needed(self) -> set[str]:
        """Keys of the inner combiners that reach the last level; itself included."""
        *below, last = [set(level) for level in self._new_levels()]
        needed = set(last)
        for level in reversed(below):
            asked = {name for key in needed for name in self.inner_[key].used_members_}
            needed |= level & asked
        return needed

    def _new_levels(self) -> list[dict[str, Combiner]]:
        """The combiners of each level, not fitted, by names that no two of them share.

        Raises:
            CombinerError: an unknown key or hyperparameter, or a value out of range.
        """
        from . import make_combiner  # the table, which holds this class too

        levels: list[dict[str, Combiner]] = []
        for number, level in enumerate(self.levels, 1):
            levels.append({})
            for place, entry in enumerate(level, 1):
                key, params = _key_and_params(entry)
                try:
                    levels[-1][f"level{number}.{place}.{key}"] = make_combiner(key, **params)
                except (CombinerError, TypeError, ValueError) as error:
                    raise CombinerError(f"levels: level {number}: {error}") from error
        return levels


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _key_and_params(entry: Entry) -> tuple[str, dict[str, Any]]:
    if isinstance(entry, str):
        return entry, {}
    if isinstance(entry, Mapping) and len(entry) == 1:
        key, params = next(iter(entry.items()))
        if params is None or isinstance(params, Mapping):
            return str(key), dict(params or {})
    raise CombinerError(
        f"levels: {entry!r}; expected a combiner, or one with its options as {{greedy: {{rounds: 9}}}}"
    )
