"""Iterations end: where a problem does not settle in the steps it is given, the answer is still one."""

from __future__ import annotations

import numpy as np
import pytest

from ensembler.combiners import competence, convex, make_combiner, stacking_nonneg
from ensembler.combiners.levels import Levels
from ensembler.errors import CombinerError


def test_a_convex_problem_without_enough_steps_gives_weights_all_the_same(
    library, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_combiner("convex").fit(library()).weights_
    monkeypatch.setattr(convex, "_MAX_STEPS", 1)
    cut = make_combiner("convex").fit(library()).weights_
    for weights in (whole, cut):
        assert weights.sum() == pytest.approx(1)
        assert (weights >= 0).all()
    assert not np.allclose(whole, cut)


def test_a_step_that_helps_nowhere_is_tiny() -> None:
    """Along a direction that only makes the loss worse no share of it is taken."""
    mixed = np.array([0.5, 0.5])
    assert convex._step(mixed, np.array([-1.0, -1.0]), 0.0, -1.0) < 1e-9


def test_an_active_set_starts_from_nothing_and_frees_what_gains() -> None:
    found = convex._nonnegative_optimum(np.eye(2), np.array([1.0, -1.0]), np.zeros(2))
    np.testing.assert_allclose(found, [1, 0])


@pytest.mark.parametrize(
    ("module", "key"), [(competence, "competence"), (stacking_nonneg, "stacking_nonneg")]
)
def test_newton_steps_are_bounded(module, key: str, library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STEPS", 1)
    predictions = library()
    proba = make_combiner(key).fit(predictions).predict(predictions).proba
    np.testing.assert_allclose(proba.sum(axis=2), 1, atol=1e-5)


def test_levels_that_are_no_lists_are_left_to_the_constructor() -> None:
    assert Levels.tuned_for("accuracy", {"levels": "mean"}) == {"levels": "mean"}
    with pytest.raises(CombinerError, match="levels is 'mean'; expected lists of combiners"):
        Levels(levels="mean")
    with pytest.raises(
        CombinerError, match=r"levels: \['mean'\]; expected a combiner, or one with its options"
    ):
        Levels(levels=[[["mean"]]])
    with pytest.raises(
        CombinerError, match=r"levels: \{'greedy': 3\}; expected a combiner, or one with its options"
    ):
        Levels(levels=[[{"greedy": 3}]])
    with pytest.raises(CombinerError, match="members is 'yes'; expected true or false"):
        Levels(members="yes")
    nothing_given = Levels(levels=[[{"greedy": None}]])
    assert nothing_given.levels == (({"greedy": None},),)


def test_a_base_that_is_none_is_left_to_the_constructor() -> None:
    tuned = type(make_combiner("bagged")).tuned_for("accuracy", {"base": "gredy"})
    assert tuned["base"] == "gredy"
    assert "base_params" not in tuned
