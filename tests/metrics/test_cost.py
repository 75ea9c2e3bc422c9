"""A metric that is a matrix of costs."""

import json

import numpy as np
import pytest

from ensembler.errors import ConfigError
from ensembler.metrics import cost_name, get_metric

NAME = "cost:[[0,1],[5,0]]"


def test_the_row_is_the_true_class_and_the_column_the_predicted_one():
    metric = get_metric(NAME)
    assert metric([0, 1], [[0.4, 0.6], [0.4, 0.6]]) == 0.5
    assert metric([0, 1], [[0.6, 0.4], [0.6, 0.4]]) == 2.5
    assert metric([0, 1], [[0.6, 0.4], [0.6, 0.4]], [3, 1]) == 1.25
    assert metric([1], [[0.5, 0.5]]) == 5  # of equal probabilities the first
    assert (metric.low, metric.high, metric.greater_is_better) == (0, 5, False)
    assert (metric.labels_only, metric.n_classes, metric.title) == (True, 2, "cost")


def test_equal_matrices_are_one_metric():
    for text in (NAME, "cost: [[0, 1.0], [5e0, -0.0]]", cost_name(np.array([[0, 1], [5, 0]]))):
        assert get_metric(text) is get_metric(NAME)
    assert get_metric(NAME).name == NAME
    assert cost_name(((0, 0.1), (1e300, 0))) == "cost:[[0,0.1],[1e+300,0]]"


def test_zero_one_costs_are_the_share_of_mistakes(draw):
    labels, proba, weight = draw(4, seed=0)
    matrix = 1 - np.eye(4)
    mistakes = 1 - get_metric("accuracy")(labels, proba, weight)
    assert get_metric(cost_name(matrix))(labels, proba, weight) == pytest.approx(mistakes)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ("[[0,1],[5,0]", "'[[0,1],[5,0]' is not a matrix in JSON; give one row a true class"),
        ("", "cost: '' is not a matrix in JSON"),
        ("[" * 100_000, "is not a matrix in JSON"),
        ("3", "cost: 3 is not a matrix; give"),
        ("[0,1]", "cost: [0, 1] is not a matrix"),
        ('{"a":1}', "is not a matrix"),
        ("[]", "cost: a matrix with 0 rows; expected two classes or more"),
        ("[[0]]", "cost: a matrix with 1 rows"),
        ("[[0,1],[5]]", "cost: row 2 has 1 entries in a matrix of 2 rows"),
        ("[[0,1,2],[5,0,1]]", "cost: row 1 has 3 entries in a matrix of 2 rows"),
        ("[[0,-1],[5,0]]", "cost: -1 in row 1, column 2; expected a finite number of 0 or more"),
        ("[[0,1],[NaN,0]]", "cost: nan in row 2, column 1"),
        ("[[0,1],[1e999,0]]", "cost: inf in row 2, column 1"),
        ("[[0,1],[Infinity,0]]", "cost: inf in row 2, column 1"),
        (f"[[0,1],[1{'0' * 400},0]]", "in row 2, column 1; expected a finite number"),
        ('[[0,"1"],[5,0]]', "cost: '1' in row 1, column 2"),
        ("[[0,true],[5,0]]", "cost: True in row 1, column 2"),
        ("[[0,null],[5,0]]", "cost: None in row 1, column 2"),
    ],
)
def test_what_is_no_matrix_is_named(matrix, message):
    with pytest.raises(ConfigError) as caught:
        get_metric(f"cost:{matrix}")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_a_cost_without_a_matrix_says_how_to_give_one():
    with pytest.raises(ConfigError, match=r"cost:\[\[0,1\],\[5,0\]\] elsewhere"):
        get_metric("cost")


def test_another_number_of_classes_is_refused():
    metric = get_metric(NAME)
    with pytest.raises(ConfigError, match="cost: a matrix of 2 classes for probabilities of 3"):
        metric([0], [[0.2, 0.3, 0.5]])
    metric.require_classes(["cat", "dog"])
    with pytest.raises(ConfigError, match="made for 2 classes, and there are 3: cat, dog, cow; give one row"):
        metric.require_classes(["cat", "dog", "cow"])
    get_metric("accuracy").require_classes(["cat", "dog", "cow"])


def test_the_name_is_json_after_the_colon():
    matrix = np.random.default_rng(0).random((3, 3))
    np.testing.assert_array_equal(json.loads(cost_name(matrix).partition(":")[2]), matrix)
