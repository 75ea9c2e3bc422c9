import numpy as np
import pytest

from ensembler.combiners import COMBINERS, from_state, make_combiner
from ensembler.combiners.inner import inner_cross_fit
from ensembler.combiners.levels import Levels
from ensembler.errors import CombinerError
from ensembler.evaluation.cross_fit import cross_fit
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions


def test_a_level_is_fitted_on_inner_cross_fitted_outputs_and_predicts_with_whole_ones(library):
    predictions, unseen = library(), library(seed=1)
    combiner = Levels(levels=[["stacking", "mean"], ["convex"]]).fit(predictions)
    keys = ["stacking", "mean"]
    names = ["level1.1.stacking", "level1.2.mean"]
    honest = [inner_cross_fit(make_combiner(key), predictions) for key in keys]
    second = Predictions.concat(
        [predictions, *(predictions.with_proba(p, [n]) for p, n in zip(honest, names, strict=True))]
    )
    whole = [make_combiner(key).fit(predictions).predict(unseen).proba[0] for key in keys]
    expected = (
        make_combiner("convex")
        .fit(second)
        .predict(
            Predictions.concat(
                [unseen, *(unseen.with_proba(p, [n]) for p, n in zip(whole, names, strict=True))]
            )
        )
    )
    np.testing.assert_allclose(combiner.predict(unseen).proba, expected.proba, atol=1e-6)


def test_the_last_level_is_averaged(library):
    predictions, unseen = library(), library(seed=1)
    combined = Levels(levels=[["mean", "geometric"]]).fit(predictions).predict(unseen).proba[0]
    parts = [make_combiner(key).fit(predictions).predict(unseen).proba[0] for key in ("mean", "geometric")]
    np.testing.assert_allclose(combined, np.mean(parts, axis=0), atol=1e-6)


def test_no_row_weighs_its_own_label():
    """A first level that learns rows by heart would win every second level that was shown what it learned by."""
    rng = np.random.default_rng(0)
    noise = Predictions.from_arrays(
        rng.dirichlet(np.ones(3), (4, 300)), rng.integers(3, size=300), np.arange(300) % 3
    )
    by_heart = {"stacking_knn": {"ks": [1]}}
    combiner = Levels(levels=[["mean", by_heart], ["greedy"]])
    log_loss = METRICS["log_loss"]
    mean = cross_fit(make_combiner("mean"), noise, log_loss).score
    assert cross_fit(combiner, noise, log_loss).score < mean + 0.03


def test_members_may_be_kept_from_the_later_levels(library):
    predictions = library()
    combiner = Levels(levels=[["mean", "geometric"], ["greedy"]], members=False).fit(predictions)
    assert combiner.inner_["level2.1.greedy"].members_ == ("level1.1.mean", "level1.2.geometric")
    assert combiner.used_members_ == predictions.members


def test_what_reaches_the_last_level_is_kept_and_nothing_else(library):
    predictions, unseen = library(n_members=8), library(n_members=8, seed=1)
    first = [{"greedy": {"rounds": 2}}, {"greedy": {"rounds": 3, "metric": "accuracy"}}]
    combiner = Levels(levels=[first, [{"greedy": {"rounds": 1}}]]).fit(predictions)
    small = combiner.pruned()
    assert 0 < len(small.members_) < 8  # otherwise this shows nothing
    assert len(small.inner_) < len(combiner.inner_)
    restored = from_state(*small.get_state())
    np.testing.assert_array_equal(
        restored.predict(unseen.select(small.members_)).proba, combiner.predict(unseen).proba
    )


def test_three_levels_and_two_combiners_of_one_kind(library):
    predictions = library(n_samples=120)
    levels = [["mean", {"greedy": {"rounds": 2}}, "greedy"], ["convex", "greedy"], ["mean"]]
    combiner = Levels(levels=levels).fit(predictions)
    assert combiner.level_names == [
        ["level1.1.mean", "level1.2.greedy", "level1.3.greedy"],
        ["level2.1.convex", "level2.2.greedy"],
        ["level3.1.mean"],
    ]
    assert list(combiner.inner_) == [name for level in combiner.level_names for name in level]
    restored = from_state(*combiner.get_state())
    np.testing.assert_array_equal(restored.predict(predictions).proba, combiner.predict(predictions).proba)


def test_the_metric_of_a_run_reaches_every_level():
    given = {"levels": [["mean", {"greedy": {"rounds": 3}}], [{"greedy": {"metric": "brier"}}]]}
    assert COMBINERS["levels"].tuned_for("accuracy", given)["levels"] == [
        [{"mean": {}}, {"greedy": {"metric": "accuracy", "rounds": 3}}],
        [{"greedy": {"metric": "brier"}}],
    ]


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ("mean", "levels: levels is 'mean'; expected lists of combiners, such as"),
        ([], "expected lists of combiners"),
        ([["mean"], []], "expected lists of combiners"),
        ([["mean"], ["stackng"]], "levels: level 2: unknown combiner 'stackng'; did you mean 'stacking'"),
        ([[{"greedy": {"rounds": 0}}]], "levels: level 1: greedy: rounds is 0"),
        ([[3]], "levels: 3; expected a combiner, or one with its options"),
    ],
)
def test_levels_that_make_no_sense_are_refused(levels, message):
    with pytest.raises(CombinerError, match=message):
        make_combiner("levels", levels=levels)
