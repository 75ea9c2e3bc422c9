"""From logits to probabilities, and the one parameter that calibrates them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Temperatures searched: beyond these a network says nothing, or only ever says one thing.
TEMPERATURE_RANGE = (0.05, 20.0)

#: Standard deviation of log T before any row is seen: networks trained as here end between about 0.5 and 2.
TEMPERATURE_PRIOR_SD = 0.5


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float32]:
    """Probabilities float32 over the last axis; computed in float64, so that rows sum to 1 within 1e-6."""
    z = np.asarray(logits, np.float64)
    z = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(z / z.sum(axis=-1, keepdims=True), np.float32)


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log-probabilities float64 over the last axis, without the underflow of log(softmax)."""
    z = np.asarray(logits, np.float64)
    z = z - z.max(axis=-1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(axis=-1, keepdims=True)))


def fit_temperature(
    logits: NDArray[np.floating],
    labels: NDArray[np.integer],
    prior_sd: float | None = TEMPERATURE_PRIOR_SD,
) -> float:
    """The temperature T that minimises the log loss of softmax(logits / T) (Guo et al. 2017), gently held near 1.

    On rows that are all answered correctly the loss falls without end as T goes to 0, and a handful of monitor rows
    is often like that. A prior log T ~ N(0, `TEMPERATURE_PRIOR_SD`) settles such cases; against a few hundred rows
    with some mistakes it weighs nothing.

    Args:
        logits: (rows, classes).
        labels: (rows,) int.
        prior_sd: of log T; None for scores that are no logits of a network, whose scale nothing is known of.

    Returns:
        T within `TEMPERATURE_RANGE`, found by a bounded scalar search.
    """
    from scipy.optimize import minimize_scalar  # half a second, which the app does not have

    rows = np.arange(len(labels))

    def loss(log_t: float) -> float:
        likelihood = -log_softmax(logits / np.exp(log_t))[rows, labels].sum()
        prior = 0.0 if prior_sd is None else 0.5 * (log_t / prior_sd) ** 2
        return float(likelihood + prior) / max(1, len(rows))

    low, high = np.log(TEMPERATURE_RANGE)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))
