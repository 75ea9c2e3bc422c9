"""Costs in a config, on the command line and on a leaderboard."""

import json

import numpy as np
import pytest
import yaml

from ensembler.cli import main
from ensembler.config import Config
from ensembler.errors import ConfigError
from ensembler.experiment import Experiment
from ensembler.metrics import get_metric
from ensembler.predictions import Predictions
from ensembler.store import RunStore

GOOD = "name: x\ndata: {source: digits}\nbackbones: [resnet10t]\n"
NAME = "cost:[[0,1],[5,0]]"


@pytest.fixture
def parse(tmp_path):
    return lambda text: Config.parse(GOOD + text, tmp_path / "c.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "metric: {cost: [[0, 1], [5, 0]]}",
        "metric:\n  cost:\n    - [0, 1.0]\n    - [5, 0]",
        "metric: cost:[[0,1],[5,0]]",
        "metric: 'cost: [[0, 1], [5, 0]]'",
    ],
)
def test_every_way_to_write_it_is_one_name(parse, text, tmp_path):
    config = parse(text)
    assert config.metric == NAME
    again = tmp_path / "resolved.yaml"
    again.write_text(yaml.safe_dump(config.resolved()))
    assert Config.load(again).metric == NAME


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metric: {cost: [[0, 1], [5]]}", ":4 metric: a dict: cost: row 2 has 1 entries in a matrix of 2 rows"),
        ("metric:\n  cost: [[0, -1], [5, 0]]", ":4 metric: a dict: cost: -1 in row 1, column 2; expected a finite"),
        ("metric: {cost: [[0, .nan], [5, 0]]}", ":4 metric: a dict: cost: nan in row 1, column 2"),
        ("metric: {cost: [[0, .inf], [5, 0]]}", ":4 metric: a dict: cost: inf in row 1, column 2"),
        ("metric: {cost: 3}", ":4 metric: a dict: cost: 3 is not a matrix; give one row a true class"),
        ("metric: {cost: null}", ":4 metric: a dict: cost: None is not a matrix"),
        ("metric: {costs: [[0, 1], [5, 0]]}", ":4 metric: a dict: expected a name, or what mistakes cost as {cost:"),
        ("metric: 'cost:[[0,1]'", ":4 metric: 'cost:[[0,1]': cost: '[[0,1]' is not a matrix in JSON"),
        ("metric: cost", ":4 metric: cost: '' is not a matrix in JSON; give one row"),
        ("metric: [accuracy]", ":4 metric: a list: input should be a valid string"),
    ],
)  # fmt: skip
def test_what_is_no_matrix_is_named_with_its_line(parse, text, message):
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert f"c.yaml{message}" in str(caught.value)


def test_a_matrix_of_other_classes_fails_before_anything_is_written(tmp_path):
    config = "name: x\ndata: {source: digits, image_size: 8}\nmetric: {cost: [[0, 1], [5, 0]]}\n"
    (tmp_path / "c.yaml").write_text(config + "backbones: [test_resnet: {weights: random}]\n")
    experiment = Experiment.from_config(tmp_path / "c.yaml", tmp_path / "run")
    with pytest.raises(
        ConfigError, match=r"c\.yaml metric: cost: made for 2 classes, and there are 10: 0, 1, 2"
    ):
        experiment.run()
    assert not (tmp_path / "run" / "manifest.json").exists()


# ---------------------------------------------------------------------- predictions from elsewhere


@pytest.fixture
def file(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    proba = rng.dirichlet([1, 1], (3, 60))
    proba[:, np.arange(60), labels] += 0.5
    proba /= proba.sum(axis=2, keepdims=True)
    rows = Predictions.from_arrays(proba, labels, np.arange(60) % 3, classes=["cat", "dog"])
    rows.save(tmp_path / "p.npz")
    return tmp_path / "p.npz"


def test_a_leaderboard_of_costs(file, tmp_path, capsys):
    run = tmp_path / "run"
    argv = ["combine", "--predictions", str(file), "-o", str(run), "--metric", "cost: [[0, 1], [5, 0]]"]
    assert main(argv) == 0
    table = capsys.readouterr().out
    assert "cost" in table.splitlines()[0]
    assert NAME not in table
    assert RunStore(run).manifest()["metric"] == NAME
    assert main(["leaderboard", str(run), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = Predictions.load(file)[0]
    for row in found:
        assert row["metric"] == NAME
        assert row["cv_low"] <= row["cv"] <= row["cv_high"]
        if row["kind"] == "single":
            expected = get_metric(NAME)(rows.labels, rows.proba[rows.index(row["name"])])
            assert row["cv"] == pytest.approx(expected)
    assert [row["cv"] for row in found] == sorted(row["cv"] for row in found)
    assert main(["report", str(run)]) == 0
    report = (run / "report" / "report.md").read_text()
    assert "cost" in report


def test_costs_of_other_classes_are_refused(file, tmp_path, capsys):
    matrix = "cost:[[0,1,1],[1,0,1],[1,1,0]]"
    argv = ["combine", "--predictions", str(file), "-o", str(tmp_path / "run"), "--metric", matrix]
    assert main(argv) == 2
    assert "made for 3 classes, and there are 2: cat, dog" in capsys.readouterr().err
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_the_list_tells_of_costs(capsys):
    assert main(["list", "metrics"]) == 0
    captured = capsys.readouterr()
    assert "cost" not in captured.out
    assert NAME in captured.err
