"""A process that trains has its threads, and keeps its memory."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from ensembler.training.processor import keep_freed_memory, use_threads

#: Counts the page faults of taking and freeing 64 MB ten times, once the heap has its shape; pages are small, whatever
#: large ones the system has to give away at the moment.
FAULTS = """
import ctypes, resource, sys, torch
PR_SET_THP_DISABLE = 41
ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
from ensembler.training.processor import use_threads
if sys.argv[1] == "kept":
    use_threads(1)
def take():
    torch.ones(1 << 24)
for _ in range(10):
    take()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    take()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_threads_are_those_asked_for() -> None:
    before = torch.get_num_threads()
    use_threads(3)
    assert torch.get_num_threads() == 3
    use_threads(before)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_taken_again_without_faults() -> None:
    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert keep_freed_memory()
    kept, given_back = faults("kept"), faults("given back")
    assert 10 * kept < given_back


def test_a_c_library_without_the_means_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    keep_freed_memory.cache_clear()
    assert not keep_freed_memory()
    keep_freed_memory.cache_clear()
