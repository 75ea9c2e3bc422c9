"""Loads of the app's pages without a browser: what a tab says to the server, and what it is told until the page stands.

A browser on the same cores would cost more than the pages do; a load here is a new session, its script run to its end,
and everything that it sends.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from ensembler.app.server import command


@contextlib.contextmanager
def serving(runs: Path, log: Path | None = None, script: Path | None = None) -> Iterator[str]:
    """The app's server over a folder of runs, as `ensembler app` starts it; yields its address.

    With a script it is Streamlit's own server, with the same settings, over that script.
    """
    port = _free_port()
    with (log or Path(os.devnull)).open("wb") as out:
        words = command(runs, "127.0.0.1", port, True)
        if script is not None:
            words = [str(script) if word.endswith("main.py") else word for word in words]
            words[words.index("ensembler.app.run")] = "streamlit"
        server = subprocess.Popen(words, stdout=out, stderr=out)
        try:
            end = time.monotonic() + 120
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1).close()
                    break
                except OSError:
                    if time.monotonic() > end or server.poll() is not None:
                        raise
                    time.sleep(0.05)
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


def _free_port() -> int:
    """Below those that the system hands out: one of them may be given to who asks whether the server answers yet."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def load(address: str, page: str = "", query: str = "", timeout: float = 60) -> list[str]:
    """Loads one page; returns what went wrong on it.

    Args:
        address: of the server.
        page: its name in the URL; the home page by default.
        query: such as `run=pets`.
        timeout: seconds until the page has to stand.
    """
    asked = BackMsg()
    asked.rerun_script.query_string = query
    asked.rerun_script.page_name = page
    faults = []
    with connect(
        f"ws://{address}/_stcore/stream",
        subprotocols=[Subprotocol("streamlit")],
        max_size=None,
        open_timeout=timeout,
    ) as tab:
        tab.send(asked.SerializeToString())
        while True:
            told = ForwardMsg.FromString(tab.recv(timeout, decode=False))
            kind = told.WhichOneof("type")
            element = told.delta.new_element if kind == "delta" else None
            if element is not None and element.WhichOneof("type") == "exception":
                faults.append(f"{element.exception.type}: {element.exception.message}")
            if kind == "script_finished" and told.script_finished in (
                ForwardMsg.FINISHED_SUCCESSFULLY,
                ForwardMsg.FINISHED_WITH_COMPILE_ERROR,
            ):
                if told.script_finished != ForwardMsg.FINISHED_SUCCESSFULLY:
                    faults.append("the script did not compile")
                return faults


@dataclass
class Readers:
    """Loads pages at a steady rate until it is stopped.

    Attributes:
        seconds: of each load that has ended.
        faults: what went wrong.
    """

    address: str
    pages: tuple[str, ...]
    rate: float
    query: str = ""
    workers: int = 8
    seconds: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._due: Queue[str | None] = Queue(maxsize=self.workers)  # a server that is too slow is not buried
        self._threads = [threading.Thread(target=self._pace)]
        self._threads += [threading.Thread(target=self._work) for _ in range(self.workers)]

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _pace(self) -> None:
        number, next_at = 0, time.monotonic()
        while not self._stop.is_set():
            self._due.put(self.pages[number % len(self.pages)])
            number += 1
            next_at = max(next_at + 1 / self.rate, time.monotonic() - 1)
            self._stop.wait(max(0.0, next_at - time.monotonic()))
        for _ in range(self.workers):
            self._due.put(None)

    def _work(self) -> None:
        while (page := self._due.get()) is not None:
            began = time.perf_counter()
            try:
                faults = load(self.address, page, self.query)
            except Exception as error:  # every kind is a fault to be counted, none may end the readers
                faults = [f"{type(error).__name__}: {error}"]
            self.faults += faults
            self.seconds.append(time.perf_counter() - began)
