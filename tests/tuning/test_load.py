"""The load of the machine as events, without anybody waiting for it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from ensembler.errors import StoreError
from ensembler.tuning import load
from ensembler.tuning.load import LoadWriter, Machine, gpu_memory


class Log:
    def __init__(self, fail: bool = False) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.asked = 0
        self.fail = fail

    def event(self, kind: str, **values: Any) -> None:
        self.asked += 1
        if self.fail:
            raise StoreError("events.jsonl: cannot be written: No space left on device")
        self.events.append((kind, values))


def until(condition: Any, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def test_samples_are_written_while_it_is_open_and_none_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_PATIENCE_S", 60.0)  # a sample that is just being written may take its time
    log = Log()
    with LoadWriter(log, 0.01, lambda: {"cpu": 50.0}):
        until(lambda: len(log.events) >= 3)
    written = len(log.events)
    assert set(map(str, log.events)) == {str(("load", {"cpu": 50.0}))}
    time.sleep(0.05)
    assert len(log.events) == written


def test_nobody_waits_for_a_sample_that_hangs() -> None:
    hangs, began = threading.Event(), threading.Event()

    def sample() -> dict[str, Any]:
        began.set()
        hangs.wait(120)
        return {}

    with LoadWriter(Log(), 0.01, sample):
        assert began.wait(120)
        before = time.monotonic()
    assert time.monotonic() - before < 60
    hangs.set()


def test_a_full_disk_reaches_nobody_and_ends_nothing() -> None:
    log = Log(fail=True)
    with LoadWriter(log, 0.01, lambda: {}):
        until(lambda: log.asked >= 3)


def test_an_error_of_the_sweep_passes_through() -> None:
    with pytest.raises(ValueError, match="mine"), LoadWriter(Log(), 60):
        raise ValueError("mine")


@pytest.fixture
def titled() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes titled as Ray's workers are."""
    works, waits = "while True: pass", "import time; time.sleep(600)"
    children = [
        subprocess.Popen([title, "-c", program], executable=sys.executable)
        for title, program in (
            ("ray::ResourceTrainable.train", works),
            ("ray::DashboardAgent", waits),
            ("ray::IDLE", waits),
            ("python", waits),
        )
    ]
    yield children
    for child in children:
        child.kill()
        child.wait()


def test_workers_are_told_from_other_processes_by_their_title(
    titled: list[subprocess.Popen[bytes]],
) -> None:
    machine = Machine()
    machine.sample()
    time.sleep(0.5)
    found = machine.sample()
    (worker,) = found["workers"]
    assert worker["pid"] == titled[0].pid
    end = time.monotonic() + 120  # others may want the cores too
    while worker["cpu"] <= 5 and time.monotonic() < end:
        time.sleep(0.5)
        found = machine.sample()
        (worker,) = found["workers"]
    assert 5 < worker["cpu"] < 150, "of one core"
    assert 1e6 < worker["memory_bytes"] < found["memory_bytes"] < found["memory_total_bytes"]
    assert 0 < found["cpu"] <= 100, "of all cores"
    titled[0].kill()
    titled[0].wait()
    assert machine.sample()["workers"] == []


def test_a_sample_takes_little_time() -> None:
    machine = Machine()
    machine.sample()
    began = time.thread_time()
    for _ in range(5):
        machine.sample()
    assert (time.thread_time() - began) / 5 < 0.2, "a tenth of it is 0.4 % of one core, every five seconds"


def test_gpu_memory_is_told_where_torch_has_touched_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: False,
        current_device=lambda: 0,
        get_device_properties=lambda _: SimpleNamespace(total_memory=80),
        memory_reserved=lambda _: 7,
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert gpu_memory() == {}, "asking would make a context on the GPU"
    cuda.is_initialized = lambda: True
    assert gpu_memory() == {"gpu_bytes": 7, "gpu_total_bytes": 80}
    cuda.is_available = lambda: False
    assert gpu_memory() == {}
    monkeypatch.delitem(sys.modules, "torch")
    assert gpu_memory() == {}
