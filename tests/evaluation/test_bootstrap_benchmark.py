"""The two sides of `benchmarks/bootstrap.py` do the same work."""

import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def sides():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from bootstrap import Sides, make_predictions

        yield Sides(make_predictions(4, 200), n_boot=30, n_loop=3)
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_the_loop_scores_the_same_resamples(sides):
    assert sides.apart() < 1e-12
    assert sides.loop_scores().shape == (4, 3)
    for drawn, weights in zip(sides.drawn, sides.weights.T, strict=False):
        np.testing.assert_array_equal(np.bincount(drawn, minlength=200), weights)


def test_a_loop_of_a_few_resamples_is_multiplied_up(sides, monkeypatch):
    monkeypatch.setattr("bootstrap.seconds", lambda work: 2.0)
    assert sides.loop() == sides.losses_loop() == 20.0
    assert sides.ours() == 2.0
