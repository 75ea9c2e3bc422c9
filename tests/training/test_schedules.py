"""Every schedule at known steps."""

from __future__ import annotations

import pytest

from ensembler.training.recipe import RECIPE_CHOICES
from ensembler.training.schedules import SCHEDULES, rate_factor


def test_the_table_is_what_a_config_may_say() -> None:
    assert set(SCHEDULES) == set(RECIPE_CHOICES["schedule"])


@pytest.mark.parametrize("name", SCHEDULES)
def test_factors_stay_between_0_and_1_and_reach_1(name: str) -> None:
    factors = [rate_factor(step, 40, 0.1, name) for step in range(40)]
    assert all(0 <= f <= 1 for f in factors)
    assert max(factors) == pytest.approx(1.0)


def test_step_divides_by_ten_twice_after_the_warm_up() -> None:
    factors = [rate_factor(step, 100, 0.0, "step") for step in range(100)]
    assert factors[59:61] == pytest.approx([1.0, 0.1])
    assert factors[84:86] == pytest.approx([0.1, 0.01])
    assert rate_factor(4, 100, 0.1, "step") == 0.5


def test_constant_stays_after_the_warm_up() -> None:
    assert [rate_factor(step, 4, 0.5, "constant") for step in range(4)] == [0.5, 1.0, 1.0, 1.0]


def test_one_cycle_brings_its_own_rise_and_ends_near_zero() -> None:
    factors = [rate_factor(step, 100, 0.0, "one-cycle") for step in range(100)]
    assert factors[0] == pytest.approx(1 / 25, abs=0.01)
    assert factors[29] == pytest.approx(1.0)
    assert factors[:30] == sorted(factors[:30])
    assert factors[30:] == sorted(factors[30:], reverse=True)
    assert factors[-1] < 0.01
