"""Log loss: convex, so a tangent tells which members cannot be the next pick."""

from __future__ import annotations

import numpy as np

from ...metrics import PROBA_EPS
from ..base import Floats
from .objective import Members, Objective
from .search import TIE

#: The tangent of -log at 16 eps or above passes below the loss of a certain error too, held at -log eps, and of
#: a probability that is 1e-6 below 0.
_FLOOR = 16 * PROBA_EPS

#: Above any rounding of a bound, far below any tie.
_SLACK = TIE + 1e-9

#: A tangent costs about as much as this share of all exact losses.
_TANGENT_COST = 0.25


class LogLoss(Objective):
    """Log loss of a mean, from the probabilities of the true class alone.

    With b the means at which the tangent touches, t the sum of the picks and p a candidate, a round of n picks has

        mean(-log((t + p) / n))  >=  mean(-log b) + 1 - (mean(t / b) + mean(p / b)) / n.

    mean(p / b) is one matrix product for all candidates, and serves later rounds too, until so many exact losses were
    needed that a new tangent would have been cheaper. Candidates are taken in the order of their bounds until the next
    bound is above the best loss; the rest need no look, and nothing about the result is approximate.
    """

    def __init__(self, true: Floats) -> None:
        super().__init__(true)
        self._centre = np.full(len(true), 1 / len(true)) @ true
        self._inverse = np.empty(0)
        self._slopes = np.empty(0)
        self._constant = 0.0
        self._spent = np.inf

    def losses(self, members: Members, step: int) -> Floats:
        """See `Objective`."""
        return self.log_losses(members, step)

    def after_adding(self) -> Floats:
        """See `Objective`."""
        if not self.size:  # nothing to touch yet, and every member has to be seen once
            return super().after_adding()
        if self._spent >= _TANGENT_COST * self.n_members:
            self._touch()
        bounds = self._bounds()
        order = np.argsort(bounds, kind="stable")
        found = np.full(self.n_members, np.inf)
        best, done, step = np.inf, 0, 1
        while done < len(order) and bounds[order[done]] <= best + _SLACK:
            part = order[done : done + step]
            part = part[bounds[part] <= best + _SLACK]
            found[part] = self.log_losses(part, 1)
            best = min(best, float(found[part].min()))
            done, step = done + len(part), min(2 * step, 16)
        self._spent += done
        return found

    def _touch(self) -> None:
        """Puts the tangent where the candidates of this round are in the mean."""
        base = np.maximum((self._total + self._centre) / (self.size + 1), _FLOOR)
        self._inverse = 1 / base / len(base)
        self._slopes = self._true @ self._inverse
        self._constant = 1 - float(np.log(base).mean())
        self._spent = 0.0

    def _bounds(self) -> Floats:
        """Below the loss of every candidate, (members,)."""
        touched = float(self._total @ self._inverse)
        return np.asarray(self._constant - (touched + self._slopes) / (self.size + 1))
