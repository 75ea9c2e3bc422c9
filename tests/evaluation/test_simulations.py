"""A short version of `benchmarks/simulate.py`: the same worlds and seeds, fewer draws and wider bars."""

import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def simulate():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import simulate

        yield simulate
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize("name", ["log_loss", "accuracy"])
def test_intervals_cover_the_truth(simulate, name):
    shares = simulate.coverage(name, n=50, draws=150, n_boot=500).measured
    assert all(0.9 <= share <= 0.99 for share in shares)


def test_intervals_over_groups_cover_the_truth(simulate):
    shares = simulate.coverage("log_loss", n=250, draws=150, group_size=5, n_boot=500).measured
    assert all(0.9 <= share <= 0.99 for share in shares)


@pytest.mark.parametrize("name", ["log_loss", "accuracy"])
def test_without_a_difference_no_ensemble_is_called_better(simulate, name):
    assert simulate.false_verdicts(name, n=50, draws=60).measured[0] <= 0.07


def test_ensembles_that_cannot_help_are_not_called_better(simulate):
    assert simulate.vain_ensembles("log_loss", n=200, draws=6).measured[0] <= 0.07


@pytest.mark.parametrize("spread", [0.0, 0.01])
def test_correction_of_a_winner_removes_most_of_its_luck(simulate, spread):
    assert simulate.winners(20, 100, spread, draws=60).measured[0] <= 0.4


def test_random_labels_leave_a_stacker_at_chance(simulate):
    accuracy, log_loss = simulate.chance("stacking", draws=4).measured
    assert accuracy == pytest.approx(1 / 5, abs=0.04)
    assert log_loss > np.log(5) - 0.01


def test_a_report_counts_what_is_broken(simulate):
    lines = [
        simulate.Line("winners", {"images": "100"}, True, (0.1,)),
        simulate.Line("winners", {"images": "200"}, False, (0.5,)),
    ]
    text = simulate.report(lines, "python benchmarks/simulate.py --write")
    assert "1 of 2 lines break their promise." in text
    assert "| 100 | yes |\n| 200 | **no** |" in text
    assert "Every promise is kept." in simulate.report(lines[:1], "command")
