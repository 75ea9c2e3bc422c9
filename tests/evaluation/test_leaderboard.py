import csv
import io
import json

import numpy as np
import pytest

from ensembler.combiners import make_combiner
from ensembler.errors import PredictionsError
from ensembler.evaluation.cost import Cost
from ensembler.evaluation.cross_fit import cross_fit
from ensembler.evaluation.leaderboard import COLUMNS, Leaderboard, build_leaderboard
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions

LOG_LOSS, ACCURACY = METRICS["log_loss"], METRICS["accuracy"]

#: What readers of the JSON rely on.
KEYS = {
    "name", "kind", "members", "metric", "cv", "cv_low", "cv_high", "fold_scores", "test",
    "accuracy", "log_loss", "ece", "delta_best_single", "delta_low", "delta_high", "p_value",
    "tied_with_best", "optimism", "latency_ms", "params", "train_s", "latency_32_ms", "flops",
    "weights_bytes", "backbone", "strategy", "weights", "note",
}  # fmt: skip


@pytest.fixture
def predictions(library):
    return library()


def board(predictions, keys=("mean", "greedy"), metric=LOG_LOSS, **options):
    cross_fits = [cross_fit(make_combiner(key), predictions, metric) for key in keys]
    return build_leaderboard(predictions, cross_fits, metric, **({"n_boot": 500} | options))


def rows(leaderboard):
    return {r["name"]: r for r in leaderboard.to_records()}


@pytest.mark.parametrize("metric", [LOG_LOSS, ACCURACY, METRICS["macro_f1"], METRICS["roc_auc"]])
def test_rows_are_best_first_and_scored_over_all_rows(predictions, metric):
    records = board(predictions, metric=metric).to_records()
    scores = [r["cv"] for r in records]
    assert scores == sorted(scores, reverse=metric.greater_is_better)
    for r in records:
        assert set(r) == KEYS
        assert r["cv_low"] < r["cv"] < r["cv_high"]
    single = next(r for r in records if r["name"] == "m1")
    assert single["cv"] == pytest.approx(metric(predictions.labels, predictions.proba[1]))
    assert single["fold_scores"] == [
        metric(predictions.labels[predictions.fold == f], predictions.proba[1, predictions.fold == f])
        for f in range(3)
    ]
    assert single["accuracy"] == pytest.approx(ACCURACY(predictions.labels, predictions.proba[1]))


@pytest.mark.parametrize("metric", [LOG_LOSS, ACCURACY])
def test_differences_are_against_the_best_single_and_positive_is_better(predictions, metric):
    records = board(predictions, metric=metric).to_records()
    best = next(r for r in records if r["kind"] == "single")
    assert (best["delta_best_single"], best["delta_low"], best["delta_high"]) == (0, 0, 0)
    assert best["p_value"] is None
    for r in records:
        assert r["delta_best_single"] == pytest.approx(metric.improvement(r["cv"], best["cv"]))
        assert r["delta_low"] <= r["delta_best_single"] <= r["delta_high"]
        assert (r["optimism"] is None) == (r["kind"] == "single")


def test_p_values_are_corrected_for_the_number_of_rows(library):
    predictions = library(n_members=2)
    alone = rows(build_leaderboard(predictions, [], LOG_LOSS))
    more = rows(build_leaderboard(library(n_members=2).select(["m0", "m1"]), [], LOG_LOSS))
    assert alone == more
    worse = max(alone.values(), key=lambda r: r["cv"])["name"]
    copies = predictions.with_proba(
        np.concatenate([predictions.proba, predictions.proba[[predictions.index(worse)]]]),
        ["m0", "m1", "copy"],
    )
    corrected = rows(build_leaderboard(copies, [], LOG_LOSS))
    assert corrected[worse]["p_value"] == pytest.approx(min(2 * alone[worse]["p_value"], 1))


def test_tied_with_the_best_is_a_paired_comparison(library):
    predictions = library(n_samples=600)
    proba = predictions.proba.copy()
    proba[1] = proba[0]
    proba[2] = 1 / 3
    names = ["first", "twin", "guess"]
    records = rows(build_leaderboard(predictions.with_proba(proba, names), [], LOG_LOSS))
    assert records["first"]["tied_with_best"] is records["twin"]["tied_with_best"] is True
    assert records["guess"]["tied_with_best"] is False
    assert records["twin"]["p_value"] == 1
    assert records["guess"]["p_value"] < 1e-6


def test_groups_widen_the_intervals(library):
    one = library(n_samples=60)
    ten = np.repeat(np.arange(60), 10)
    repeated = Predictions.from_arrays(one.proba[:, ten], one.labels[ten], one.fold[ten])
    naive = rows(build_leaderboard(repeated, [], LOG_LOSS))["m0"]
    honest = rows(build_leaderboard(repeated, [], LOG_LOSS, groups=ten))["m0"]
    assert honest["cv_high"] - honest["cv_low"] > 2 * (naive["cv_high"] - naive["cv_low"])


def test_an_ensemble_costs_the_members_it_uses(predictions):
    costs = {"m0": Cost(1.0, 100, 10.0), "m1": Cost(2.0, 200, 20.0), "m2": Cost(4.0, 400, None)}
    records = rows(board(predictions, costs=costs))
    assert (records["mean"]["latency_ms"], records["mean"]["params"]) == (7.0, 700)
    assert records["mean"]["train_s"] is None
    assert records["m0"]["train_s"] == 10
    used = records["greedy"]["members"]
    assert records["greedy"]["params"] == sum(costs[m].params for m in used)
    assert rows(board(predictions))["mean"]["latency_ms"] is None


def test_an_ensemble_lists_the_members_it_uses(library):
    predictions = library()
    proba = predictions.proba.copy()
    proba[2] = np.eye(3)[(predictions.labels + 1) % 3]
    records = rows(board(predictions.with_proba(proba, predictions.members)))
    assert "m2" not in records["greedy"]["members"]
    assert records["mean"]["members"] == ["m0", "m1", "m2"]


def test_details_and_test_scores_land_on_their_rows(predictions):
    details = {"m1": {"backbone": "resnet10t", "weights": "random", "note": "hub out of reach", "lr": 0.1}}
    records = rows(board(predictions, details=details, test={"m1": 0.5, "mean": 0.4}))
    assert (records["m1"]["backbone"], records["m1"]["note"]) == ("resnet10t", "hub out of reach")
    assert records["m1"]["lr"] == 0.1
    assert records["m0"]["backbone"] is records["m0"]["lr"] is None
    assert (records["m1"]["test"], records["mean"]["test"], records["m0"]["test"]) == (0.5, 0.4, None)


def test_same_seed_same_board(predictions):
    assert board(predictions).to_json() == board(predictions).to_json()
    assert board(predictions, seed=1).to_json() != board(predictions).to_json()


def test_a_draw_goes_to_the_single_model(library):
    one = library(n_members=1)
    assert [r["kind"] for r in board(one, keys=["mean"]).to_records()] == ["single", "ensemble"]


def test_an_undefined_score_is_null_and_never_nan(library):
    predictions = library()
    single_class = predictions.rows((predictions.labels == 0) | (predictions.fold != 1))
    text = board(single_class, metric=METRICS["roc_auc"]).to_json()
    assert json.loads(text)[0]["fold_scores"][1] is None
    assert "NaN" not in text


def test_names_must_be_unique(predictions):
    fitted = [cross_fit(make_combiner("mean"), predictions, LOG_LOSS, name="m0")]
    with pytest.raises(PredictionsError, match="'m0' appears twice"):
        build_leaderboard(predictions, fitted, LOG_LOSS)


# ---------------------------------------------------------------------- formats


def test_json_round_trip(predictions):
    first = board(predictions, costs={"m0": Cost(1.0, 100, 10.0)}, test={"m0": 0.25})
    again = Leaderboard.from_records(json.loads(first.to_json()), first.failed)
    assert again.to_records() == first.to_records()
    assert again.frame.dtypes.equals(first.frame.dtypes)
    assert again.verdict == first.verdict


def test_parquet_round_trip(predictions, tmp_path):
    import pandas as pd

    first = board(predictions, costs={"m0": Cost(1.0, 100, 10.0)})
    first.frame.to_parquet(tmp_path / "board.parquet")
    again = Leaderboard(pd.read_parquet(tmp_path / "board.parquet"))
    assert again.to_records() == first.to_records()


def test_csv_has_a_line_a_row(predictions):
    lines = list(csv.DictReader(io.StringIO(board(predictions).to_csv())))
    assert {line["name"] for line in lines} == {"m0", "m1", "m2", "mean", "greedy"}
    mean = next(line for line in lines if line["name"] == "mean")
    assert mean["members"] == "m0;m1;m2"
    assert len(mean["fold_scores"].split(";")) == 3
    assert mean["test"] == ""


def test_latex_is_a_booktabs_tabular_with_names_escaped(predictions):
    renamed = predictions.with_proba(predictions.proba, ["vit_small&co", "b", "c"])
    text = build_leaderboard(renamed, [], LOG_LOSS).to_latex()
    assert r"vit\_small\&co & " in text
    body = text.split("\\midrule\n")[1].split("\\bottomrule")[0]
    columns = text.splitlines()[0].split("{")[2].rstrip("}")
    assert all(line.count(" & ") == len(columns) - 1 for line in body.splitlines())


@pytest.mark.parametrize("width", [60, 100, 200])
def test_the_terminal_table_fits_and_cuts_no_name(predictions, width):
    names = ["mobilenetv4_conv_small_035-3fa2b1", "resnet10t-0b9c22", "[bold]c[/bold]"]
    renamed = predictions.with_proba(predictions.proba, names)
    text = board(renamed, costs={n: Cost(1.5, 2_000_000, 60.0) for n in names}).to_table(width)
    assert max(len(line) for line in text.splitlines()) <= width
    for name in [*names, "mean", "greedy"]:
        assert name in text
    assert "log loss" in text
    assert ("Mparams" in text) == (width == 200)


def test_a_name_too_long_for_the_terminal_is_folded(predictions):
    name = "n" * 90
    text = build_leaderboard(
        predictions.with_proba(predictions.proba, [name, "b", "c"]), [], LOG_LOSS
    ).to_table(60)
    assert text.count("n") >= 90
    assert max(len(line) for line in text.splitlines()) <= 60


# ---------------------------------------------------------------------- verdict


def test_a_better_ensemble_is_recommended_with_its_price(library):
    predictions = library(n_samples=900, signal=1.5)
    verdict = board(predictions, costs={f"m{i}": Cost(2.0, 10, 1.0) for i in range(3)}).verdict
    assert verdict.better
    assert verdict.winner == verdict.best_ensemble
    assert verdict.low > 0
    assert verdict.p_value < 0.05
    assert (verdict.price.latency_ratio, verdict.price.added_ms) == (3.0, 4.0)
    assert (
        f"{verdict.best_ensemble}, beats the best single model, {verdict.best_single}, by" in verdict.sentence
    )
    assert "at 3.0 times the latency, +4.0 ms an image" in verdict.sentence


def test_an_ensemble_that_is_not_shown_to_be_better_loses_to_the_single(library):
    predictions = library(n_samples=300)
    proba = np.stack([predictions.proba[0]] * 2)
    same = predictions.with_proba(proba, ["a", "b"])
    verdict = board(same, keys=["mean"]).verdict
    assert not verdict.better
    assert verdict.winner == verdict.best_single == "a"
    assert verdict.best_ensemble == "mean"
    assert "not shown to be better" in verdict.sentence
    assert verdict.sentence.endswith("use a.")


def test_an_interval_above_zero_is_not_enough_when_the_corrected_p_value_is_large(predictions):
    records = board(predictions, keys=["mean"]).to_records()
    for r in records:
        if r["kind"] == "ensemble":
            r.update(delta_low=0.01, delta_high=0.2, p_value=0.2)
    assert not Leaderboard.from_records(records).verdict.better


def test_without_ensembles_the_best_single_wins(predictions):
    verdict = build_leaderboard(predictions, [], LOG_LOSS).verdict
    assert (verdict.better, verdict.best_ensemble, verdict.delta) == (False, None, None)
    assert verdict.winner == verdict.best_single
    assert "no ensemble to compare" in verdict.sentence


def test_one_single_model_and_unknown_costs(library):
    verdict = board(library(n_members=1), keys=[]).verdict
    assert verdict.winner == "m0"
    better = board(library(n_samples=900, signal=1.5)).verdict
    assert better.better
    assert "at a cost that was not measured" in better.sentence
    assert better.price.added_ms is None


def test_failed_candidates_are_named_beside_the_verdict(predictions):
    failed = [
        {"name": "vit", "fold": 2, "reason": "loss became NaN", "candidate": {"recipe": {"lr": 0.1}}},
        {"name": "deit", "fold": 1, "reason": "deit, fold 1: loss is nan at epoch 1"},
        {"name": "swin", "fold": None},
    ]
    leaderboard = board(predictions, failed=failed)
    assert leaderboard.failed == tuple(failed)
    assert leaderboard.verdict.failed == (
        "vit: loss became NaN (fold 2)",
        "deit, fold 1: loss is nan at epoch 1",
        "swin",
    )
    assert leaderboard.verdict.sentence.endswith("3 candidates failed or were left out, not compared.")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("name", None, "text"),
        ("kind", 3, "text"),
        ("members", None, "a list"),
        ("fold_scores", "0.5", "a list"),
        ("cv", None, "a number"),
        ("delta_low", None, "a number"),
    ],
)
def test_a_row_without_what_every_row_has_is_named(key: str, value: object, expected: str) -> None:
    """A flipped bit of a Parquet file can make nothing of any value."""
    records = [
        dict.fromkeys(COLUMNS)
        | {"name": kind, "kind": kind, "metric": "accuracy", "members": ["a"], "fold_scores": [0.5]}
        | dict.fromkeys(("cv", "cv_low", "cv_high"), 0.5)
        | (dict.fromkeys(("delta_best_single", "delta_low", "delta_high"), 0.0) if kind == "ensemble" else {})
        | {"tied_with_best": False}
        for kind in ("single", "ensemble")
    ]
    assert Leaderboard.from_records(records).verdict.best_ensemble == "ensemble"
    with pytest.raises(ValueError, match=f"row 1 of the leaderboard: {key}: .*; expected {expected}"):
        Leaderboard.from_records([records[0], records[1] | {key: value}])
