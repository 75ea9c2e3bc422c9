"""What a run asks of the file system that it stands on, tried when a driver takes the run.

Without locks two drivers could fill one run, and without renames that replace, a crash could leave half a file. Both
are missing on some network and FUSE file systems, and neither can be made up for: so the run is refused there.
"""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

from .atomic import naming, scratch_path
from .errors import StoreError

if os.name == "posix":  # elsewhere a lock is part of the open file
    import fcntl

#: What a file system says that cannot do a thing, as against one that is full, read-only or broken.
_UNABLE = {
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.EINVAL,
    errno.ENOLCK,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.EXDEV,
}


def require_locks(folder: Path) -> None:
    """Refuses a folder in which a file that is locked can be locked again, or none can.

    Raises:
        StoreError: naming the folder, what its file system lacks, and the way out.
    """
    if os.name != "posix":
        return
    probe = scratch_path(folder / "lock")
    with naming(folder):
        handles = [os.open(probe, os.O_RDWR | os.O_CREAT, 0o644)]
        try:
            try:
                handles.append(os.open(probe, os.O_RDWR))
            except FileNotFoundError:  # cleared away by the driver that has the run, and has tried its locks
                return
            _flock(folder, handles[0])
            try:
                _flock(folder, handles[1])
            except BlockingIOError:
                return
        finally:
            for handle in handles:
                os.close(handle)
            with suppress(OSError):
                probe.unlink(missing_ok=True)
    raise _refused(
        folder, "keeps no locks (two processes were given the same one), so two drivers could fill the run"
    )


def _flock(folder: Path, handle: int) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno in _UNABLE:
            what = f"keeps no locks ({error.strerror}), so two drivers could fill the run"
            raise _refused(folder, what) from error
        raise


def require_renames(folder: Path) -> None:
    """Refuses a folder in which a file cannot take another's place by one rename, or a folder be renamed.

    Raises:
        StoreError: naming the folder, what its file system lacks, and the way out.
    """
    probe = scratch_path(folder / "rename")
    new, old, moved = probe / "new", probe / "old", scratch_path(folder / "renamed")
    with naming(folder):
        try:
            probe.mkdir()
            new.write_bytes(b"new")
            old.write_bytes(b"old")
            try:
                new.replace(old)
                probe.rename(moved)
            except OSError as error:
                if error.errno in _UNABLE:
                    raise _unrenamed(folder, str(error.strerror)) from error
                raise
            if (moved / "old").read_bytes() != b"new" or (moved / "new").exists():
                raise _unrenamed(folder, "the old content is still there")
        finally:
            shutil.rmtree(probe, ignore_errors=True)
            shutil.rmtree(moved, ignore_errors=True)


def _unrenamed(folder: Path, cause: str) -> StoreError:
    return _refused(folder, f"has no atomic rename ({cause}), so a crash could leave half a file")


def _refused(folder: Path, what: str) -> StoreError:
    return StoreError(f"{folder}: its file system {what}; choose a folder on another, such as a local disk")
