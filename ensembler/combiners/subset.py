"""Any combiner over some of the members."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..errors import CombinerError
from ..predictions import Predictions
from .base import Combiner, Proba
from .composite import Wrapper


@dataclass(eq=False, kw_only=True)
class Subset(Wrapper):
    """Fits the base to the members that are named; the others have no influence.

    Attributes:
        base: key of any combiner.
        base_params: its hyperparameters.
        members: names; empty: all that there are.
    """

    name: ClassVar[str] = "subset"

    members: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        given: object = self.members
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise CombinerError(f"{self.name}: members is {given!r}; expected a list of members")
        self.members = tuple(str(member) for member in self.members)
        twice = next((m for m in self.members if self.members.count(m) > 1), None)
        if twice is not None:
            raise CombinerError(f"{self.name}: members names {twice!r} twice; give each once")

    def _fit_rows(self, predictions: Predictions) -> None:
        absent = [m for m in self.members if m not in predictions.members]
        if absent:
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            raise CombinerError(
                f"{self.name}: members names {absent[0]!r}{more}, and there is no such member; take it out, or "
                "train it again"
            )
        chosen = sorted(self.members or predictions.members)
        self.inner_ = {"base": self._new_base().fit(predictions.select(chosen))}

    def _combine_rows(self, predictions: Predictions) -> Proba:
        return self._ask("base", predictions)

    def asked_(self, predictions: Predictions) -> dict[str, float]:
        """As the base asks them."""
        base = self.inner_["base"]
        return base.asked_(predictions.select(base.members_))

    def pruned(self) -> Combiner:
        """The fitted base itself, which knows no other members."""
        small = copy.copy(self.inner_["base"].pruned())
        small.label = self.label
        return small
