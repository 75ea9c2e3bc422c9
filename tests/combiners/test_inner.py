import numpy as np

from ensembler.combiners.inner import inner_splits


def test_parts_are_whole_folds():
    fold = np.repeat(np.arange(5), 4).astype(np.int16)
    labels = np.tile([0, 1], 10)
    seen = []
    for fitted, held_out in inner_splits(labels, fold):
        assert not set(fold[fitted]) & set(fold[held_out])
        assert len(fitted) + len(held_out) == 20
        seen.extend(held_out)
    assert sorted(seen) == list(range(20))


def test_one_fold_is_split_class_by_class():
    labels = np.repeat([0, 1], [30, 6])
    for _, held_out in inner_splits(labels, np.zeros(36, np.int16)):
        np.testing.assert_array_equal(np.bincount(labels[held_out]), [10, 2])


def test_a_single_row_has_no_split():
    assert list(inner_splits(np.array([0]), np.array([0], np.int16))) == []
