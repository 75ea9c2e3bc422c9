"""Commands that a page starts, each a process of its own: a page that is left or reloaded does not end it."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import streamlit as st


class Job:
    """A running command and what it says.

    Args:
        command: program and arguments; no shell reads them.
        given: bytes on its standard input, kept in a file without a name.
        log: a file that takes all that it says. Such a command has a session of its own: neither the end of the app
            nor Ctrl-C in the app's terminal ends it.
    """

    def __init__(self, command: Sequence[str], given: bytes = b"", log: Path | None = None) -> None:
        self.command = tuple(command)
        self.began = time.monotonic()
        # The files live as long as the job.
        self._said: IO[bytes] = _nameless() if log is None else log.open("a+b")
        self._printed: IO[bytes] = _nameless() if log is None else self._said
        for file in {self._said, self._printed}:
            weakref.finalize(self, file.close)
        with _nameless() as stdin:
            stdin.write(given)
            stdin.seek(0)
            self._process = subprocess.Popen(  # noqa: S603  # our own verbs, without a shell
                self.command,
                stdin=stdin,
                stdout=self._printed,
                stderr=self._said,
                start_new_session=log is not None,
            )

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    @property
    def ok(self) -> bool:
        """Whether it has ended well."""
        return self._process.poll() == 0

    @property
    def seconds(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began

    def said(self, most: int = 4000) -> str:
        """The end of its standard error; of all its output, where there is a log."""
        return _end(self._said, most)

    def printed(self, most: int = 1 << 20) -> str:
        """The end of its standard output; of all its output, where there is a log."""
        return _end(self._printed, most)


def _nameless() -> IO[bytes]:
    """A file that lies in no folder, and is gone when it is closed."""
    return tempfile.TemporaryFile()


def _end(file: IO[bytes], most: int) -> str:
    """Read at a place of our own: the process writes through the same file offset."""
    start = max(0, os.fstat(file.fileno()).st_size - most)
    return os.pread(file.fileno(), most, start).decode(errors="replace").strip()


@st.cache_resource(show_spinner=False)
def _jobs() -> dict[Path, Job]:
    return {}


def start(target: Path, command: Sequence[str], given: bytes = b"", log: Path | None = None) -> Job:
    """Starts the command that makes `target`, unless one is at it already, whoever started that; see `Job`."""
    job = find(target)
    if job is None or not job.running:
        job = _jobs()[target] = Job(command, given, log)
    return job


def find(target: Path) -> Job | None:
    """The last job that made `target`, in any session of this server."""
    return _jobs().get(target)


def below(folder: Path) -> dict[Path, Job]:
    """The last jobs by what they made, of all that lies right below a folder."""
    return {target: job for target, job in list(_jobs().items()) if target.parent == folder}


def forget(target: Path) -> None:
    """Lets go of a job that has ended, and of what it said."""
    job = find(target)
    if job is not None and not job.running:
        _jobs().pop(target, None)
