"""The search: add what helps most, take back what hurts, keep the best that was seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..base import Floats
from .objective import Members, Objective

#: Losses that agree to so many decimals are a tie: a millionth is not worth one more member.
DECIMALS = 6

#: Losses further apart than this are none.
TIE = 10.0**-DECIMALS

#: Log losses closer than this are equal: rounding must not choose a member.
_ROUNDING = 1e-12


def select(
    objective: Objective, rounds: int, *, initial: int = 0, removal: bool = False, patience: int = 0
) -> NDArray[np.int64]:
    """How often each member is picked by forward selection with replacement (Caruana et al. 2004).

    A tie, which is losses that agree to `DECIMALS` decimals, goes to a member already picked (a smaller ensemble),
    then to the lower log loss of the resulting mean, then to the first in order. A metric that is undefined (NaN) is
    worse than any value.

    Args:
        objective: without picks; it is used up.
        rounds: additions, 1 or more.
        initial: the search starts from so many members, those that are best by themselves, each picked once.
        removal: whether each addition is followed by taking back one pick after another, of other members than the one
            just added, as long as the loss falls. A tie goes to a member that leaves altogether, then as above.
        patience: rounds without an improvement that end the search; 0 for never.

    Returns:
        int64 (members,): the picks at the first best point that was seen, not all 0.
    """
    counts = np.zeros(objective.n_members, np.int64)
    if len(counts) == 1:
        return counts + 1
    best, best_loss, best_round = counts, np.inf, 0

    for member in _ranking(objective)[:initial] if initial else ():
        loss = _without_nan(objective.losses(np.array([member]), 1))[0]
        objective.add(int(member))
        counts[member] += 1
        if round(loss, DECIMALS) < best_loss or not best.any():
            best, best_loss = counts.copy(), round(loss, DECIMALS)

    everybody = np.arange(objective.n_members)
    for number in range(rounds):
        losses = _without_nan(objective.after_adding())
        pick = _choose(losses, everybody, counts > 0, objective, 1)
        objective.add(pick)
        counts[pick] += 1
        loss = float(losses[pick])
        if removal:
            loss = _take_back(objective, counts, loss, pick)
        if round(loss, DECIMALS) < best_loss or not best.any():
            best, best_loss, best_round = counts.copy(), round(loss, DECIMALS), number
        elif patience and number - best_round >= patience:
            break
    return best


def _take_back(objective: Objective, counts: NDArray[np.int64], loss: float, kept: int) -> float:
    """Removes picks while the loss falls; it ends, for there is one less of them each time."""
    while objective.size > 1:
        members = np.flatnonzero(counts)
        members = members[members != kept]
        if not len(members):
            break
        losses = _without_nan(objective.losses(members, -1))
        chosen = _choose(losses, members, counts[members] == 1, objective, -1)
        if round(float(losses[chosen]), DECIMALS) >= round(loss, DECIMALS):
            break
        loss = float(losses[chosen])
        objective.remove(int(members[chosen]))
        counts[members[chosen]] -= 1
    return loss


def _choose(
    losses: Floats, members: Members, preferred: NDArray[np.bool_], objective: Objective, step: int
) -> int:
    """Position of the lowest loss; see `select` for ties."""
    rounded = losses.round(DECIMALS)
    tied = np.flatnonzero(rounded == rounded.min())
    if len(tied) > 1 and preferred[tied].any():
        tied = tied[preferred[tied]]
    if len(tied) > 1:
        log_losses = objective.log_losses(members[tied], step)
        tied = tied[log_losses <= log_losses.min() + _ROUNDING]
    return int(tied[0])


def _ranking(objective: Objective) -> Members:
    """Members from the best to the worst by themselves."""
    everybody = np.arange(objective.n_members)
    losses = _without_nan(objective.losses(everybody, 1)).round(DECIMALS)
    return np.lexsort(
        (everybody, objective.log_losses(everybody, 1).round(-int(np.log10(_ROUNDING))), losses)
    )


def _without_nan(losses: Floats) -> Floats:
    return np.where(np.isnan(losses), np.inf, losses)
