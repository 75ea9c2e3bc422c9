"""A run of manifest version 1, as the first release wrote it, opens: `run_version_1/`, two heads on 24 small pictures.

Its format may be read in other ways one day, but its files stay as they are.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ensembler.app.reading import view
from ensembler.cli import main
from ensembler.comparison import read_leaderboard
from ensembler.store import RunStore
from ensembler.training.candidate import TRAINING_VERSION, Candidate, CellJob

GOLDEN = Path(__file__).parent / "run_version_1"


@pytest.fixture
def run(tmp_path: Path) -> RunStore:
    return RunStore(shutil.copytree(GOLDEN, tmp_path / "run"))


def test_all_of_it_is_read(run: RunStore) -> None:
    predictions, test = run.predictions(), run.test_predictions()
    assert (predictions.n_members, predictions.n_samples, predictions.n_classes) == (2, 24, 3)
    assert test is not None
    assert (test.n_members, test.n_samples) == (2, 6)
    assert run.config()["name"] == "golden"
    assert len(run.table()) == 30
    assert run.ensembles() == ["greedy", "mean"]
    for name in run.ensembles():
        assert run.ensemble(name)[2].shape == (24, 3)
    assert {event["kind"] for event in run.events()} >= {"stage", "trial", "ensemble"}
    for candidate in run.candidates():
        for fold in range(2):
            assert set(run.cell(candidate.id, fold).weights()) == {"fc.weight", "fc.bias"}


def test_candidates_and_their_trainings_are_still_known_by_their_names(run: RunStore) -> None:
    """Identities must not change with a hyperparameter that is added: a run that goes on would train all anew."""
    for file in run.path.glob("cells/*/*/result.json"):
        record = json.loads(file.read_text())
        candidate = Candidate.from_dict(record["candidate"])
        assert candidate.id == file.parent.parent.name
        job = CellJob(candidate, record["fold"], record["seed"], source=record["source"])
        fingerprint = run.manifest()["identity"]["fingerprint"]
        assert run.has_cell(job, fingerprint) == (TRAINING_VERSION == 2)


@pytest.mark.parametrize("verb", ["compare", "combine"])
def test_the_comparison_comes_to_the_scores_of_then(verb: str, run: RunStore) -> None:
    then = {row["name"]: row for row in run.leaderboard() or []}
    assert main([verb, str(run.path)]) == 0
    now = {row["name"]: row for row in run.leaderboard() or []}
    assert now.keys() == then.keys()
    for name in then:
        for column in ("cv", "cv_low", "cv_high", "test", "accuracy"):
            np.testing.assert_allclose(
                now[name][column], then[name][column], rtol=1e-6, atol=1e-9, err_msg=name
            )


def test_the_command_line_and_the_app_show_it(run: RunStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard", str(run.path)]) == 0
    assert "test_resnet-ridge-183533" in capsys.readouterr().out
    assert view(run).board.verdict.sentence == read_leaderboard(run).verdict.sentence
