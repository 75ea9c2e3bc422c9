"""The lab's numbers are the leaderboard's, whoever asks first, and nothing in them depends on what was asked before."""

from __future__ import annotations

import numpy as np
import pytest

from ensembler.combiners import COMBINERS, make_combiner
from ensembler.comparison import make_entry
from ensembler.errors import CombinerError, PredictionsError
from ensembler.evaluation.cost import Cost
from ensembler.evaluation.cross_fit import cross_fit
from ensembler.evaluation.leaderboard import build_leaderboard
from ensembler.evaluation.significance import bootstrap_weights
from ensembler.laboratory import FAST, Laboratory, Setup
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions

NAMES = ("b", "a", "d", "c")
COSTS = {name: Cost(latency_ms=2.0 + i, params=10 * i) for i, name in enumerate(NAMES)}


def library(n: int = 300, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=n)
    logits = rng.normal(size=(4, n, 3)) + 0.5 * rng.normal(size=(n, 3))
    logits += np.array([2.0, 1.6, 1.4, 0.4])[:, None, None] * np.eye(3)[labels]
    proba = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    return Predictions.from_arrays(proba, labels, np.arange(n) % 3, members=NAMES)


def setup(combiner: str, members: tuple[str, ...] = ("b", "a", "c")) -> Setup:
    return Setup(members, combiner, (3.0, 1.0, 0.0) if combiner == "weighted" else ())


@pytest.mark.parametrize("metric", ["log_loss", "accuracy"])
@pytest.mark.parametrize("combiner", [*FAST, "boosting", "stacking_ridge"])
def test_an_answer_is_the_row_that_the_leaderboard_would_have(combiner: str, metric: str) -> None:
    predictions, groups = library(), np.arange(300) // 2
    lab = Laboratory(predictions, METRICS[metric], COSTS, groups)
    asked = setup(combiner)
    answer = lab.measure(asked)
    fit = cross_fit(make_entry("x", lab.options(asked), METRICS[metric]), predictions, METRICS[metric], "x")
    board = build_leaderboard(predictions, [fit], METRICS[metric], costs=COSTS, groups=groups).frame
    row = board.set_index("name").loc["x"]
    expected = [row["cv"], row["cv_low"], row["cv_high"], row["delta_best_single"], row["delta_low"]]
    found = [answer.fit.score, answer.low, answer.high, answer.gain.delta, answer.gain.low]
    assert found == pytest.approx(expected, abs=1e-6)
    assert answer.fit.optimism == pytest.approx(row["optimism"], abs=1e-6)
    assert sorted(answer.members) == sorted(row["members"])
    assert answer.cost.latency_ms == row["latency_ms"]
    assert answer.gain.second == lab.best_single == board.loc[board["kind"] == "single", "name"].iloc[0]


def test_a_metric_that_is_no_mean_over_rows_has_fewer_resamples_and_says_so() -> None:
    predictions = library()
    answer = Laboratory(predictions, METRICS["macro_f1"]).measure(setup("mean"))
    assert answer.n_resamples == 200
    mean = make_combiner("mean").fit(predictions.select(["a", "b", "c"]))
    expected = METRICS["macro_f1"](
        predictions.labels, mean.predict(predictions.select(["a", "b", "c"])).proba[0]
    )
    assert answer.fit.score == pytest.approx(expected)
    assert answer.low < answer.fit.score < answer.high


def test_many_rows_have_fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ensembler.laboratory._PAIRS", 300 * 500)
    lab = Laboratory(library(), METRICS["log_loss"])
    assert lab.measure(setup("mean")).n_resamples == 500
    np.testing.assert_array_equal(lab._resamples, bootstrap_weights(300, 500, 0))


def test_own_weights_are_shares_and_a_member_of_weight_0_costs_nothing() -> None:
    answer = Laboratory(library(), METRICS["log_loss"], COSTS).measure(setup("weighted"))
    assert answer.weights == {"a": 0.25, "b": 0.75, "c": 0.0}
    assert answer.members == ("a", "b")
    assert answer.cost.latency_ms == 5.0
    assert answer.fit.optimism == 0, "nothing is fitted, so nothing can be left out"


def test_the_order_in_which_members_were_switched_on_makes_no_difference() -> None:
    lab = Laboratory(library(), METRICS["log_loss"])
    for combiner in FAST:
        weights = (1.0, 2.0, 3.0)
        straight = lab.measure(Setup(("a", "b", "c"), combiner, weights))
        turned = lab.measure(Setup(("c", "b", "a"), combiner, weights[::-1]))
        np.testing.assert_array_equal(turned.fit.predictions.proba, straight.fit.predictions.proba)


def test_a_known_answer_is_not_made_again_and_old_ones_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ensembler.laboratory._KEPT", 2)
    lab = Laboratory(library(), METRICS["log_loss"])
    first = lab.measure(setup("greedy"))
    assert lab.knows(setup("greedy"))
    assert lab.measure(setup("greedy")) is first
    for members in (("a", "b"), ("a", "c")):
        lab.measure(setup("mean", members))
    assert not lab.knows(setup("greedy"))


def test_progress_is_told_fit_by_fit_and_an_answer_that_is_broken_off_is_not_kept() -> None:
    lab = Laboratory(library(), METRICS["log_loss"])
    told: list[tuple[int, int]] = []
    lab.measure(setup("greedy"), lambda done, fits: told.append((done, fits)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]

    def left(done: int, fits: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lab.measure(setup("convex"), left)
    assert not lab.knows(setup("convex"))


def test_a_budget_is_kept_to_by_the_search_under_it() -> None:
    lab = Laboratory(library(), METRICS["log_loss"], COSTS)
    answer = lab.measure(Setup(NAMES, "constrained", limit_ms=5.0))
    assert answer.cost.latency_ms is not None
    assert answer.cost.latency_ms <= 5.0
    assert lab.options(Setup(NAMES, "constrained", limit_ms=5.0))["base_params"]["limit"] == 5.0
    with pytest.raises(CombinerError, match="no member costs 1 or less"):
        lab.measure(Setup(NAMES, "constrained", limit_ms=1.0))


def test_every_combiner_can_be_chosen_and_only_a_run_with_latencies_offers_a_search_under_one() -> None:
    with_costs = Laboratory(library(), METRICS["log_loss"], COSTS).choices()
    assert set(with_costs) == set(COMBINERS) - {"subset"}
    assert with_costs[: len(FAST)] == list(FAST)
    bare = Laboratory(library(), METRICS["log_loss"])
    assert set(with_costs) - set(bare.choices()) == {"constrained"}
    assert bare.cost(NAMES).latency_ms is None


def test_contributions_add_up_to_what_the_mean_gains_on_knowing_nothing() -> None:
    lab = Laboratory(library(), METRICS["log_loss"])
    found = lab.contributions(["b", "a", "c"])
    assert [one.member for one in found.members] == ["b", "a", "c"]
    assert sum(one.shapley for one in found.members) == pytest.approx(found.empty - found.full)
    assert found.full == pytest.approx(lab.measure(setup("mean")).fit.score)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Setup((), "mean"), "no members: switch on one"),
        (Setup(("a", "b"), "weighted", (1.0,)), "1 for 2 members"),
        (Setup(("a", "b"), "weighted", (0.0, 0.0)), "weights are all 0"),
        (Setup(("a", "b"), "weighted", (-1.0, 2.0)), "expected a number of 0 or more"),
    ],
)
def test_what_is_no_ensemble_is_refused(asked: Setup, message: str) -> None:
    with pytest.raises(CombinerError, match=message):
        Laboratory(library(), METRICS["log_loss"]).measure(asked)


def test_one_fold_is_refused() -> None:
    with pytest.raises(PredictionsError, match="at least two folds"):
        Laboratory(library().with_fold(np.zeros(300, np.int16)), METRICS["log_loss"])
