"""Which hyperparameters the scores of a search depend on, and how sure that is.

A few dozen trials say little, so every number comes with an interval, and below `MIN_TRIALS` there are none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

#: Fewer trials than this tell nothing: a resample leaves out a third of them to be judged by.
MIN_TRIALS = 10

#: Shares below this are nothing, however sure: a forest also learns what is chance in the trials.
NEGLIGIBLE = 0.01

#: Trees of each resample's forest, and fewest trials of a leaf.
TREES, LEAF = 16, 2

#: Trials that a resample draws, and trials left out that it is judged by, at most: more would only take longer.
MOST_DRAWN, MOST_JUDGED = 400, 200

#: How often the values of a hyperparameter are shuffled among the trials left out.
SHUFFLES = 8


@dataclass(frozen=True)
class Importance:
    """How much of the differences between scores one hyperparameter accounts for.

    Attributes:
        name: of the hyperparameter.
        share: of the variance of the scores' ranks; below 0 by chance alone.
        low, high: what 90 % of the resamples of the trials lie within.
    """

    name: str
    share: float
    low: float
    high: float

    @property
    def matters(self) -> bool:
        """Whether it can be told from a hyperparameter that changes next to nothing."""
        return self.low > NEGLIGIBLE


@dataclass(frozen=True)
class Importances:
    """All hyperparameters of a search.

    Attributes:
        parameters: the most important first; empty below `MIN_TRIALS`.
        n_trials: how many trials were asked.
        explained: share of the variance of the ranks that is predicted for trials that were left out; 0 or less
            where the hyperparameters predict nothing, NaN where nobody was asked.
    """

    parameters: tuple[Importance, ...]
    n_trials: int
    explained: float

    @property
    def enough(self) -> bool:
        """Whether there were trials enough to say anything."""
        return bool(self.parameters)


def importances(
    values: Mapping[str, Sequence[Any]], scores: ArrayLike, *, n_boot: int = 100, seed: int = 0
) -> Importances:
    """Permutation importance of hyperparameters on trials that a forest has not seen.

    A forest of extremely randomised trees (Geurts et al. 2006) learns the scores of a resample of the trials. The
    trials that the resample has left out are predicted, and predicted again with the values of one hyperparameter
    shuffled among them; by how much the squared error grows is what it was worth (Breiman 2001). Half of that, over the
    variance, is its total share of the variance for a forest that has understood everything, as in a functional
    analysis of variance; one that has seen few trials understands less, and shares come out too small rather than too
    large. A hyperparameter that changes nothing comes out at 0 on average, below as often as above.

    Scores enter as their ranks: a single trial that diverged would otherwise be all of the variance. Hyperparameters
    that move together, such as a backbone and the rate that suits it, share what they are worth.

    Args:
        values: of each hyperparameter, one a trial: numbers, or anything else, which is taken for a category.
        scores: (trials,), in either direction.
        n_boot: resamples.
        seed: of everything that is drawn.
    """
    y = _ranks(np.asarray(scores, np.float64))
    n = len(y)
    names = list(values)
    if n < MIN_TRIALS or not names or not y.any():
        return Importances((), n, float("nan"))
    blocks = [_columns(values[name]) for name in names]
    owner = np.repeat(np.arange(len(names)), [block.shape[1] for block in blocks])
    x = np.concatenate(blocks, axis=1).astype(np.float32)
    draw = np.random.default_rng(seed)
    found = []
    summed, times = np.zeros(n), np.zeros(n)
    for _ in range(n_boot):
        rows = draw.integers(n, size=min(n, MOST_DRAWN))
        left_out = draw.permutation(np.setdiff1d(np.arange(n), rows))[:MOST_JUDGED]
        if len(left_out) < 2:
            continue
        worth, predicted = _one(x, y, owner, rows, left_out, draw)
        found.append(worth)
        summed[left_out] += predicted
        times[left_out] += 1
    asked = times > 0
    missed = float(((y[asked] - summed[asked] / times[asked]) ** 2).mean())
    shares = np.array(found)
    low, high = np.quantile(shares, [0.05, 0.95], axis=0)
    order = np.argsort(-shares.mean(axis=0), kind="stable")
    parameters = tuple(
        Importance(names[i], float(shares[:, i].mean()), float(low[i]), float(high[i])) for i in order
    )
    return Importances(parameters, n, 1 - missed / float(y[asked].var()))


def _one(
    x: NDArray[np.float32],
    y: Floats,
    owner: NDArray[np.intp],
    rows: NDArray[np.int64],
    left_out: NDArray[np.int64],
    draw: np.random.Generator,
) -> tuple[Floats, Floats]:
    """What each hyperparameter is worth on the trials left out, and what is predicted for these."""
    from sklearn.ensemble import ExtraTreesRegressor

    forest = ExtraTreesRegressor(TREES, min_samples_leaf=LEAF, random_state=int(draw.integers(2**31)))
    forest.fit(x[rows], y[rows])
    seen = x[left_out]
    n_names, m = int(owner[-1]) + 1, len(left_out)
    # All shuffles in one batch: a tree answers a thousand rows about as fast as one.
    asked = np.tile(seen, (1 + n_names * SHUFFLES, 1, 1))
    for name in range(n_names):
        for shuffle in range(SHUFFLES):
            changed = asked[1 + name * SHUFFLES + shuffle]
            columns = owner == name
            changed[:, columns] = seen[draw.permutation(m)][:, columns]
    flat = np.ascontiguousarray(asked.reshape(-1, x.shape[1]))
    predicted = np.mean([tree.tree_.predict(flat).ravel() for tree in forest.estimators_], axis=0)
    predicted = predicted.reshape(len(asked), m)
    errors = ((predicted - y[left_out]) ** 2).mean(axis=1)
    grown = errors[1:].reshape(n_names, SHUFFLES).mean(axis=1) - errors[0]
    return grown / 2, predicted[0]


def _ranks(scores: Floats) -> Floats:
    """Ranks with mean 0 and variance 1, equal scores with their mean rank; zeros where all are equal."""
    from scipy.stats import rankdata

    ranks = rankdata(scores)
    spread = ranks.std()
    centred: Floats = (ranks - ranks.mean()) / (spread or 1.0)
    return centred


def _columns(values: Sequence[Any]) -> Floats:
    """(trials, columns): numbers as they are, categories as one column each."""
    if all(isinstance(v, int | float | np.number) and not isinstance(v, bool | np.bool_) for v in values):
        return np.asarray(values, np.float64)[:, None]
    codes = np.unique([str(v) for v in values], return_inverse=True)[1]
    return np.eye(int(codes.max()) + 1)[codes]
