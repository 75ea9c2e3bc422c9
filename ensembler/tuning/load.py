"""What a sweep asks of the machine: CPU and memory, of all and of each worker, as events that the app reads."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import psutil

from ..errors import StoreError
from .events import EventLog

#: Seconds between two samples.
EVERY_S = 5.0

#: Seconds that the end of a sweep waits for a sample that is just being written.
_PATIENCE_S = 0.5

#: How Ray titles the processes that train, apart from its own agents and from those that wait for work.
_RAY, _TRAINS = "ray::", "Trainable"


class Machine:
    """Measures this machine and the workers on it; workers of a cluster that run elsewhere are not seen."""

    def __init__(self) -> None:
        self._driver = psutil.Process(os.getpid())
        self._workers: dict[int, psutil.Process] = {}
        psutil.cpu_percent(None)  # counts from here

    def sample(self) -> dict[str, Any]:
        """One sample.

        `cpu` is per cent of all cores since the last sample, `memory_bytes` what is taken of `memory_total_bytes`, and
        `workers` a list of {"pid", "cpu", "memory_bytes"}, whose `cpu` is per cent of one core.
        """
        memory = psutil.virtual_memory()
        return {
            "cpu": psutil.cpu_percent(None),
            "memory_bytes": memory.total - memory.available,
            "memory_total_bytes": memory.total,
            "workers": self._sample_workers(),
        }

    def _sample_workers(self) -> list[dict[str, Any]]:
        found = []
        alive: dict[int, psutil.Process] = {}
        for child in self._driver.children(recursive=True):
            with suppress(psutil.Error):  # it has ended meanwhile
                known = self._workers.get(child.pid)
                seen = known is not None and known == child  # a process number may be given again
                worker = known if known is not None and seen else child
                title = " ".join(worker.cmdline()[:1])
                if title.startswith(_RAY) and _TRAINS in title:
                    cpu = worker.cpu_percent(None)
                    alive[worker.pid] = worker
                    if seen:  # the first time there is nothing to compare with
                        found.append(
                            {"pid": worker.pid, "cpu": cpu, "memory_bytes": worker.memory_info().rss}
                        )
        self._workers = alive
        return found


class LoadWriter:
    """Writes a sample every few seconds from a thread of its own, which nobody waits for.

    A sample that fails, or that cannot be written, is left out: the sweep matters more, and says itself when the disk
    is full.

    Args:
        log: where the events go.
        every_s: seconds between two samples.
        sample: measures.
    """

    def __init__(
        self, log: EventLog, every_s: float = EVERY_S, sample: Callable[[], Mapping[str, Any]] | None = None
    ) -> None:
        self._log = log
        self._every_s = every_s
        self._sample = sample
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def __enter__(self) -> LoadWriter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(_PATIENCE_S)

    def _run(self) -> None:
        sample = self._sample or Machine().sample
        while not self._stop.wait(self._every_s):
            with suppress(psutil.Error, OSError, StoreError):
                self._log.event("load", **sample())


def gpu_memory() -> dict[str, int]:
    """Bytes of GPU memory that this process holds, and those of the whole GPU; empty where torch uses none."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return {}
    device = torch.cuda.current_device()
    total = torch.cuda.get_device_properties(device).total_memory
    return {"gpu_bytes": torch.cuda.memory_reserved(device), "gpu_total_bytes": total}
