"""The search: add what helps most, take back what hurts, keep the best that was seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..base import Floats
from .objective import Members, Objective

#: Losses that agree to so many decimals are a tie: a millionth is not worth one more member.
DECIMALS = 6

#: Losses further apart than this are none.
TIE = 10.0**-DECIMALS

#: Log losses that agree to so many decimals are equal: rounding must not choose a member.
_DIGITS = 12


def select(
    objective: Objective,
    rounds: int,
    *,
    initial: int = 0,
    removal: bool = False,
    patience: int = 0,
    names: Sequence[str] | None = None,
) -> NDArray[np.int64]:
    """How often each member is picked by forward selection with replacement (Caruana et al. 2004).

    A tie, which is losses that agree to `DECIMALS` decimals, goes to a member already picked (a smaller ensemble),
    then to the lower log loss of the resulting mean, then to the first by name. A metric that is undefined (NaN) is
    worse than any value.

    Args:
        objective: without picks; it is used up.
        rounds: additions, 1 or more.
        initial: the search starts from so many members, those that are best by themselves, each picked once.
        removal: whether each addition is followed by taking back one pick after another, of other members than the one
            just added, as long as the loss falls. A tie goes to a member that leaves altogether, then as above.
        patience: rounds without an improvement that end the search; 0 for never.
        names: of the members, which decide the last ties; None for their order.

    Returns:
        int64 (members,): the picks at the first best point that was seen, not all 0.
    """
    search = _Search(objective, names)
    if objective.n_members == 1:
        return search.counts + 1
    best, best_loss, best_round = search.counts, np.inf, 0

    for member in search.ranking()[:initial] if initial else ():
        loss = search.add(int(member))
        if loss < best_loss or not best.any():
            best, best_loss = search.counts.copy(), loss

    for number in range(rounds):
        loss, pick = search.add_best()
        if removal:
            loss = search.take_back(loss, kept=pick)
        if loss < best_loss or not best.any():
            best, best_loss, best_round = search.counts.copy(), loss, number
        elif patience and number - best_round >= patience:
            break
    return best


class _Search:
    """The picks so far, and the steps that may follow. Losses are rounded to `DECIMALS`, and infinite where undefined.

    Attributes:
        counts: int64 (members,), how often each is picked.
    """

    def __init__(self, objective: Objective, names: Sequence[str] | None) -> None:
        self._objective = objective
        self._everybody = np.arange(objective.n_members)
        self._place = self._everybody if names is None else np.argsort(np.argsort(names))
        self.counts = np.zeros(objective.n_members, np.int64)

    def ranking(self) -> Members:
        """Members from the best to the worst by themselves."""
        losses = _comparable(self._objective.losses(self._everybody, 1))
        log_losses = self._objective.log_losses(self._everybody, 1).round(_DIGITS)
        return np.lexsort((self._place, log_losses, losses))

    def add(self, member: int) -> float:
        """Picks a member; the loss afterwards."""
        loss = _comparable(self._objective.losses(np.array([member]), 1))[0]
        self._objective.add(member)
        self.counts[member] += 1
        return float(loss)

    def add_best(self) -> tuple[float, int]:
        """Picks the member that helps most; the loss afterwards, and the member."""
        losses = _comparable(self._objective.after_adding())
        pick = int(self._choose(losses, self._everybody, self.counts > 0, 1))
        self._objective.add(pick)
        self.counts[pick] += 1
        return float(losses[pick]), pick

    def take_back(self, loss: float, kept: int) -> float:
        """Removes picks of others than `kept` while the loss falls: it ends, for there is one less each time."""
        while len(members := np.flatnonzero((self.counts > 0) & (self._everybody != kept))):
            losses = _comparable(self._objective.losses(members, -1))
            chosen = self._choose(losses, members, self.counts[members] == 1, -1)
            if losses[chosen] >= loss:
                break
            loss = float(losses[chosen])
            self._objective.remove(int(members[chosen]))
            self.counts[members[chosen]] -= 1
        return loss

    def _choose(self, losses: Floats, members: Members, preferred: NDArray[np.bool_], step: int) -> np.intp:
        """Position of the lowest loss; see `select` for ties."""
        tied = np.flatnonzero(losses == losses.min())
        if len(tied) > 1 and preferred[tied].any():
            tied = tied[preferred[tied]]
        if len(tied) > 1:
            log_losses = self._objective.log_losses(members[tied], step).round(_DIGITS)
            tied = tied[log_losses == log_losses.min()]
        return np.intp(tied[self._place[members[tied]].argmin()])


def _comparable(losses: Floats) -> Floats:
    return np.where(np.isnan(losses), np.inf, losses).round(DECIMALS)
