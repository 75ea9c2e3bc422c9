"""What a server counts, in the text format that Prometheus reads (exposition format 0.0.4).

Three kinds of numbers and no more, so they are written here rather than brought by a library.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Sequence

#: Upper ends of the buckets of seconds.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: Upper ends of the buckets of batch sizes.
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Counter:
    """A number that grows, one for each combination of labels."""

    kind = "counter"

    def __init__(self, name: str, about: str, labels: Sequence[str] = ()) -> None:
        self.name, self.about, self._labels = name, about, tuple(labels)
        self._values: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}
        self._lock = threading.Lock()

    def add(self, n: float = 1, *labels: str) -> None:
        """Adds `n` to the number with these labels."""
        with self._lock:
            self._values[labels] = self._values.get(labels, 0.0) + n

    def lines(self) -> list[str]:
        """One line a combination of labels that has been seen."""
        with self._lock:
            values = sorted(self._values.items())
        return [f"{self.name}{_braces(self._labels, labels)} {value:g}" for labels, value in values]


class Gauge:
    """A number that is read when it is asked for."""

    kind = "gauge"

    def __init__(self, name: str, about: str, read: Callable[[], float]) -> None:
        self.name, self.about, self._read = name, about, read

    def lines(self) -> list[str]:
        """The number as it is now."""
        return [f"{self.name} {self._read():.15g}"]


class Histogram:
    """How many values lie below each of some bounds, how many there are, and their sum."""

    kind = "histogram"

    def __init__(self, name: str, about: str, bounds: Sequence[float]) -> None:
        self.name, self.about, self._bounds = name, about, tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def add(self, value: float) -> None:
        """Counts a value."""
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += 1
            self._sum += value

    def lines(self) -> list[str]:
        """Cumulative buckets, sum and count."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        lines, below = [], 0
        for bound, count in zip((*self._bounds, float("inf")), counts, strict=True):
            below += count
            lines.append(
                f'{self.name}_bucket{{le="{"+Inf" if bound == float("inf") else f"{bound:g}"}"}} {below}'
            )
        return [*lines, f"{self.name}_sum {total:.9g}", f"{self.name}_count {below}"]


class Counters:
    """What `/metrics` shows of a server.

    Args:
        waiting: how many images wait now.
        memory: resident bytes of the process now.
    """

    def __init__(self, waiting: Callable[[], float], memory: Callable[[], float]) -> None:
        self.requests = Counter(
            "ensembler_requests_total", "Requests by path and status.", ("path", "status")
        )
        self.images = Counter("ensembler_images_total", "Images that were answered.")
        self.unreadable = Counter("ensembler_unreadable_images_total", "Images that could not be read.")
        self.request_s = Histogram("ensembler_request_seconds", "Time of a request to /predict.", SECONDS)
        self.model_s = Histogram("ensembler_model_seconds", "Time of a batch in the model.", SECONDS)
        self.batch = Histogram("ensembler_batch_images", "Images of a batch.", SIZES)
        self._waiting = Gauge("ensembler_waiting_images", "Images that wait for the model.", waiting)
        self._memory = Gauge("process_resident_memory_bytes", "Resident memory.", memory)

    def text(self) -> str:
        """The whole page."""
        shown: list[Counter | Histogram | Gauge] = [
            self.requests,
            self.images,
            self.unreadable,
            self.request_s,
            self.model_s,
            self.batch,
            self._waiting,
            self._memory,
        ]
        lines: list[str] = []
        for one in shown:
            lines += [f"# HELP {one.name} {one.about}", f"# TYPE {one.name} {one.kind}", *one.lines()]
        return "\n".join(lines) + "\n"


def _braces(names: Sequence[str], values: Sequence[str]) -> str:
    if not names:
        return ""
    pairs = ",".join(f'{name}="{_escape(value)}"' for name, value in zip(names, values, strict=True))
    return f"{{{pairs}}}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
