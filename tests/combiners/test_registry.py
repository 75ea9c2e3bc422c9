import numpy as np
import pytest

from ensembler.combiners import from_state, make_combiner
from ensembler.errors import CombinerError
from ensembler.predictions import Predictions


def test_a_misspelt_key_names_the_nearest():
    with pytest.raises(CombinerError, match="unknown combiner 'stackng'; did you mean 'stacking'"):
        make_combiner("stackng")


def test_a_misspelt_parameter_names_the_nearest():
    with pytest.raises(CombinerError, match="greedy: unknown parameter 'round'; did you mean 'rounds'"):
        make_combiner("greedy", round=3)


@pytest.mark.parametrize(
    ("key", "params", "message"),
    [
        ("greedy", {"rounds": 0}, "greedy: rounds is 0; expected an integer of 1 or more"),
        ("greedy", {"rounds": "many"}, "greedy: rounds is 'many'; expected an integer"),
        ("greedy", {"rounds": True}, "greedy: rounds is True; expected an integer"),
        ("greedy", {"metric": "acuracy"}, "greedy: unknown metric 'acuracy'; did you mean 'accuracy'"),
        ("bagging", {"member_share": 1.5}, "bagging: member_share is 1.5; expected a number from"),
        ("boosting", {"learning_rate": 0}, "boosting: learning_rate is 0; expected a number from"),
        ("stacking", {"penalties": [1.0, -1.0]}, "stacking: penalties is .* expected positive numbers"),
        ("samme", {"rounds": 0}, "samme: rounds is 0"),
    ],
)
def test_values_out_of_range_are_refused_before_any_fit(key, params, message):
    with pytest.raises(CombinerError, match=message):
        make_combiner(key, **params)


def fitted_state():
    proba = np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.6, 0.4], [0.3, 0.7]]])
    return make_combiner("mean").fit(Predictions.from_arrays(proba, [0, 1], [0, 1])).get_state()


def test_an_incomplete_state_is_named():
    state, arrays = fitted_state()
    with pytest.raises(CombinerError, match=r"combiner state lacks \['members'\]"):
        from_state({k: v for k, v in state.items() if k != "members"}, arrays)
    with pytest.raises(CombinerError, match=r"mean: state lacks the arrays \['weights_'\]"):
        from_state(state, {})
    with pytest.raises(CombinerError, match=r"weights of shape \(1,\) for 2 members"):
        from_state(state, {"weights_": np.ones(1)})
    with pytest.raises(CombinerError, match="unknown combiner 'voodoo'"):
        from_state(state | {"combiner": "voodoo"}, arrays)
