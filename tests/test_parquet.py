"""Parquet is read by the thread that asks for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from ensembler.parquet import read_frame, read_parquet

ROOT = Path(__file__).parent.parent

#: Counts the threads of a process that reads a table as a run does, from a stream, and as a manifest is, from a path.
READS = """
import os, sys
from pathlib import Path
import pandas, pyarrow.parquet
from ensembler.parquet import read_frame
before = len(os.listdir("/proc/self/task"))
with open(sys.argv[1], "rb") as stream:
    read_frame(stream)
read_frame(Path(sys.argv[1]))
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "table.parquet"
    pd.DataFrame({f"column {i}": range(50_000) for i in range(20)} | {"name": "ä"}).to_parquet(file)
    return file


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_reading_leaves_no_thread_behind_that_could_outlive_the_interpreter(table: Path) -> None:
    """Arrow's threads abort or hang a process that ends while they let go of a Python file."""
    done = subprocess.run(
        [sys.executable, "-c", READS, str(table)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == ["0"]


def test_a_frame_comes_back_with_its_index_and_types(tmp_path: Path) -> None:
    file = tmp_path / "table.parquet"
    frame = pd.DataFrame(
        {"fold": pd.array([1, None], "Int64"), "label": pd.Categorical(["a", "b"])},
        index=pd.Index(["x", "y"], name="id"),
    )
    frame.to_parquet(file)
    pd.testing.assert_frame_equal(read_frame(file), frame)
    assert read_parquet(file).column_names == ["fold", "label", "id"]


def test_nothing_reads_parquet_by_another_way() -> None:
    readers = ("pd.read_parquet", "read_table(", "ParquetFile(", "ParquetDataset(", "pyarrow.dataset")
    found = {
        file.name
        for file in (ROOT / "ensembler").rglob("*.py")
        if any(reader in file.read_text(encoding="utf-8") for reader in readers)
    }
    assert found == {"parquet.py"}
