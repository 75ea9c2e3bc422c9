"""Commands that a page starts, each a process of its own: a page that is left or reloaded does not end it."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
import weakref
from collections.abc import Sequence
from pathlib import Path

import streamlit as st


class Job:
    """A running command and what it says.

    Args:
        command: program and arguments; no shell reads them.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.command = tuple(command)
        self.began = time.monotonic()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the job
        weakref.finalize(self, self._said.close)
        self._process = subprocess.Popen(  # noqa: S603  # our own verbs, without a shell
            self.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._said
        )

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
        """The end of its standard error."""
        handle = (
            self._said.fileno()
        )  # read at a place of our own: the process writes through the same file offset
        start = max(0, os.fstat(handle).st_size - most)
        return os.pread(handle, most, start).decode(errors="replace").strip()


@st.cache_resource(show_spinner=False)
def _jobs() -> dict[Path, Job]:
    return {}


def start(target: Path, command: Sequence[str]) -> Job:
    """Starts the command that makes `target`, unless one is at it already, whoever started that."""
    job = find(target)
    if job is None or not job.running:
        job = _jobs()[target] = Job(command)
    return job


def find(target: Path) -> Job | None:
    """The last job that made `target`, in any session of this server."""
    return _jobs().get(target)
