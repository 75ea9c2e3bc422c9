"""A server in a process of its own, around the bundle of conftest.py, and what tests send to it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

#: Runs `serve` around the bundle of conftest.py, with small limits.
PROGRAM = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("stub", {conftest!r})
stub = importlib.util.module_from_spec(spec)
spec.loader.exec_module(stub)
import ensembler.bundle.serve as s
from ensembler.bundle import Bundle
from ensembler.bundle.uploads import Limits
s.HEAD_S = 1.0
import ensembler.bundle.pages as pages
pages.read_card = lambda path: (path / "README.md").read_text() if (path / "README.md").is_file() else ""
Bundle.load = classmethod(lambda cls, path: stub.ColourBundle(seconds={seconds}))
limits = Limits(body_bytes=200_000, buffered_bytes=2_000_000, pixels=1_000_000, files=8, read_s=1.0, waiting={waiting})
s.serve({folder!r}, port=0, token_file={token}, limits=limits)
"""


class Client:
    """Whoever asks a server of this machine."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def predict(self, body: bytes, kind: str, **headers: str) -> tuple[int, Any]:
        status, _, answer = self.ask("POST", "/predict", body, {"Content-Type": kind, **headers})
        return status, json.loads(answer)

    def raw(self, *parts: bytes, wait: float = 0.0, timeout: float = 10) -> bytes:
        """Sends parts with a pause between them; what comes back until the server closes or answers."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as link:
            received = b""
            with contextlib.suppress(ConnectionError, TimeoutError):
                for part in parts:
                    link.sendall(part)
                    time.sleep(wait)
                while part := link.recv(65536):
                    received += part
            return received

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)


class Server(Client):
    """A running server."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        super().__init__(port)
        self.process = process

    def memory(self) -> float:
        text = self.ask("GET", "/metrics")[2].decode()
        return float(re.search(r"(?m)^process_resident_memory_bytes (\S+)", text)[1])  # type: ignore[index]


@contextlib.contextmanager
def serving(
    folder: Path, seconds: float = 0.0, waiting: int = 512, token: str | None = None
) -> Iterator[Server]:
    program = PROGRAM.format(
        conftest=str(Path(__file__).with_name("conftest.py")),
        seconds=seconds,
        waiting=waiting,
        folder=str(folder),
        token=f"Path({token!r})" if token else None,
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    line = process.stdout.readline()
    found = re.match(r"serving on http://127\.0\.0\.1:(\d+)/", line)
    if not found:
        process.kill()
        pytest.fail(f"{line}{process.communicate()[1]}")
    try:
        yield Server(process, int(found[1]))
    finally:
        if process.poll() is None:
            process.terminate()
        _, err = process.communicate(timeout=30)
    assert "Traceback" not in err, err


def png(colour: tuple[int, int, int] = (250, 10, 10), size: tuple[int, int] = (8, 8)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


def multipart(*files: tuple[str, bytes], boundary: str = "edge") -> tuple[bytes, str]:
    body = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
        f"Content-Type: image/png\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, data in files
    )
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def as_json(*images: bytes) -> bytes:
    return json.dumps({"images": [base64.b64encode(one).decode() for one in images]}).encode()
