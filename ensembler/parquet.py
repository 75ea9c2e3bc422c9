"""Reading Parquet on the caller's own thread."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def read_parquet(source: Path | BinaryIO) -> pa.Table:
    """A whole file, by the thread that asks for it.

    Arrow's pool would let go of the Python file a moment after the read has returned: where the process ends in that
    moment, the pool's thread asks for an interpreter that is gone, and the process aborts (apache/arrow#34314) or
    hangs (apache/arrow#50482). The tables of a run are small: the pool costs more than it gives.

    Args:
        source: a file, or a stream open for reading bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no Parquet (`pyarrow.ArrowInvalid` is one).
    """
    from pyarrow.parquet import ParquetFile

    with ParquetFile(source, pre_buffer=False) as file:
        return file.read(use_threads=False)


def read_frame(source: Path | BinaryIO) -> pd.DataFrame:
    """The same as a frame, with the index and the types that pandas has written down; see `read_parquet`."""
    frame: pd.DataFrame = read_parquet(source).to_pandas(use_threads=False)
    return frame
