import numpy as np
import pytest

from ensembler.combiners import make_combiner
from ensembler.errors import CombinerError


def test_the_mean_under_these_weights_by_name_whatever_their_scale_and_order(library):
    predictions = library()
    expected = 0.25 * predictions.proba[3] + 0.75 * predictions.proba[1]
    for scale in (1, 7.5, 1e306):
        combiner = make_combiner("weighted", weights={"m3": scale, "m1": 3 * scale, "m0": 0}).fit(predictions)
        np.testing.assert_allclose(combiner.predict(predictions).proba[0], expected, atol=1e-6)
        assert combiner.used_members_ == ("m1", "m3")


def test_no_label_has_an_influence(library):
    predictions = library()
    turned = predictions.rows(np.arange(300)[::-1])
    one, two = (make_combiner("weighted", weights={"m0": 1, "m4": 2}).fit(p) for p in (predictions, turned))
    np.testing.assert_array_equal(one.weights_, two.weights_)


def test_without_weights_it_is_the_mean(library):
    predictions = library()
    found = make_combiner("weighted").fit(predictions).predict(predictions)
    np.testing.assert_array_equal(
        found.proba, make_combiner("mean").fit(predictions).predict(predictions).proba
    )


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 2], r"weights is \[1, 2\]; expected a weight for each member"),
        ({"a": -1}, "weights of 'a' is -1; expected a number of 0 or more"),
        ({"a": True}, "weights of 'a' is True"),
        ({"a": float("inf")}, "weights of 'a' is inf"),
        ({"a": 0, "b": 0}, "weights are all 0"),
    ],
)
def test_weights_that_are_none_are_refused(weights, message):
    with pytest.raises(CombinerError, match=message):
        make_combiner("weighted", weights=weights)


def test_a_member_that_is_not_there_is_named(library):
    with pytest.raises(CombinerError, match="weights names 'x' and 1 more, and there is no such member"):
        make_combiner("weighted", weights={"x": 1, "m0": 1, "y": 2, "z": 0}).fit(library())
