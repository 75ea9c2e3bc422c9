"""Files and folders that appear whole or not at all: write beside the target, sync, rename."""

from __future__ import annotations

import json
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from .errors import StoreError

#: Scratch names start with this; whoever lists a folder skips them.
SCRATCH = ".tmp-"


def scratch_path(target: Path) -> Path:
    """A name beside the target, on the same file system, that nobody else uses."""
    return target.with_name(f"{SCRATCH}{uuid.uuid4().hex}-{target.name}")


def sync(path: Path) -> None:
    """Forces a file's content, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turns an OSError into a StoreError that names the path, the cause and the way out.

    safetensors reports a full disk by an error of its own.
    """
    try:
        yield
    except _failures() as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise StoreError(
            f"{path}: cannot be written: {cause}; free space or choose another folder, then run the same command again"
        ) from error


def _failures() -> tuple[type[Exception], ...]:
    """What a full disk raises; safetensors is there only where somebody has written with it."""
    safetensors = sys.modules.get("safetensors")
    return (OSError,) if safetensors is None else (OSError, safetensors.SafetensorError)


def write_file(target: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Replaces a file by what `write` puts into an open binary stream.

    Raises:
        StoreError: naming path and cause; the old content stays.
    """
    scratch = scratch_path(target)
    with naming(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with scratch.open("wb") as stream:
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())
            scratch.replace(target)
            sync(target.parent)
        finally:
            scratch.unlink(missing_ok=True)


def write_json(target: Path, value: Any) -> None:
    """Replaces a JSON file; see `write_file`."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_file(target, lambda stream: stream.write(text.encode()))


def write_folder(target: Path, fill: Callable[[Path], object], *, keep_if: Callable[[Path], bool]) -> bool:
    """Creates a folder whose files `fill` writes, by one rename.

    Args:
        target: the folder.
        fill: writes files into the scratch folder that it is given.
        keep_if: tells of a folder that stands there already whether it is to stay.

    Returns:
        True when the new folder took its place, False when the standing one was kept.

    Raises:
        StoreError: naming path and cause; the old folder, if any, stays.
    """
    scratch = scratch_path(target)
    with naming(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch.mkdir()
            fill(scratch)
            for file in scratch.rglob("*"):
                sync(file)
            sync(scratch)
            return _place(scratch, target, keep_if)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _place(scratch: Path, target: Path, keep_if: Callable[[Path], bool]) -> bool:
    old = scratch_path(target)
    if target.exists():
        if keep_if(target):
            return False
        target.rename(old)
    try:
        scratch.rename(target)
    except OSError:
        if target.exists() and keep_if(target):  # another writer of the same content was faster
            return False
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
    sync(target.parent)
    return True
