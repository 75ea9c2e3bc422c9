"""The table checks itself, cuts itself, and survives a Parquet file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ensembler.data.table import ImageTable
from ensembler.errors import DataError


def frame(**columns: Any) -> pd.DataFrame:
    base = {
        "id": ["a", "b", "c", "d", "e"],
        "path": [f"/data/{name}.png" for name in "abcde"],
        "label": ["dog", "cat", "dog", "cat", "dog"],
        "group": [None] * 5,
        "split": ["oof", "oof", "oof", "oof", "test"],
        "fold": [-1] * 5,
    }
    return pd.DataFrame(base | columns)


def test_what_a_table_says() -> None:
    table = ImageTable(frame(group=["g1", "g1", "g2", "g2", None], fold=[0, 0, 1, 1, -1]))
    assert len(table) == 5
    assert table.classes == ("cat", "dog")
    assert table.labels.tolist() == [1, 0, 1, 0, 1]
    assert table.labels.dtype == np.int64
    assert table.ids.tolist() == list("abcde")
    assert table.paths[0] == Path("/data/a.png")
    assert table.oof.groups is not None
    assert table.oof.groups.tolist() == ["g1", "g1", "g2", "g2"]
    assert table.oof.fold is not None
    assert table.oof.fold.tolist() == [0, 0, 1, 1]
    assert table.fingerprint == ""
    assert ImageTable(frame()).groups is None
    assert ImageTable(frame()).fold is None


def test_parts_keep_the_classes() -> None:
    table = ImageTable(frame())
    assert table.test.classes == table.oof.classes == ("cat", "dog")
    assert table.test.labels.tolist() == [1]
    fewer = table.with_fingerprint("f").drop(["b", "d"])
    assert fewer.ids.tolist() == ["a", "c", "e"]
    assert fewer.classes == ("cat", "dog")
    assert fewer.fingerprint == ""


def test_a_table_survives_parquet(tmp_path: Path) -> None:
    for columns in ({}, {"group": ["g1", "g1", "g2", "g2", None], "fold": [0, 0, 1, 1, -1]}):
        table = ImageTable(frame(**columns))
        table.frame.to_parquet(tmp_path / "table.parquet")
        again = ImageTable(pd.read_parquet(tmp_path / "table.parquet"))
        pd.testing.assert_frame_equal(again.frame, table.frame)


def test_the_frame_that_was_given_is_left_alone() -> None:
    given = frame(fold=[0, 1, 0, 1, -1])
    before = given.copy(deep=True)
    table = ImageTable(given)
    table.frame.loc[0, "label"] = "cat"
    pd.testing.assert_frame_equal(given, before)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["a", "b", "a", "d", "e"]}, "/data/c.png: id 'a' appears twice"),
        ({"id": ["a", "", "c", "d", "e"]}, "/data/b.png: id '' is empty"),
        ({"path": ["a.png", *["/b"] * 4]}, "a.png: path 'a.png' is not absolute"),
        ({"label": ["dog", "", "dog", "cat", "dog"]}, "/data/b.png: label '' is empty"),
        ({"label": ["dog"] * 5}, r"classes: \['dog'\]; at least two"),
        ({"label": ["dog", "cat", "dog", "cat", "dgo"]}, "/data/e.png: label 'dgo' .* did you mean 'dog'"),
        ({"split": ["oof", "oof", "oof", "oof", "valid"]}, "/data/e.png: split 'valid' is unknown"),
        ({"fold": [0, 0, 1, -1, -1]}, "/data/d.png: fold -1 is missing; give every training image a fold"),
        ({"fold": [0, 0, 1, -3, -1]}, "/data/d.png: fold -3 is negative"),
        ({"fold": [0, 0, 1, 1, 1]}, "/data/e.png: fold 1 is set on a test row"),
        ({"group": ["g", None, "g", "g", "g"]}, "/data/b.png: group None is missing"),
    ],
)
def test_errors_name_file_column_and_value(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ImageTable(frame(**columns))


def test_a_missing_column_is_named() -> None:
    with pytest.raises(DataError, match=r"columns \['split'\] missing"):
        ImageTable(frame().drop(columns="split"))
