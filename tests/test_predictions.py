import io

import numpy as np
import pandas as pd
import pytest

from ensembler.errors import PredictionsError
from ensembler.predictions import ROW_SUM_TOLERANCE, Predictions

PROBA = np.array([[[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [[0.7, 0.3], [0.5, 0.5], [0.1, 0.9]]])


def valid(**changes):
    arguments = {"proba": PROBA, "labels": [0, 1, 0], "fold": [0, 1, 1]} | changes
    return Predictions.from_arrays(**arguments)


def changed(row, values):
    proba = PROBA.copy()
    proba[1, row] = values
    return proba


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"proba": PROBA[0, 0]}, "proba: has 1 dimensions"),
        ({"proba": PROBA[:, :, :1]}, r"proba: shape \(2, 3, 1\); expected at least one member, one sample"),
        ({"proba": changed(1, [np.nan, 1])}, r"proba: member 'm1', sample '1': \[NaN, 1.0\] is not finite"),
        ({"proba": changed(2, [-0.5, 1.5])}, "member 'm1', sample '2': .* outside"),
        ({"proba": changed(0, [0.9, 0.9])}, "member 'm1', sample '0': .* does not sum to 1; give probab"),
        ({"proba": np.full((2, 3, 2), "a")}, "proba: <U1 values; expected numbers"),
        ({"labels": [0, 1]}, "labels: 2 entries; proba has 3"),
        ({"labels": [0, 2, 1]}, "labels: 2 for sample '1'; expected 0 to 1"),
        ({"labels": [0, 0.5, 1]}, "labels: float64 values such as .*; expected integers"),
        ({"fold": None}, "fold: missing"),
        ({"fold": [0, -1, 1]}, "fold: -1 for sample '1'; expected 0 or more"),
        ({"fold": [0, 70000, 1]}, "fold: 70000 is outside the range of int16"),
        ({"fold": [0, 0, 0], "split": "test"}, "fold: 0 for sample '0'; expected -1 on the test split"),
        ({"split": "train", "fold": [0, 0, 1]}, "split: 'train'; expected 'oof' or 'test'"),
        ({"members": ["a", "a"]}, "members: 'a' appears twice"),
        ({"members": ["a"]}, "members: 1 entries; proba has 2"),
        ({"classes": ["x"]}, "classes: 1 entries; proba has 2"),
        ({"sample_ids": ["i", "j"]}, "sample_ids: 2 entries; proba has 3"),
        ({"labels": [["a"], ["b"], ["c"]]}, "labels: has 2 dimensions; expected 1"),
        ({"labels": ["a", "b", "c"]}, "labels: <U1 values such as 'a'; expected integers"),
        ({"classes": ["x", "x"]}, "classes: 'x' appears twice"),
        ({"sample_ids": ["i", "j", "i"]}, "sample_ids: 'i' appears twice"),
    ],
)
def test_what_is_wrong_is_named(changes, message):
    with pytest.raises(PredictionsError, match=message):
        valid(**changes)


def test_rounding_of_float32_is_no_mistake():
    """What a softmax of float32 leaves: exact zeros and ones, a hair below nothing, a sum that is off by a hair."""
    for row in ([0.0, 1.0], [-5e-7, 1.0], [0.5, 0.5 + ROW_SUM_TOLERANCE / 2]):
        assert valid(proba=changed(0, row)).proba[1, 0].tolist() == np.float32(row).tolist()
    for row, message in (
        ([-2e-6, 1.0], "outside"),
        ([0.5, 0.5 + 2 * ROW_SUM_TOLERANCE], "does not sum to 1"),
    ):
        with pytest.raises(PredictionsError, match=message):
            valid(proba=changed(0, row))


def test_other_numbers_of_folds():
    p = valid()
    assert p.with_fold(np.array([2, 2, 0], np.int16)).folds == [0, 2]
    assert p.folds == [0, 1]


def test_types_and_names_are_as_promised():
    p = valid()
    assert (p.proba.dtype, p.labels.dtype, p.fold.dtype) == (np.float32, np.int64, np.int16)
    assert (p.members, p.classes, p.folds) == (("m0", "m1"), ("0", "1"), [0, 1])
    assert (p.n_members, p.n_samples, p.n_classes) == (2, 3, 2)
    assert valid(proba=PROBA[0]).n_members == 1


def test_arrays_are_read_only_and_the_callers_are_not():
    proba, labels = PROBA.copy(), np.array([0, 1, 0])
    p = valid(proba=proba, labels=labels)
    with pytest.raises(ValueError, match="read-only"):
        p.proba[0, 0, 0] = 1
    proba[0, 0] = labels[0] = 1
    assert p.proba[0, 0, 0] == np.float32(0.9)
    assert p.labels[0] == 0


def test_selecting_cutting_and_joining():
    p = valid(members=["a", "b"], sample_ids=["x", "y", "z"])
    np.testing.assert_array_equal(p.select(["b", "a"]).proba, p.proba[::-1])
    rows = p.rows(p.fold == 1)
    assert list(rows.sample_ids) == ["y", "z"]
    np.testing.assert_array_equal(rows.proba, p.proba[:, 1:])
    joined = Predictions.concat([p.select(["b"]), p.select(["a"])])
    assert joined.members == ("b", "a")
    with pytest.raises(PredictionsError, match=r"member 'c': not among \['a', 'b'\]"):
        p.select(["c"])
    with pytest.raises(PredictionsError, match="'a' appears twice"):
        Predictions.concat([p, p])
    with pytest.raises(PredictionsError, match="other samples"):
        Predictions.concat([p, valid(members=["c", "d"])])
    with pytest.raises(PredictionsError, match="nothing to concatenate"):
        Predictions.concat([])


def assert_same(one, other):
    for name, array in one.arrays().items():
        np.testing.assert_array_equal(array, other.arrays()[name])
    assert one.split == other.split


def test_npz_keeps_everything(tmp_path):
    oof = valid(members=["a", "b"], classes=["cat", "dog"], sample_ids=["x", "y", "z"])
    test = Predictions.from_arrays(PROBA, [1, 1, 0], members=["a", "b"], classes=["cat", "dog"], split="test")
    oof.save(tmp_path / "p.npz", test)
    loaded, loaded_test = Predictions.load(tmp_path / "p.npz")
    assert_same(loaded, oof)
    assert_same(loaded_test, test)
    oof.save(tmp_path / "q.npz")
    assert Predictions.load(tmp_path / "q.npz")[1] is None


def long_table():
    lines = ["member,sample_id,fold,label,cat,dog,split"]
    for m, member in enumerate("ab"):
        for i in range(3):
            cat, dog = PROBA[m, i]
            lines.append(f"{member},s{i},{i % 2},{['cat', 'dog'][i % 2]},{cat},{dog},oof")
        lines.append(f"{member},t0,,dog,0.5,0.5,test")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_long_tables(tmp_path, suffix):
    path = tmp_path / f"p{suffix}"
    if suffix == ".csv":
        path.write_text(long_table())
    else:
        pd.read_csv(io.StringIO(long_table())).to_parquet(path)
    oof, test = Predictions.load(path)
    np.testing.assert_array_equal(oof.proba, PROBA.astype(np.float32))
    assert (oof.members, oof.classes, list(oof.labels)) == (("a", "b"), ("cat", "dog"), [0, 1, 0])
    assert (test.split, test.n_samples, list(test.labels)) == ("test", 1, [1])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("a,s1,1,dog", "a,s0,1,dog", "member 'a': sample 's0' appears twice"),
        ("b,s1,1,dog", "b,s9,1,dog", "member 'a': lacks 1 of 4 samples, first 's9'"),
        ("b,s1,1,dog", "b,s1,0,dog", "sample 's1': fold is .* for member 'b' but .* for 'a'"),
        ("b,s1,1,dog", "b,s1,1,cat", "sample 's1': label is 'cat' for member 'b' but 'dog' for 'a'"),
        ("s1,1,dog", "s1,1,cow", "label 'cow' has no probability column"),
        ("sample_id", "image", r"columns \['sample_id'\] missing"),
    ],
)
def test_faults_of_a_long_table_are_named_with_the_file(tmp_path, old, new, message):
    path = tmp_path / "p.csv"
    path.write_text(long_table().replace(old, new))
    with pytest.raises(PredictionsError, match=rf"p\.csv: {message}"):
        Predictions.load(path)


def test_a_table_without_classes_or_rows_is_refused():
    with pytest.raises(PredictionsError, match="expected one probability column a class"):
        Predictions.from_frame(pd.DataFrame(columns=["member", "sample_id", "fold", "label", "cat"]))
    with pytest.raises(PredictionsError, match="the table is empty"):
        Predictions.from_frame(pd.DataFrame(columns=["member", "sample_id", "fold", "label", "cat", "dog"]))


def test_files_that_are_none_of_ours(tmp_path):
    with pytest.raises(PredictionsError, match="no such file"):
        Predictions.load(tmp_path / "absent.npz")
    (tmp_path / "p.pkl").write_bytes(b"x")
    with pytest.raises(PredictionsError, match=r"unknown format '\.pkl'; give an \.npz"):
        Predictions.load(tmp_path / "p.pkl")
    (tmp_path / "broken.npz").write_bytes(b"not a zip")
    with pytest.raises(PredictionsError, match="cannot be read as npz"):
        Predictions.load(tmp_path / "broken.npz")
    np.savez(tmp_path / "lacking.npz", proba=PROBA)
    with pytest.raises(PredictionsError, match=r"arrays \['fold', 'labels'\] missing"):
        Predictions.load(tmp_path / "lacking.npz")
    np.savez(tmp_path / "unlabelled.npz", proba=PROBA, labels=[0, 1, 0], fold=[0, 1, 1], test_proba=PROBA)
    with pytest.raises(PredictionsError, match="'test_labels' missing"):
        Predictions.load(tmp_path / "unlabelled.npz")


def test_objects_are_never_unpickled(tmp_path):
    np.savez(tmp_path / "p.npz", proba=PROBA, labels=[0, 1, 0], fold=[0, 1, 1], members=np.array([{}, 1]))
    with pytest.raises(PredictionsError, match="pickle"):
        Predictions.load(tmp_path / "p.npz")


# ---------------------------------------------------------------------- fold results

HOLDOUTS = [np.array([0, 2]), np.array([1])]


def assembled(parts, holdouts=HOLDOUTS):
    return Predictions.assemble(
        parts,
        members=["a", "b"],
        holdouts=holdouts,
        labels=np.array([0, 1, 0]),
        sample_ids=["x", "y", "z"],
        classes=["cat", "dog"],
    )


def fold_results():
    return {(name, f): PROBA[m, rows] for m, name in enumerate("ab") for f, rows in enumerate(HOLDOUTS)}


def test_fold_results_are_put_in_their_rows():
    p = assembled(fold_results())
    np.testing.assert_array_equal(p.proba, PROBA.astype(np.float32))
    assert list(p.fold) == [0, 1, 0]


def test_every_gap_between_fold_results_is_named():
    parts = fold_results()
    del parts["a", 1], parts["b", 0]
    with pytest.raises(PredictionsError, match=r"2 fold results missing: \(a, fold 1\), \(b, fold 0\)"):
        assembled(parts)


def test_fold_results_over_other_rows_are_refused():
    with pytest.raises(PredictionsError, match="holdouts: cover 2 of 3 rows"):
        assembled(fold_results(), [np.array([0]), np.array([1])])
    with pytest.raises(PredictionsError, match=r"member 'b', fold 1: shape \(2, 2\); expected \(1, 2\)"):
        assembled(fold_results() | {("b", 1): PROBA[1, :2]})


# ---------------------------------------------------------------------- features

FEATURES = np.arange(12, dtype=np.float32).reshape(3, 4)


def test_features_go_along_with_their_rows():
    p = valid(features=FEATURES.astype(np.float64))
    assert p.features.dtype == np.float32
    np.testing.assert_array_equal(p.features, FEATURES)
    with pytest.raises(ValueError, match="read-only"):
        p.features[0, 0] = 1
    np.testing.assert_array_equal(p.rows(p.fold == 1).features, FEATURES[1:])
    assert p.select(["m1"]).features is p.features
    assert p.with_proba(PROBA[0], ["team"]).features is p.features
    np.testing.assert_array_equal(valid().with_features(FEATURES).features, FEATURES)
    joined = Predictions.concat([valid(members=["a", "b"]), p])
    assert joined.features is p.features
    assert valid().features is None
    assert valid().rows(np.array([0])).features is None


def test_features_of_others_are_copied_and_not_frozen():
    mine = FEATURES.copy()
    p = valid(features=mine)
    mine[0] = 9
    np.testing.assert_array_equal(p.features, FEATURES)
    view = FEATURES.copy()[:, :2]
    view.flags.writeable = False
    assert valid(features=view).features is not view


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (FEATURES[:2], "features: 2 rows; proba has 3"),
        (FEATURES[0], "features: has 1 dimensions; expected 2"),
        (FEATURES[:, :0], "features: no columns; leave them out"),
        (
            np.where(FEATURES == 5, np.nan, FEATURES),
            "features: sample '1': \\[4.0, NaN, 6.0, 7.0\\] is not finite",
        ),
        (FEATURES.astype(str), "features: <U32 values; expected numbers"),
    ],
)
def test_wrong_features_are_named(features, message):
    for make in (lambda: valid(features=features), lambda: valid().with_features(features)):
        with pytest.raises(PredictionsError, match=message):
            make()


def test_two_kinds_of_features_are_not_joined():
    one, other = valid(members=["a", "b"], features=FEATURES), valid(features=FEATURES + 1)
    with pytest.raises(PredictionsError, match="features: differ"):
        Predictions.concat([one, other])
    same = valid(features=FEATURES.copy())
    assert Predictions.concat([one, same]).features is one.features


def test_features_are_kept_on_disk_where_there_are_any(tmp_path):
    oof = valid(features=FEATURES)
    test = Predictions.from_arrays(PROBA, [1, 1, 0], split="test", features=FEATURES + 1)
    oof.save(tmp_path / "p.npz", test)
    loaded, loaded_test = Predictions.load(tmp_path / "p.npz")
    assert_same(loaded, oof)
    assert_same(loaded_test, test)
    valid().save(tmp_path / "q.npz")
    with np.load(tmp_path / "q.npz") as file:
        assert not [name for name in file.files if "features" in name]
    assert Predictions.load(tmp_path / "q.npz")[0].features is None
