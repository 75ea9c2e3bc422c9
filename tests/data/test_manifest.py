"""A manifest: what its columns mean, and errors that name row, column and value."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from ensembler.data import load_table
from ensembler.data.table import ImageTable
from ensembler.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "img").mkdir()
    for i in range(8):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / f"img/{i}.png")
    return tmp_path


def load(root: Path, text: str, **options: object) -> ImageTable:
    (root / "m.csv").write_text(text, encoding="utf-8")
    return load_table("m.csv", base_dir=root, cache_dir=root / "cache", **options)  # type: ignore[arg-type]


def test_all_columns(root: Path) -> None:
    text = (
        "\ufeffpath,label,group,split,fold\n"
        "img/0.png,cat,p1,train,0\nimg/1.png,dog,p1,oof,0\n\n"
        f"./img/2.png,cat,p2,train,4\n{root}/img/3.png,None,p3,train,4\nimg/4.png,dog,p4,test,\n"
    )
    table = load(root, text)
    assert table.ids.tolist() == [f"img/{i}.png" for i in range(5)]
    assert table.classes == ("None", "cat", "dog")
    assert table.oof.groups.tolist() == ["p1", "p1", "p2", "p3"]  # type: ignore[union-attr]
    assert table.oof.fold.tolist() == [0, 0, 4, 4]  # type: ignore[union-attr]
    assert table.test.ids.tolist() == ["img/4.png"]


def test_labels_stay_text(root: Path) -> None:
    table = load(root, "path,label\nimg/0.png,007\nimg/1.png,7\nimg/2.png,NA\n")
    assert table.classes == ("007", "7", "NA")


def test_other_column_names(root: Path) -> None:
    text = "file,kind,patient,part\nimg/0.png,a,p,1\nimg/1.png,b,q,2\n"
    table = load(root, text, path="file", label="kind", group="patient", fold="part")
    assert table.groups.tolist() == ["p", "q"]  # type: ignore[union-attr]
    assert table.fold.tolist() == [1, 2]  # type: ignore[union-attr]


def test_parquet_says_the_same_as_csv(root: Path) -> None:
    frame = pd.DataFrame(
        {
            "path": [f"img/{i}.png" for i in range(4)],
            "label": ["a", "b", "a", "b"],
            "split": ["train", "train", "train", "test"],
            "fold": [0.0, 1.0, 1.0, None],
        }
    )
    frame.to_parquet(root / "m.parquet")
    table = load_table("m.parquet", base_dir=root, cache_dir=root)
    same = load(root, frame.astype({"fold": "Int64"}).to_csv(index=False))
    pd.testing.assert_frame_equal(table.frame, same.frame)
    frame.assign(label=[None, "b", "a", "b"]).to_parquet(root / "m.parquet")
    with pytest.raises(DataError, match=r"m\.parquet: row 1, column 'label': '' is empty"):
        load_table("m.parquet", base_dir=root, cache_dir=root)


def test_a_share_keeps_groups_whole(root: Path) -> None:
    rows = [f"img/{i}.png,{'ab'[i % 2]},p{i // 2}" for i in range(8)]
    table = load(root, "path,label,group\n" + "\n".join(rows), test=0.25)
    assert len(table.test) == 2
    assert not set(table.test.groups.tolist()) & set(table.oof.groups.tolist())  # type: ignore[union-attr]


def test_predefined_folds_beside_a_share(root: Path) -> None:
    rows = [f"img/{i}.png,{'ab'[i % 2]},{i % 3}" for i in range(8)]
    table = load(root, "path,label,fold\n" + "\n".join(rows), test=0.25)
    assert table.test.fold is None
    assert table.oof.fold is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,labell\nimg/0.png,a\n", r"m\.csv: column 'label' is missing; did you mean 'labell'"),
        ("label\na\n", "column 'path' is missing"),
        (
            "path,label\nimg/0.png,a\nimg/x.png,b\n",
            r"row 2 \(line 3\), column 'path': 'img/x.png' no such file",
        ),
        (
            "path,label\n\nimg/0.png,a\nimg/0.png,b\n",
            r"row 2 \(line 4\).*'img/0.png' is already in row 1 \(line 3\)",
        ),
        ("path,label\nimg/0.png,a\nimg/../img/0.png,b\n", "is already in row 1"),
        ("path,label\nimg/0.png,a\nimg/1.png, \n", r"row 2 \(line 3\), column 'label': ' ' is empty"),
        ("path,label,group\nimg/0.png,a,\n", "row 1 .*column 'group': '' is empty"),
        ("path,label,split\nimg/0.png,a,trian\n", "column 'split': 'trian' is unknown; did you mean 'train'"),
        ("path,label,fold\nimg/0.png,a,one\n", "column 'fold': 'one' is no fold; expected an integer"),
        ("path,label,fold\nimg/0.png,a,-1\n", "column 'fold': '-1' is no fold"),
        ("path,label\nimg/0.png\n", r"cannot be read as csv: row 1 \(line 2\) has 1 cells, the header 2"),
        ('path,label\n"img/0.png,a\n', "cannot be read as csv"),
        ("path,label\n", "has no rows"),
        ("", "column 'path' is missing"),
        ("path,label\nimg/0.png,a\nimg/1.png,a\n", r"classes: \['a'\]; at least two"),
    ],
)
def test_errors_name_row_column_and_value(root: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(root, text)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_manifest(root: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.csv: no such manifest"):
        load_table("gone.csv", base_dir=root, cache_dir=root)
    (root / "m.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"m\.parquet: cannot be read as parquet"):
        load_table("m.parquet", base_dir=root, cache_dir=root)
    (root / "m.csv").write_bytes(b"path,label\n\xff\xfe,a\n")
    with pytest.raises(DataError, match=r"m\.csv: cannot be read as csv"):
        load_table("m.csv", base_dir=root, cache_dir=root)


def test_two_answers_to_where_the_test_rows_are(root: Path) -> None:
    text = "path,label,split\nimg/0.png,a,train\nimg/1.png,b,train\nimg/2.png,b,test\n"
    with pytest.raises(
        DataError, match=r"m\.csv: marks test rows in its split column, and test is 0\.5; drop one"
    ):
        load(root, text, test=0.5)
    (root / "t.csv").write_text("path,label,split\nimg/3.png,a,train\n")
    with pytest.raises(DataError, match=r"img/3\.png: is marked as a training image"):
        load(root, "path,label\nimg/0.png,a\nimg/1.png,b\n", test="t.csv")


def test_an_unknown_group_column_is_named(root: Path) -> None:
    with pytest.raises(DataError, match="column 'patent' is missing; did you mean 'patient'"):
        load(root, "path,label,patient\nimg/0.png,a,p\n", group="patent")
