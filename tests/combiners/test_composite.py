"""Combiners that hold combiners: their state, what they use, and what they refuse."""

import numpy as np
import pytest

from ensembler.combiners import COMBINERS, from_state, make_combiner
from ensembler.combiners.composite import Composite, Wrapper
from ensembler.errors import CombinerError


def test_a_composite_within_a_composite_survives_to_the_same_bits(library):
    predictions, unseen = library(), library(seed=1)
    deep = {"base": "calibrated", "base_params": {"base": "stacking", "method": "vector"}}
    combiner = make_combiner("thresholds", metric="accuracy", **deep).fit(predictions)
    state, arrays = combiner.get_state()
    assert "inner/base/inner/base/coef_" in arrays
    assert state["inner"]["base"]["inner"]["base"]["combiner"] == "stacking"
    restored = from_state(state, arrays)
    np.testing.assert_array_equal(restored.predict(unseen).proba, combiner.predict(unseen).proba)


def test_uses_and_keeps_what_its_base_uses(library):
    predictions = library(n_members=6)
    base = make_combiner("greedy", rounds=3).fit(predictions)
    assert 0 < len(base.used_members_) < 6  # otherwise this shows nothing
    wrapper = make_combiner("calibrated", base="greedy", base_params={"rounds": 3}).fit(predictions)
    assert wrapper.used_members_ == base.used_members_
    small = wrapper.pruned()
    assert small.members_ == base.used_members_
    state, arrays = small.get_state()
    restored = from_state(state, arrays)
    np.testing.assert_array_equal(
        restored.predict(predictions.select(small.members_)).proba, wrapper.predict(predictions).proba
    )


def test_the_metric_of_a_run_reaches_the_base():
    wrapper = COMBINERS["calibrated"]
    assert wrapper.tuned_for("brier", {})["base_params"] == {"metric": "brier"}
    assert wrapper.tuned_for("brier", {"base": "stacking"})["base_params"] == {}
    given = {"base": "greedy", "base_params": {"metric": "accuracy"}}
    assert wrapper.tuned_for("brier", given)["base_params"] == {"metric": "accuracy"}
    deep = wrapper.tuned_for("brier", {"base": "calibrated"})
    assert deep["base_params"]["base_params"] == {"metric": "brier"}


@pytest.mark.parametrize("key", [key for key, kind in COMBINERS.items() if issubclass(kind, Wrapper)])
def test_a_wrong_base_is_refused_before_any_fit(key):
    with pytest.raises(CombinerError, match=f"{key}: base: unknown combiner 'stackng'; did you mean 'stack"):
        make_combiner(key, base="stackng")
    with pytest.raises(CombinerError, match=f"{key}: base: greedy: rounds is 0"):
        make_combiner(key, base="greedy", base_params={"rounds": 0})
    with pytest.raises(CombinerError, match=f"{key}: base_params is 3; expected names and values"):
        make_combiner(key, base_params=3)


@pytest.mark.parametrize("key", [key for key, kind in COMBINERS.items() if issubclass(kind, Composite)])
def test_a_state_without_what_is_inside_is_refused(key, library):
    state, arrays = make_combiner(key).fit(library()).get_state()
    with pytest.raises(CombinerError, match=f"{key}: state holds no inner combiners"):
        from_state({name: value for name, value in state.items() if name != "inner"}, arrays)
    first = next(iter(state["inner"]))
    gone = {name: array for name, array in arrays.items() if not name.startswith(f"inner/{first}/")}
    with pytest.raises(CombinerError, match="state lacks the arrays"):
        from_state(state, gone)


def test_a_state_with_something_inside_that_cannot_hold_it_is_refused(library):
    predictions = library()
    state, arrays = make_combiner("calibrated", base="mean").fit(predictions).get_state()
    plain, weights = make_combiner("mean").fit(predictions).get_state()
    with pytest.raises(CombinerError, match=r"mean: state holds the combiners \['base'\]; mean has none"):
        from_state(plain | {"inner": state["inner"]}, weights | arrays)
