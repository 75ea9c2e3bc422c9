"""Files and folders that appear whole or not at all: write beside the target, sync, rename.

And what is said where the disk does not write, read or list them.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .errors import StoreError

#: Scratch names start with this; whoever lists a folder skips them.
SCRATCH = ".tmp-"

#: So does what stood where a folder is being replaced; if its writer dies, `clear_scratch` puts it back.
_OLD = f"{SCRATCH}old-"

#: What somebody can do about what a disk says; about anything else: mend it.
_WAYS_OUT = {
    errno.ENOSPC: "free space",
    errno.EDQUOT: "free space",
    errno.EROFS: "make it writable",
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
}


def scratch_path(target: Path, prefix: str = SCRATCH) -> Path:
    """A name beside the target, on the same file system, that nobody else uses."""
    return target.with_name(f"{prefix}{uuid.uuid4().hex}-{target.name}")


def sync(path: Path) -> None:
    """Forces a file's content, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ---------------------------------------------------------------------- what is said when it fails


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turns an OSError into a StoreError that names the path, the cause and the way out.

    safetensors reports a full disk by an error of its own.
    """
    try:
        yield
    except _failures() as error:
        way_out = _WAYS_OUT.get(getattr(error, "errno", None) or 0, "mend that")
        raise StoreError(
            f"{path}: cannot be written: {_cause(error)}; {way_out} or choose another folder, then run the same "
            "command again"
        ) from error


@contextmanager
def reading(
    path: Path,
    way_out: str,
    damage: tuple[type[Exception], ...] = (ValueError,),
    what: str = "cannot be read",
) -> Iterator[None]:
    """The same for what is read.

    Args:
        path: the file, or the folder of several.
        way_out: of a file that is missing or damaged. One that the disk does not give may be as good as ever: it is
            never said to be deleted.
        damage: what a damaged file raises, beside errors of pyarrow and numpy, which are OSErrors without a number.
        what: is wrong.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, (OSError, *damage)):
            raise
        if unread(error):
            way_out = "see to the disk and the permissions, then run the same command again"
        raise StoreError(f"{path}: {what} ({_cause(error)}); {way_out}") from error


def unread(error: BaseException | None) -> bool:
    """Whether this says that the disk did not give a file, rather than that there is none or that it is damaged."""
    while isinstance(error, StoreError):
        error = error.__cause__
    return isinstance(error, OSError) and error.errno not in (None, errno.ENOENT, errno.ENOTDIR)


def _cause(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _failures() -> tuple[type[Exception], ...]:
    """What a full disk raises; safetensors is there only where somebody has written with it."""
    safetensors = sys.modules.get("safetensors")
    return (OSError,) if safetensors is None else (OSError, safetensors.SafetensorError)


# ---------------------------------------------------------------------- folders that are looked through


def listed(folder: Path) -> list[Path]:
    """What stands right in a folder, by name; nothing where there is no folder.

    Path.glob takes a folder that may not be listed for an empty one, as if what it holds were gone; this does not.

    Raises:
        StoreError: the folder is there and the disk does not list it.
    """
    with reading(folder, "run the command that made it again", what="cannot be listed"):
        try:
            return sorted(folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []


def below(folder: Path) -> Iterator[Path]:
    """All files and folders below a folder, by path.

    Raises:
        OSError: a folder cannot be listed.
    """
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from below(path)


# ---------------------------------------------------------------------- files


def write_file(target: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Replaces a file by what `write` puts into an open binary stream.

    Raises:
        StoreError: naming path and cause; the old content stays.
    """
    scratch = scratch_path(target)
    with naming(target):
        try:
            make_folder(target.parent)
            with scratch.open("wb") as stream:
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())
            scratch.replace(target)
        except BaseException:
            with suppress(OSError):  # what failed first is what is told
                scratch.unlink(missing_ok=True)
            raise
        sync(target.parent)


def write_json(target: Path, value: Any) -> None:
    """Replaces a JSON file; see `write_file`."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_file(target, lambda stream: stream.write(text.encode()))


class _NoFile:
    """A stream of which numpy does not know that a file is behind it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.write = stream.write


def write_array(stream: IO[bytes], values: NDArray[Any]) -> None:
    """Writes an array as `.npy`.

    numpy writes into a real file through C's stdio, and does not look at what closing that says: on a full disk the
    end of an array would be missing, and nobody told. Through Python's own stream nothing is lost in silence.
    """
    np.lib.format.write_array(_NoFile(stream), values, allow_pickle=False)


def remove_file(file: Path) -> None:
    """Removes a file, where there is one.

    Raises:
        StoreError: naming path and cause; the file stays.
    """
    with naming(file):
        file.unlink(missing_ok=True)
        sync(file.parent)


# ---------------------------------------------------------------------- folders


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, each on the disk before anything is put into it."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():  # else another process was faster
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
    sync(folder.parent)


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
            make_folder(target.parent)
            scratch.mkdir()
            fill(scratch)
            for path in below(scratch):
                sync(path)
            sync(scratch)
            return _place(scratch, target, keep_if)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _place(scratch: Path, target: Path, keep_if: Callable[[Path], bool]) -> bool:
    old = scratch_path(target, _OLD)
    if target.exists():
        if keep_if(target):
            return False
        target.rename(old)
    try:
        scratch.rename(target)
    except OSError:
        if target.exists() and keep_if(target):  # another writer of the same content was faster
            return False
        with suppress(OSError):  # else the next driver puts it back
            if old.exists():
                old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
    sync(target.parent)
    return True


def remove_folder(folder: Path) -> None:
    """Removes a folder by one rename; what cannot be deleted after it is scratch.

    Raises:
        StoreError: naming path and cause; the folder stays as it is.
    """
    scratch = scratch_path(folder)
    with naming(folder):
        folder.rename(scratch)
        sync(folder.parent)
    shutil.rmtree(scratch, ignore_errors=True)


def clear_scratch(folder: Path) -> list[Path]:
    """Removes what killed writers left right in a folder; what one of them was about to replace is put back.

    Returns:
        The folders in it that are no scratch.

    Raises:
        StoreError: the folder cannot be listed, or something cannot be put back.
    """
    entries = listed(folder)
    for path in (p for p in entries if p.name.startswith(SCRATCH)):
        name = path.name[len(_OLD) + 33 :] if path.name.startswith(_OLD) else ""
        if name and not path.with_name(name).exists():
            with naming(path.with_name(name)):
                path.rename(path.with_name(name))
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink(missing_ok=True)
    return [path for path in entries if not path.name.startswith(SCRATCH) and path.is_dir()]
