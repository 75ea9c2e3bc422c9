"""Whatever predictions arrive: a leaderboard without gaps, or one line that says what is wrong.

Through `ensembler combine --predictions FILE` and `ensembler leaderboard --format json`, for every kind of file.
"""

import json
import math

import numpy as np
import pandas as pd
import pytest

from ensembler.cli import main
from ensembler.metrics import METRICS, get_metric
from ensembler.predictions import Predictions

N, CLASSES, MEMBERS = 36, ["ant", "bee", "cow"], ["a", "b", "c"]
ENSEMBLES = {"mean", "greedy", "bagging", "boosting", "stacking"}
SUFFIXES = [".npz", ".csv", ".parquet"]


def good():
    """The arrays of a file that is as it should be; member "c" knows most."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(N) % 3)
    proba = rng.dirichlet([1, 1, 1], (3, N))
    proba[:, np.arange(N), labels] += np.array([0.3, 0.6, 0.9])[:, None]
    return {
        "proba": proba / proba.sum(axis=2, keepdims=True),
        "labels": labels,
        "fold": np.arange(N) % 3,
        "members": np.array(MEMBERS),
        "classes": np.array(CLASSES),
        "sample_ids": np.array([f"s{i}" for i in range(N)]),
    }


def long_table(arrays):
    parts = []
    for member, slab in zip(arrays["members"], arrays["proba"], strict=True):
        names = [str(arrays["classes"][k]) for k in arrays["labels"]]
        head = {
            "member": member, "sample_id": arrays["sample_ids"], "fold": arrays["fold"], "label": names,
        }  # fmt: skip
        columns = {str(name): slab[:, k] for k, name in enumerate(arrays["classes"])}
        parts.append(pd.DataFrame(head | columns))
    return pd.concat(parts, ignore_index=True)


def write(arrays, file):
    if file.suffix == ".npz":
        np.savez(file, **arrays)
    else:
        write_table(long_table(arrays), file)
    return file


def write_table(table, file):
    table.to_csv(file, index=False) if file.suffix == ".csv" else table.to_parquet(file, index=False)
    return file


@pytest.fixture
def refused(tmp_path, capsys):
    """The one line that refuses a file; nothing is written."""

    def message(file, metric="log_loss"):
        argv = ["combine", "--predictions", str(file), "-o", str(tmp_path / "run"), "--metric", metric]
        assert main(argv) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        (line,) = captured.err.splitlines()
        assert line.startswith(f"error: {file}: ")
        assert not (tmp_path / "run").exists()
        return line

    return message


@pytest.fixture
def answered(tmp_path, capsys):
    """The rows of the leaderboard by name, after a look at every number."""

    def rows(file, metric="log_loss"):
        argv = ["combine", "--predictions", str(file), "-o", str(tmp_path / "run"), "--metric", metric]
        assert main(argv) == 0
        assert capsys.readouterr().err == ""
        assert main(["leaderboard", str(tmp_path / "run"), "--format", "json"]) == 0
        found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
        assert {row["name"] for row in found if row["kind"] == "ensemble"} == ENSEMBLES
        for row in found:
            check_numbers(row, get_metric(metric))
        assert sum(row["p_value"] is None for row in found) == 1  # the best single model
        return {row["name"]: row for row in found}

    return rows


def check_numbers(row, metric):
    always = [
        "cv",
        "cv_low",
        "cv_high",
        "accuracy",
        "log_loss",
        "ece",
        "delta_best_single",
        "delta_low",
        "delta_high",
    ]
    always += ["optimism"] if row["kind"] == "ensemble" else []
    assert all(isinstance(row[key], float) and math.isfinite(row[key]) for key in always), row
    assert metric.low <= row["cv_low"] <= row["cv"] + 1e-9
    assert row["cv"] - 1e-9 <= row["cv_high"] <= metric.high
    assert row["delta_low"] <= row["delta_best_single"] + 1e-9
    assert row["delta_best_single"] <= row["delta_high"] + 1e-9
    assert row["p_value"] is None or 0 <= row["p_value"] <= 1
    assert row["log_loss"] <= METRICS["log_loss"].high


# ---------------------------------------------------------------------- refused


def changed(name, index, value):
    def change(arrays):
        arrays[name] = arrays[name].copy()
        arrays[name][index] = value

    return change


#: what is wrong -> (how it comes about, what the line says of an .npz, what it says of a table)
WRONG = {
    "NaN": (changed("proba", (1, 4, 0), np.nan), "member 'b', sample 's4': [NaN, ", "member 'b', sample 's4': [NaN, "),
    "infinite": (changed("proba", (2, 0, 1), np.inf), "sample 's0'", "sample 's0'"),
    "negative": (
        changed("proba", (0, 7), [1.5, -0.5, 0]), "member 'a', sample 's7': [1.5, -0.5, 0.0] has a value outside",
        "member 'a', sample 's7': [1.5, -0.5, 0.0] has a value outside",
    ),
    "no sum of one": (
        changed("proba", (1, 9), [0.5, 0.5, 0.5]), "member 'b', sample 's9': [0.5, 0.5, 0.5] does not sum to 1; give",
        "member 'b', sample 's9': [0.5, 0.5, 0.5] does not sum to 1; give",
    ),
    "logits": (
        lambda a: a.update(proba=np.log(a["proba"])), "member 'a', sample 's0'", "give probabilities (softmax of the",
    ),
    "a sample twice": (
        changed("sample_ids", 3, "s2"), "sample_ids: 's2' appears twice", "member 'a': sample 's2' appears twice",
    ),
    "a member twice": (
        changed("members", 1, "a"), "members: 'a' appears twice", "member 'a': sample 's0' appears twice",
    ),
    "one fold": (changed("fold", slice(None), 0), "at least two folds; found folds [0]", "at least two folds"),
    "a negative fold": (changed("fold", 5, -1), "fold: -1 for sample 's5'", "fold: -1 for sample 's5'"),
    "one class": (
        lambda a: a.update(proba=np.ones((3, N, 1)), labels=np.zeros(N, int), classes=np.array(["ant"])),
        "expected at least one member, one sample and two classes",
        "class columns: found ['ant']; expected one probability column a class",
    ),
}  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_one_line(wrong, suffix, tmp_path, refused):
    change, of_arrays, of_table = WRONG[wrong]
    arrays = good()
    change(arrays)
    assert (of_arrays if suffix == ".npz" else of_table) in refused(write(arrays, tmp_path / f"p{suffix}"))


#: what is wrong with a table -> (how it comes about, what the line says)
WRONG_TABLES = {
    "rows of a member are missing": (
        lambda t: t.drop(index=[N + 4, N + 5]),
        "member 'b': lacks 2 of 36 samples, first 's4'; every member must predict every sample",
    ),
    "a label is missing": (
        lambda t: t.assign(label=t["label"].where(t.index != N + 4)), "member 'b', sample 's4': label is missing",
    ),
    "a fold is missing": (
        lambda t: t.assign(fold=t["fold"].astype(float).where(t.index != 3)),
        "member 'a', sample 's3': fold is missing",
    ),
    "members disagree on a label": (
        lambda t: t.assign(label=t["label"].where(t.index != N, "dog")), "sample 's0': label is 'dog' for member 'b'",
    ),
    "a label without a column": (lambda t: t.drop(columns="ant"), "label 'ant' has no probability column"),
    "a split that is none": (lambda t: t.assign(split="tests"), "split 'tests'; expected 'oof' or 'test'"),
    "no rows": (lambda t: t.iloc[:0], "the table is empty"),
    "a word for a number": (
        lambda t: t.assign(ant=t["ant"].astype(str).where(t.index != 0, "high")), "could not convert string",
    ),
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("wrong", WRONG_TABLES)
def test_what_is_wrong_with_a_table_is_one_line(wrong, suffix, tmp_path, refused):
    change, message = WRONG_TABLES[wrong]
    assert message in refused(write_table(change(long_table(good())), tmp_path / f"p{suffix}"))


#: what is wrong with arrays -> (how it comes about, what the line says)
WRONG_ARRAYS = {
    "a member without its slab": (
        lambda a: a.update(proba=a["proba"][:2]), "members: 3 entries; proba has 2",
    ),
    "a label that is no class": (changed("labels", 4, 3), "labels: 3 for sample 's4'; expected 0 to 2"),
    "a label that is no number": (
        lambda a: a.update(labels=np.where(np.arange(N) == 4, np.nan, a["labels"])),
        "labels: float64 values such as nan; expected integers",
    ),
    "names for labels": (lambda a: a.update(labels=np.array(CLASSES * 12)), "expected integers"),
    "a row too few": (lambda a: a.update(labels=a["labels"][1:]), "labels: 35 entries; proba has 36"),
    "no folds": (lambda a: a.pop("fold"), "arrays ['fold'] missing"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG_ARRAYS)
def test_what_is_wrong_with_arrays_is_one_line(wrong, tmp_path, refused):
    change, message = WRONG_ARRAYS[wrong]
    arrays = good()
    change(arrays)
    assert message in refused(write(arrays, tmp_path / "p.npz"))


@pytest.mark.parametrize("metric", ["roc_auc", "roc_auc_weighted", "roc_auc_ovo", "quadratic_kappa"])
def test_a_metric_that_labels_of_one_class_leave_undefined_is_refused(metric, tmp_path, refused):
    arrays = good() | {"labels": np.ones(N, int)}
    arrays["proba"] = np.tile([0.1, 0.8, 0.1], (3, N, 1))
    line = refused(write(arrays, tmp_path / "p.npz"), metric)
    title = get_metric(metric).title
    assert (
        f"labels: {title} of member 'a' is undefined on 36 rows of class 'bee'; give rows of more classes"
        in line
    )


# ---------------------------------------------------------------------- answered


def certain(arrays):
    choice = arrays["proba"].argmax(axis=2)
    arrays["proba"] = np.eye(3)[choice]


def unseen(arrays):
    """Class "cow" is among the labels of fold 0 only: who is fitted on the other folds has not seen it."""
    arrays["labels"] = np.where(arrays["fold"] == 0, arrays["labels"], arrays["labels"] % 2)
    assert (arrays["labels"] == 2).any()


def constant(arrays):
    arrays["proba"] = arrays["proba"].copy()
    arrays["proba"][0] = [0, 0, 1]
    arrays["proba"][1] = 1 / 3


def nothing_but_constants(arrays):
    arrays["proba"] = np.tile(np.array([[0, 1, 0], [1 / 3] * 3, [0.2, 0.2, 0.6]])[:, None], (1, N, 1))


CASES = {
    "nothing is wrong": lambda a: None,
    "probabilities of exactly 0 and 1": certain,
    "a class that only one fold has": unseen,
    "a fold for each class": lambda a: a.update(fold=a["labels"]),
    "one label only": lambda a: a.update(labels=np.ones(N, int)),
    "a class without labels": lambda a: a.update(labels=a["labels"] % 2),
    "constant members": constant,
    "nothing but constants": nothing_but_constants,
    "one member": lambda a: a.update(proba=a["proba"][:1], members=a["members"][:1]),
    "identical members": lambda a: a.update(proba=a["proba"][[1, 1, 1]]),
    "members without a mistake": lambda a: a.update(proba=np.eye(3)[a["labels"]][None].repeat(3, axis=0)),
    "members without a right answer": lambda a: a.update(
        proba=np.eye(3)[(a["labels"] + 1) % 3][None].repeat(3, axis=0)
    ),
    "two rows": lambda a: a.update(
        {k: a[k][:2] for k in ("labels", "fold", "sample_ids")}, proba=a["proba"][:, :2]
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_number_of_an_answer_is_there(case, tmp_path, answered):
    arrays = good()
    CASES[case](arrays)
    rows = answered(write(arrays, tmp_path / "p.npz"))
    assert len(rows) == len(arrays["proba"]) + len(ENSEMBLES)
    for name, slab in zip(arrays["members"], arrays["proba"], strict=True):
        expected = METRICS["log_loss"](arrays["labels"], np.float32(slab))
        assert rows[name]["cv"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("case", ["probabilities of exactly 0 and 1", "a class that only one fold has"])
def test_tables_are_answered_like_arrays(case, suffix, tmp_path, answered):
    arrays = good()
    CASES[case](arrays)
    table = Predictions.load(write(arrays, tmp_path / f"p{suffix}"))[0]
    plain = Predictions.load(write(arrays, tmp_path / "p.npz"))[0]
    for name, array in plain.arrays().items():
        np.testing.assert_array_equal(table.arrays()[name], array)
    answered(tmp_path / f"p{suffix}")


@pytest.mark.parametrize(
    "metric", ["roc_auc", "roc_auc_ovo", "quadratic_kappa", "balanced_accuracy", "ece_mass"]
)
def test_no_metric_leaves_a_gap_where_a_fold_lacks_classes(metric, tmp_path, answered):
    """Each fold has one class, of which an AUC is undefined: its fold scores are null, and nothing else is."""
    arrays = good() | {"fold": good()["labels"]}
    rows = answered(write(arrays, tmp_path / "p.npz"), metric)
    values = {score for row in rows.values() for score in row["fold_scores"]}
    assert (None in values) == (metric.startswith("roc_auc") or metric.endswith("kappa"))


@pytest.mark.parametrize("metric", ["mcc", "average_precision"])
def test_labels_of_one_class_are_scored_where_that_means_something(metric, tmp_path, answered):
    answered(write(good() | {"labels": np.ones(N, int)}, tmp_path / "p.npz"), metric)


def test_one_member_has_no_better_ensemble_than_itself(tmp_path, answered):
    arrays = good()
    CASES["one member"](arrays)
    rows = answered(write(arrays, tmp_path / "p.npz"))
    for name in ("mean", "greedy", "bagging"):
        assert rows[name]["cv"] == pytest.approx(rows["a"]["cv"], abs=1e-6)
        assert rows[name]["tied_with_best"] == rows["a"]["tied_with_best"]
        assert rows[name]["p_value"] == 1


def test_constant_members_are_no_use(tmp_path, answered):
    arrays = good()
    constant(arrays)
    rows = answered(write(arrays, tmp_path / "p.npz"))
    assert rows["greedy"]["members"] == ["c"]
    assert rows["a"]["cv"] > rows["b"]["cv"] > rows["c"]["cv"]
