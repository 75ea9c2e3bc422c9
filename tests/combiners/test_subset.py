import numpy as np
import pytest

from ensembler.combiners import make_combiner
from ensembler.errors import CombinerError


@pytest.mark.parametrize("base", ["mean", "greedy", "stacking", "calibrated"])
def test_it_is_the_base_given_these_members_alone(library, base):
    predictions, unseen = library(), library(seed=1)
    part = ["m1", "m3", "m4"]
    subset = make_combiner("subset", base=base, members=part[::-1]).fit(predictions)
    alone = make_combiner(base).fit(predictions.select(part))
    expected = alone.predict(unseen.select(part)).proba
    np.testing.assert_allclose(subset.predict(unseen).proba, expected, atol=1e-6)
    assert set(subset.used_members_) <= set(part)
    assert subset.pruned().members_ == subset.used_members_


def test_parameters_reach_the_base_and_it_optimises_the_metric_of_the_run(library):
    tuned = type(make_combiner("subset")).tuned_for("accuracy", {"base_params": {"rounds": 1}})
    subset = make_combiner("subset", **tuned).fit(library())
    assert (
        subset.inner_["base"].get_params() | {"metric": "accuracy", "rounds": 1}
        == subset.inner_["base"].get_params()
    )
    assert len(subset.used_members_) == 1


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"members": "m0"}, "members is 'm0'; expected a list"),
        ({"members": ["m0", "m0"]}, "members names 'm0' twice"),
        ({"base": "x"}, "subset: base: unknown combiner 'x'"),
    ],
)
def test_what_is_no_subset_is_refused(params, message):
    with pytest.raises(CombinerError, match=message):
        make_combiner("subset", **params)


def test_a_member_that_is_not_there_is_named(library):
    with pytest.raises(CombinerError, match="members names 'x', and there is no such member"):
        make_combiner("subset", members=["m0", "x"]).fit(library())
