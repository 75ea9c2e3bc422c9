"""The process that trains on a CPU: its threads, and its memory."""

from __future__ import annotations

import ctypes
import functools
import sys

import torch

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4

#: Free bytes at the end of the heap that are kept: as many as the parameter, an int, can say.
_KEPT = 2**31 - 1


def use_threads(threads: int) -> None:
    """Makes this process one that trains.

    Args:
        threads: that PyTorch may use on the CPU, 1 or more.
    """
    torch.set_num_threads(threads)
    keep_freed_memory()


@functools.cache
def keep_freed_memory() -> bool:
    """Has the C library keep what is freed for the next batch, in this process from now on.

    glibc gives large blocks back to the system as soon as they are freed, and the system hands them out again page by
    page, each cleared: of the activations of every batch, thousands of faults a step. The price is that a process keeps
    the memory that it has needed once.

    Returns:
        Whether the C library can be told so: glibc can.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEPT))
