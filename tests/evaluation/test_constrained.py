import pytest

from ensembler.errors import CombinerError
from ensembler.evaluation.constrained import best_under
from ensembler.evaluation.cost import Cost
from ensembler.evaluation.leaderboard import build_leaderboard
from ensembler.metrics import METRICS

LOG_LOSS = METRICS["log_loss"]
COSTS = {f"m{i}": Cost(latency_ms=1.0 + i, weights_bytes=10**6 * (5 - i)) for i in range(5)}


@pytest.mark.parametrize(
    ("limit", "name", "cost"),
    [
        ({"max_latency_ms": 6}, "max-6ms", lambda m: COSTS[m].latency_ms / 6),
        ({"max_bytes": 6e6}, "max-6MB", lambda m: COSTS[m].weights_bytes / 6e6),
        ({"max_members": 2}, "max-2members", lambda m: 1 / 2),
        ({"max_latency_ms": 9, "max_members": 2}, "max-9ms-2members", lambda m: 1 / 2),
    ],
)
def test_becomes_a_row_of_the_leaderboard_within_its_limit(library, limit, name, cost):
    predictions = library(n_members=5)
    fit = best_under(predictions, LOG_LOSS, COSTS, **limit)
    used = fit.combiner.used_members_
    assert sum(cost(member) for member in used) <= 1
    assert len(used) > 1
    records = build_leaderboard(predictions, [fit], LOG_LOSS, costs=COSTS, n_boot=100).to_records()
    (row,) = [r for r in records if r["name"] == name]
    assert row["members"] == list(used)
    assert row["cv"] == pytest.approx(fit.score)
    assert row["latency_ms"] == pytest.approx(sum(COSTS[m].latency_ms for m in used))


def test_the_score_is_cross_fitted_so_it_is_worse_than_in_sample(library):
    fit = best_under(library(n_members=8, n_samples=60), LOG_LOSS, max_members=3)
    assert fit.optimism > 0


def test_a_wider_limit_is_worth_no_less_in_sample(library):
    predictions = library(n_members=5)
    scores = [best_under(predictions, LOG_LOSS, COSTS, max_latency_ms=ms).in_sample for ms in (1, 3, 6, 15)]
    assert scores == sorted(scores, reverse=True)


def test_what_is_not_known_is_named(library):
    with pytest.raises(CombinerError, match="latency_ms of 'm5' is not known; measure it"):
        best_under(library(n_members=6), LOG_LOSS, COSTS, max_latency_ms=3)
    with pytest.raises(CombinerError, match="weights_bytes of 'm0' and 2 more is not known"):
        best_under(library(), LOG_LOSS, max_bytes=3)
    with pytest.raises(CombinerError, match="no limit: give"):
        best_under(library(), LOG_LOSS)
    with pytest.raises(CombinerError, match="both given"):
        best_under(library(), LOG_LOSS, COSTS, max_bytes=3, max_latency_ms=3)
