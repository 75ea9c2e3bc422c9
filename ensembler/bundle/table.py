"""The table that `ensembler predict` fills: it grows beside its target, survives a kill, and appears finished.

    .preds.csv.<key>.partial     rows so far, as CSV; <key> names the bundle and the options that made them
    .preds.csv.<key>.unreadable  path and reason of images that could not be read
    preds.csv                    appears by one rename when every image is done
    preds.unreadable.csv         beside it, where there are any

What was being written when a run was killed is one row cut short, which is taken off again. A Parquet file cannot be
continued, so its rows are kept as CSV too and converted, a block at a time, at the end.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, StoreError

#: Columns in front of those of the classes.
HEAD = ("path", "label", "confidence")

#: Bytes of CSV that become a row group of Parquet.
BLOCK = 1 << 18

#: Bytes that a column takes of a row at most, but for its name: a row has to fit into a block, the head too.
CELL = 64

Row = tuple[str, ...]


class Table:
    """Rows that are appended, and a file that appears when all are there.

    >>> with Table(Path("preds.csv"), classes, key) as table:      # doctest: +SKIP
    ...     table.add(paths, proba, unreadable)
    ...     table.finish()

    Args:
        target: `.csv` or `.parquet`.
        classes: in column order.
        key: of the bundle and the options; rows of another key are not continued.

    Raises:
        DataError: an unknown suffix; pyarrow is missing for Parquet; another process fills the same table.
        StoreError: it cannot be written.
    """

    def __init__(self, target: Path, classes: Sequence[str], key: str) -> None:
        if target.suffix.lower() not in (".csv", ".parquet"):
            raise DataError(f"{target}: unknown table {target.suffix!r}; name it .csv or .parquet")
        if target.suffix.lower() == ".parquet":
            _pyarrow()  # now rather than when all images are done
        if target.is_dir():
            raise DataError(f"{target}: is a folder; give the name of a file")
        self.target = target
        self.unreadable_target = target.with_name(f"{target.stem}.unreadable.csv")
        self._classes = tuple(classes)
        self._partial = target.with_name(f".{target.name}.{key}.partial")
        self._failed = target.with_name(f".{target.name}.{key}.unreadable")
        self.rows = self.failures = 0
        with _naming(target), ExitStack() as stack:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._stream = stack.enter_context(self._partial.open("a+b"))
            _lock(self._stream, target)
            self.discarded = _discard_others(target, key)
            self._failed_stream = stack.enter_context(self._failed.open("a+b"))
            self._done = np.sort(np.fromiter(self._read_back(), np.uint64))
            self._open = stack.pop_all()

    def __enter__(self) -> Table:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def is_done(self, path: Path) -> bool:
        """Whether an earlier run has written the row of this image, or that it cannot be read."""
        number = _fingerprint(shown(path))
        at = int(np.searchsorted(self._done, number))
        return at < len(self._done) and self._done[at] == number

    def add(
        self, paths: Sequence[Path], proba: NDArray[np.float32], unreadable: Iterable[tuple[Path, str]]
    ) -> None:
        """Appends the rows of some images: all of them by one write."""
        failed = [(shown(path), reason) for path, reason in unreadable]
        with _naming(self.target):
            _append(self._stream, rows(paths, proba, self._classes))
            _append(self._failed_stream, failed)
        self.rows += len(paths)
        self.failures += len(failed)

    def finish(self) -> None:
        """Puts the finished table in its place."""
        with _naming(self.target):
            self._stream.flush()
            os.fsync(self._stream.fileno())
            if self.target.suffix.lower() == ".parquet":
                self._convert()
                self._partial.unlink()
            else:
                self._partial.replace(self.target)
            if self.failures:
                os.fsync(self._failed_stream.fileno())
                self._failed.replace(self.unreadable_target)
            else:
                self._failed.unlink()
                self.unreadable_target.unlink(missing_ok=True)  # of an earlier run

    def abandon(self) -> None:
        """Leaves nothing behind."""
        self._partial.unlink(missing_ok=True)
        self._failed.unlink(missing_ok=True)

    # ------------------------------------------------------------------ reading back

    def _read_back(self) -> Iterator[int]:
        """Fingerprints of the images that are done; what was cut short is taken off."""
        columns = (*HEAD, *self._classes)
        for row in _whole_rows(self._stream, columns):
            self.rows += 1
            yield _fingerprint(row[0])
        for row in _whole_rows(self._failed_stream, ("path", "reason")):
            self.failures += 1
            yield _fingerprint(row[0])

    def _convert(self) -> None:
        pa, csv_reader, parquet = _pyarrow()
        columns = (*HEAD, *self._classes)
        kinds = [pa.string(), pa.string(), *[pa.float32()] * (1 + len(self._classes))]
        schema = pa.schema(list(zip(columns, kinds, strict=True)))
        # A class may be named as a column is, or hold a line's end: what is read is told apart by its place.
        places = [str(i) for i in range(len(columns))]
        scratch = self._partial.with_suffix(".converted")
        blocks = csv_reader.open_csv(  # by its path: Arrow's own threads never hold a file of Python's
            self._partial,
            csv_reader.ReadOptions(
                use_threads=False,
                block_size=max(BLOCK, sum(CELL + 2 * len(name.encode()) for name in columns)),
                column_names=places,
                skip_rows_after_names=1,
            ),
            csv_reader.ParseOptions(newlines_in_values=True),
            csv_reader.ConvertOptions(column_types=dict(zip(places, kinds, strict=True))),
        )
        with blocks, parquet.ParquetWriter(scratch, schema, use_dictionary=[HEAD[1]]) as writer:
            for block in blocks:
                writer.write_batch(pa.record_batch(block.columns, schema=schema))
        pa.default_memory_pool().release_unused()
        with scratch.open("rb") as stream:
            os.fsync(stream.fileno())
        scratch.replace(self.target)


def rows(paths: Sequence[Path], proba: NDArray[np.float32], classes: Sequence[str]) -> list[Row]:
    """Path, label, confidence, and one probability a class."""
    best = proba.argmax(1)
    return [
        (shown(path), classes[top], f"{line[top]:.7f}", *(f"{value:.7f}" for value in line))
        for path, line, top in zip(paths, proba, best, strict=True)
    ]


def write_rows(stream: IO[str], lines: Iterable[Row]) -> None:
    """Rows as CSV, as this module writes it everywhere: they end with a line feed."""
    csv.writer(_LineFeeds(stream), lineterminator="\r\n").writerows(lines)


def shown(path: Path) -> str:
    """A path as text; bytes that are no UTF-8 as backslash escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def partial_key(*parts: bytes) -> str:
    """A short name of everything that rows depend on."""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


class _LineFeeds:
    """Takes rows that end with CR LF, and ends them with LF.

    Before Python 3.13 a carriage return within a name is quoted only where it belongs to the end of a row.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, row: str) -> int:
        return self._stream.write(f"{row[:-2]}\n")


def _append(stream: IO[bytes], lines: Sequence[Row]) -> None:
    if lines:
        text = io.StringIO()
        write_rows(text, lines)
        stream.write(text.getvalue().encode())
        stream.flush()


def _whole_rows(stream: IO[bytes], columns: Sequence[str]) -> Iterator[Row]:
    """The rows behind the head, which is written where there is none; cuts off behind the last whole one."""
    stream.seek(0)
    source = _Lines(stream)
    end, first = 0, True
    for row in csv.reader(source):
        if len(row) != len(columns) or not source.ended:
            break
        end = source.read
        if first:
            first = False
            continue
        yield tuple(row)
    stream.truncate(end)
    stream.seek(0, os.SEEK_END)
    if first:
        _append(stream, [tuple(columns)])


class _Lines:
    """Lines of a stream; knows how many bytes it has given, and whether the last line came to its end."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.read = 0
        self.ended = True

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._stream.readline()
        if not line:
            raise StopIteration
        self.read += len(line)
        self.ended = line.endswith(b"\n")
        return line.decode("utf-8", "backslashreplace")


def _fingerprint(path: str) -> int:
    """64 bits of a path: eight bytes an image instead of its name.

    Two of ten million collide once in 300,000 runs.
    """
    return int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "big")


def _discard_others(target: Path, key: str) -> bool:
    """Deletes the partial rows of another bundle or other options; whether there were any."""
    others = [
        file
        for ending in ("partial", "unreadable", "converted")
        for file in target.parent.glob(f".{_escaped(target.name)}.*.{ending}")
        if key not in file.name
    ]
    for file in others:
        file.unlink(missing_ok=True)
    return bool(others)


def _escaped(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _lock(stream: IO[bytes], target: Path) -> None:
    if sys.platform == "win32":  # where an open file cannot be replaced by another process in any case
        return
    import fcntl

    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise DataError(
            f"{target}: another `ensembler predict` fills it; wait, or choose another file with -o"
        ) from error


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turns an OSError into a StoreError that names the path."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written: {error.strerror or error}; free space or choose another file, "
            "then run the same command again: it goes on where it stopped"
        ) from error


def _pyarrow() -> tuple[Any, Any, Any]:
    # Arrow asks for this when it is loaded; its other pools keep what a block took until the process ends.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    try:
        import pyarrow
        from pyarrow import csv as csv_reader
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(
            "Parquet needs pyarrow, which is not installed: pip install pyarrow, or write .csv"
        ) from error
    return pyarrow, csv_reader, parquet
