"""Before and after fine-tuning, on the same rows."""

from __future__ import annotations

import numpy as np
import pytest

from ensembler.evaluation.transfer import TRANSFER_METRICS, transfer_frame
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions


def _predictions() -> Predictions:
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    proba = rng.dirichlet(np.ones(3), (3, 300))
    proba[1] = 0.5 * proba[1] + 0.5 * np.eye(3)[labels]  # one that knows more
    members = ["frozen", "tuned", "alone"]
    return Predictions.from_arrays(
        proba.astype(np.float32), labels, members=members, classes=["a", "b", "c"], fold=labels
    )


def test_scores_and_gains_are_those_of_the_metrics_and_positive_is_better() -> None:
    predictions = _predictions()
    frame = transfer_frame(predictions, {"tuned": "frozen", "alone": None}).set_index(["candidate", "metric"])
    assert len(frame) == 2 * len(TRANSFER_METRICS)
    for name in TRANSFER_METRICS:
        row = frame.loc["tuned", name]
        before, after = (METRICS[name](predictions.labels, predictions.proba[i]) for i in (0, 1))
        assert (row["before"], row["after"]) == (before, after)
        assert row["gain"] == pytest.approx(abs(after - before))
        assert 0 < row["gain_low"] < row["gain"] < row["gain_high"]
        assert np.isnan(frame.loc["alone", name][["before", "gain", "gain_low"]].astype(float)).all()
        assert frame.loc["alone", name]["after"] == METRICS[name](predictions.labels, predictions.proba[2])


def test_a_candidate_gains_nothing_on_itself() -> None:
    frame = transfer_frame(_predictions(), {"frozen": "frozen"}, ["log_loss"])
    assert frame.loc[0, ["gain", "gain_low", "gain_high"]].to_list() == [0, 0, 0]
