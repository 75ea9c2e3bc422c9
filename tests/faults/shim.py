"""The shim that fails file operations below a folder: built with the machine's C compiler, armed from Python.

What is counted and failed is told in `shim.c`. A process has to be started with it (`environment`); from within,
`arm` lets one operation fail, `disarm` none.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")


class Kind(enum.IntFlag):
    """Operations, numbered as in `shim.c`."""

    READ = 1
    OPEN = 2
    WRITE = 4
    FSYNC = 8
    RENAME = 16
    MKDIR = 32
    REMOVE = 64
    LOCK = 128
    LIST = 256


#: What each errno befalls in life: a full disk can still be read and emptied, the others spare nothing.
TAKES_SPACE = Kind.OPEN | Kind.WRITE | Kind.FSYNC | Kind.RENAME | Kind.MKDIR
EVERYTHING = TAKES_SPACE | Kind.READ | Kind.REMOVE | Kind.LIST
KINDS: Mapping[int, Kind] = {
    errno.ENOSPC: TAKES_SPACE,
    errno.EIO: EVERYTHING,
    errno.EPERM: EVERYTHING,
}

#: A file system that is mounted read-only, as far as the shim goes.
READ_ONLY = TAKES_SPACE | Kind.REMOVE


def compiler() -> str | None:
    """The C compiler, where there is one; and Linux, whose libc the shim stands before."""
    return shutil.which("cc") if os.path.isdir("/proc/self/fd") else None  # noqa: PTH112


def build(folder: Path) -> Path:
    """The compiled shim."""
    target = folder / "shim.so"
    command = [compiler(), "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o", target, SOURCE]
    subprocess.run([*map(str, command), "-ldl", "-lpthread"], check=True)
    return target


def environment(
    library: Path,
    folder: Path | None = None,
    kinds: Kind = EVERYTHING,
    at: int = 1,
    code: int = errno.EIO,
    for_good: bool = True,
    lasts_while: Path | None = None,
) -> dict[str, str]:
    """The environment of a process with the shim, armed from its start where a folder is given."""
    wanted = {"LD_PRELOAD": str(library)}
    if folder is not None:
        wanted |= {
            "SHIM_FOLDER": str(folder),
            "SHIM_KINDS": str(int(kinds)),
            "SHIM_AT": str(at),
            "SHIM_ERRNO": str(code),
            "SHIM_FOR_GOOD": str(int(for_good)),
            "SHIM_WHILE": str(lasts_while or ""),
        }
    return {**os.environ, **wanted}


class Shim:
    """The shim within this process, which was started with it."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.shim_path.restype = ctypes.c_char_p
        self._library.shim_seen.restype = self._library.shim_failed.restype = ctypes.c_long
        self._library.shim_arm.argtypes = [
            ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_int, ctypes.c_int,
        ]  # fmt: skip

    def arm(self, folder: Path, kinds: Kind, at: int, code: int, for_good: bool) -> None:
        """Lets the operation with that number fail, from 1, and those after it if `for_good`; 0 only counts."""
        self._library.shim_arm(os.fsencode(folder), int(kinds), at, code, int(for_good))

    def disarm(self) -> None:
        """Lets nothing fail any more; what was counted is forgotten."""
        self._library.shim_arm(b"", 0, 0, 0, 0)

    @property
    def seen(self) -> int:
        """Operations counted since it was armed."""
        return int(self._library.shim_seen())

    @property
    def failed(self) -> int:
        """Operations that were failed since then."""
        return int(self._library.shim_failed())

    @property
    def first(self) -> tuple[str, str]:
        """Kind and path of the first that was failed."""
        kind = Kind(self._library.shim_kind())
        return (kind.name or "").lower(), os.fsdecode(self._library.shim_path())
