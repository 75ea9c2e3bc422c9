import numpy as np
import pytest

from ensembler.evaluation.pareto import pareto_front


@pytest.mark.parametrize("greater_is_better", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_is_what_no_other_row_beats(greater_is_better, seed):
    rng = np.random.default_rng(seed)
    scores, costs = rng.integers(12, size=(2, 40)).astype(float)
    front = pareto_front(scores, costs, greater_is_better)
    value = scores if greater_is_better else -scores
    for row in range(40):
        beaten = (
            (value >= value[row]) & (costs <= costs[row]) & ((value > value[row]) | (costs < costs[row]))
        ).any()
        equal_before = ((value == value[row]) & (costs == costs[row]))[:row].any()
        assert (row in front) == (not beaten and not equal_before)
    assert (np.diff(costs[front]) > 0).all()
    assert (np.diff(value[front]) > 0).all()


def test_what_was_not_measured_is_left_out():
    np.testing.assert_array_equal(pareto_front([0.1, 0.2, np.nan], [np.nan, 1, 0], True), [1])
    assert pareto_front([], [], True).shape == (0,)
