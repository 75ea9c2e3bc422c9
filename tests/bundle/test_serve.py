"""A real server on a free port, and everything that clients do to servers."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ensembler.bundle import Bundle
from ensembler.bundle.counters import Counter, Histogram
from ensembler.bundle.pages import card_page
from ensembler.bundle.serve import is_loopback, read_token
from ensembler.bundle.uploads import Limits, Refusal, split
from ensembler.cli import main
from ensembler.errors import ConfigError

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

CARD = """---
license: mit
tags: [a, b]
---

# Colours <script>alert(1)</script>

![x](http://x/y.png)

| a |
|---|
| 1 |
"""


class Server:
    """A running server."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port

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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "README.md").write_text(CARD)
    with serving(folder) as running:
        yield running


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


# ---------------------------------------------------------------------- answers


def test_files_base64_and_one_image_as_it_is_have_the_same_answer(server: Server) -> None:
    files = [("r.png", png()), ("ü.png", png((5, 240, 5)))]
    status, answer = server.predict(*multipart(*files))
    assert status == 200
    assert answer["classes"] == ["red", "green", "blue"]
    assert [p["label"] for p in answer["predictions"]] == ["red", "green"]
    assert [p["name"] for p in answer["predictions"]] == ["r.png", "ü.png"]
    first = answer["predictions"][0]
    assert first["confidence"] == max(first["proba"])
    assert sum(first["proba"]) == pytest.approx(1, abs=1e-5)
    _, other = server.predict(as_json(*(data for _, data in files)), "application/json")
    assert [p["proba"] for p in other["predictions"]] == [p["proba"] for p in answer["predictions"]]
    _, one = server.predict(png(), "image/png")
    assert one["predictions"][0]["proba"] == first["proba"]
    url = json.dumps({"images": ["data:image/png;base64," + base64.b64encode(png()).decode()]}).encode()
    assert server.predict(url, "application/json; charset=utf-8")[1]["predictions"][0]["label"] == "red"


def test_an_unreadable_image_among_others_has_its_reason(server: Server) -> None:
    status, answer = server.predict(*multipart(("a.png", png()), ("b.png", b"no image")))
    assert status == 200
    assert answer["predictions"][0]["label"] == "red"
    assert set(answer["predictions"][1]) == {"name", "error"}
    assert "b.png: is no image" in answer["predictions"][1]["error"]
    status, answer = server.predict(*multipart(("b.png", b"no image")))
    assert status == 422
    assert "b.png" in answer["detail"]


def test_many_clients_at_once_get_their_own_answers(server: Server) -> None:
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: server.predict(png(colours[i % 3]), "image/png"), range(120)))
    assert [a[1]["predictions"][0]["label"] for a in answers] == ["red", "green", "blue"] * 40


def test_health_ready_metrics_and_the_interface(server: Server) -> None:
    assert server.ask("GET", "/health")[0] == 200
    assert server.ask("GET", "/ready")[2] == b'{"status":"ready"}'
    server.predict(png(), "image/png")
    status, headers, text = server.ask("GET", "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = text.decode().splitlines()
    assert any(re.match(r'ensembler_requests_total\{path="/predict",status="200"\} [1-9]', x) for x in lines)
    names = {re.split(r"[{ ]", x)[0] for x in lines if not x.startswith("#")}
    assert {
        "ensembler_batch_images_bucket",
        "ensembler_model_seconds_sum",
        "ensembler_waiting_images",
    } <= names
    schema = json.loads(server.ask("GET", "/openapi.json")[2])
    assert set(schema["paths"]) == {"/predict", "/health", "/ready", "/metrics", "/card"}
    assert "multipart/form-data" in schema["paths"]["/predict"]["post"]["requestBody"]["content"]


@pytest.mark.parametrize("path", ["/", "/docs", "/card"])
def test_pages_load_nothing_from_anywhere(path: str, server: Server) -> None:
    status, headers, body = server.ask("GET", path)
    text = body.decode()
    assert status == 200
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert not re.search(r"<script|<img|<link|src=|@import|url\(", text.replace("&lt;script", ""))


def test_the_card_is_a_page_or_markdown(server: Server) -> None:
    page = server.ask("GET", "/card")[2].decode()
    assert "&lt;script&gt;alert(1)" in page
    assert "<th>license</th><td>mit</td>" in page
    assert "<td>1</td>" in page
    status, headers, text = server.ask("GET", "/card", headers={"Accept": "text/markdown"})
    assert (status, text.decode()) == (200, CARD)
    assert headers["content-type"].startswith("text/markdown")
    assert "javascript:" not in card_page("[x](javascript:alert(1))").replace("[x](javascript:", "")


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("body", "kind", "status", "reason"),
    [
        (b"", "application/json", 400, "no JSON"),
        (b"[" * 100_000, "application/json", 400, "no JSON"),
        (b'{"images": ' + b"9" * 10_000 + b"}", "application/json", 400, "no JSON"),
        (b"[1]", "application/json", 400, "expected"),
        (b'{"images": "abc"}', "application/json", 400, "expected"),
        (b'{"images": [3]}', "application/json", 400, "expected"),
        (b'{"images": []}', "application/json", 400, "no image"),
        (b'{"images": ["!!"]}', "application/json", 400, "images[0] is no base64"),
        (b'{"images": ["\\ud800"]}', "application/json", 400, "no base64"),
        (b"\xff\xfe", "application/json", 400, "no JSON"),
        (b"", "image/png", 400, "no image"),
        (b"x", "image/png", 422, "is no image"),
        (b"x", "", 415, "send multipart"),
        (b"x", "text/plain", 415, "send multipart"),
        (b"x", "multipart/form-data", 400, "without a boundary"),
        (b"x", "multipart/form-data; boundary=edge", 400, "no multipart"),
        (b"--edge\r\n\r\n", "multipart/form-data; boundary=edge", 400, "ends before"),
        (b"", "multipart/form-data; boundary=edge", 400, "ends before"),
        (b"--edge--\r\n", "multipart/form-data; boundary=edge", 400, "no image"),
        (b"x", "multipart/form-data; boundary=" + "e" * 5000, 400, "no multipart"),
    ],
)
def test_malformed_bodies_are_refused_with_their_reason(
    body: bytes, kind: str, status: int, reason: str, server: Server
) -> None:
    got, answer = server.predict(body, kind)
    assert got == status
    assert reason in answer["detail"]


def test_limits_on_bytes_files_and_pixels(server: Server) -> None:
    assert server.predict(b"x" * 200_001, "image/png")[0] == 413
    assert server.predict(*multipart(*[(f"{i}", png()) for i in range(9)]))[0] == 413
    assert server.predict(as_json(*[png()] * 9), "application/json")[0] == 413
    large = png(size=(1001, 1000))
    assert len(large) < 200_000
    status, answer = server.predict(large, "image/png")
    assert status == 422
    assert "has 1001 x 1000 pixels; at most 1000000 are read" in answer["detail"]
    bomb = bytearray(png())
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2  # a header of 3.6 billion pixels
    assert server.predict(bytes(bomb), "image/png")[0] == 422
    assert server.predict(png(), "image/png", **{"Content-Encoding": "gzip"})[0] == 415


def test_a_body_without_a_length_is_cut_when_it_is_too_large(server: Server) -> None:
    head = (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    assert b" 413 " in server.raw(head, *[chunk] * 8, b"0\r\n\r\n").split(b"\r\n")[0]
    # No end, and far more than the server would hold: it is told, or cut off.
    before = server.memory()
    server.raw(head, *[chunk] * 600)
    assert server.memory() - before < 10e6


def test_slow_clients_are_let_go(server: Server) -> None:
    began = time.monotonic()
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as link:
        link.sendall(head + b"x")
        assert b" 408 " in link.recv(4096).split(b"\r\n")[0]
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as link:
        link.sendall(b"POST /pre")  # the head never ends
        assert link.recv(4096) == b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as link:
        assert link.recv(4096) == b""  # nothing is sent at all
    assert time.monotonic() - began < 8


def test_disconnects_in_the_middle_do_no_harm(server: Server) -> None:
    body, kind = multipart(("a.png", png()))
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    whole = head.encode() + body
    for cut in range(1, len(whole) + 1, 7):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as link:
            link.sendall(whole[:cut])
            if cut % 2:  # by a reset rather than an end
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert server.predict(body, kind)[0] == 200
    text = server.ask("GET", "/metrics")[2].decode()
    assert 'status="5' not in text
    assert "ensembler_waiting_images 0\n" in text


def test_other_paths_and_methods(server: Server) -> None:
    assert server.ask("GET", "/predict")[0] == 405
    assert server.ask("GET", "/nowhere/../etc/passwd")[0] == 404
    assert server.ask("DELETE", "/card")[0] == 405


def _mutations(rng: np.random.Generator) -> Iterator[bytes]:
    """Requests that were right before something happened to them."""
    body, kind = multipart(("a.png", png()), ("b.png", png((1, 2, 3))))
    seeds = []
    for content, what in ((body, kind), (as_json(png()), "application/json"), (png(), "image/png")):
        head = (
            f"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {what}\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        seeds.append((head.encode(), content))
    pieces = [b"\r\n", b"--edge", b"--", b"\0", b"\xff\xfe", b'"', b"{", b"[", b"]", b": ", b"%00", b"9" * 30, b"-1",
              b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n",
              b'filename="', b"boundary=", b"e" * 300, b"../../", b"HTTP/9.9", b"IHDR", b"\x89PNG"]  # fmt: skip
    while True:
        head, content = seeds[rng.integers(len(seeds))]
        data = bytearray(head + content if rng.random() < 0.4 else content)
        for _ in range(rng.integers(1, 6)):
            at = int(rng.integers(len(data) + 1))
            match rng.integers(4):
                case 0:
                    data[at : at + int(rng.integers(1, 40))] = b""
                case 1:
                    data[at:at] = pieces[rng.integers(len(pieces))]
                case 2 if at < len(data):
                    data[at] = rng.integers(256)
                case _:
                    data = data[:at] if rng.random() < 0.1 else data
        if data.startswith(b"POST"):
            yield bytes(data)
        else:  # the head is whole and fits
            yield re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(data), head) + bytes(data)


def test_a_thousand_malformed_requests_are_refused_or_answered(server: Server) -> None:
    source = _mutations(np.random.default_rng(0))
    statuses: dict[int, int] = {}

    def send(request: bytes) -> int:
        received = server.raw(request)
        return int(received.split(b" ", 2)[1]) if received.startswith(b"HTTP/1.1 ") else 0

    with ThreadPoolExecutor(64) as pool:  # many wait for the server to lose patience
        for status in pool.map(send, (next(source) for _ in range(1000))):
            statuses[status] = statuses.get(status, 0) + 1
    assert all(status < 500 for status in statuses), statuses
    assert {200, 400, 415, 422} <= set(statuses), statuses
    assert sum(statuses.values()) == 1000
    assert server.predict(png(), "image/png")[0] == 200


LIMITS = Limits(body_bytes=10_000, files=3)
FILE_HEADER = b'Content-Disposition: form-data; name="f"; filename="y"'


@settings(max_examples=400, deadline=None)
@given(
    body=st.one_of(
        st.binary(max_size=200),
        st.recursive(st.none() | st.text() | st.floats() | st.binary().map(lambda b: base64.b64encode(b).decode()),
                     lambda x: st.lists(x) | st.dictionaries(st.just("images") | st.text(), x), max_leaves=8)
        .map(lambda value: json.dumps(value).encode()),
        st.lists(st.sampled_from([b"--e", b"--", b"\r\n", b"x", FILE_HEADER,
                                  b"\r\n\r\n", b":", b"\n", b"\0"]), max_size=12).map(b"".join),
    ),
    kind=st.one_of(
        st.sampled_from(["application/json", "multipart/form-data; boundary=e", "image/png", "multipart/form-data"]),
        st.text(st.characters(max_codepoint=255), max_size=40),
    ),
)  # fmt: skip
def test_whatever_a_body_holds_it_becomes_images_or_a_refusal(body: bytes, kind: str) -> None:
    try:
        uploads = split(bytearray(body), kind, LIMITS)
    except Refusal as refusal:
        assert 400 <= refusal.status < 500  # noqa: PT017
        json.dumps(refusal.reason).encode()
    else:
        assert 1 <= len(uploads) <= LIMITS.files
        assert all(upload.name.encode() for upload in uploads)  # can be sent back


def test_memory_stays_where_it_is(server: Server) -> None:
    body, kind = multipart(("a.png", png()), ("b.png", b"broken"))
    requests = [(body, kind), (as_json(png()), "application/json"), (b"[", "application/json")]

    def ask(i: int) -> None:
        server.predict(*requests[i % 3])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(300)))
        before = server.memory()
        list(pool.map(ask, range(2000)))
    assert server.memory() - before < 4e6


# ---------------------------------------------------------------------- token, overload, end


def test_without_the_token_nothing_is_read(tmp_path: Path) -> None:
    token = "0123456789abcdef"
    (tmp_path / "token").write_text(token + "\n")
    with serving(tmp_path, token=str(tmp_path / "token")) as server:
        for header in ("", "Bearer", "Bearer wrong", f"Basic {token}", f"Bearer {token}x", "Bearer \xff"):
            status, headers, _ = server.ask(
                "POST", "/predict", b"x" * 150_000, {"Content-Type": "image/png", "Authorization": header}
            )
            assert (status, headers["www-authenticate"]) == (401, "Bearer")
        assert server.predict(png(), "image/png", Authorization=f"Bearer {token}")[0] == 200
        assert server.predict(png(), "image/png", Authorization=f"bearer  {token}")[0] == 200
        for path in ("/metrics", "/card", "/docs", "/openapi.json", "/nowhere"):
            assert server.ask("GET", path)[0] == 401
        assert server.ask("GET", "/health")[0] == server.ask("GET", "/ready")[0] == 200


def test_overload_is_429_and_says_when_to_come_again(tmp_path: Path) -> None:
    with serving(tmp_path, seconds=0.3, waiting=8) as server:

        def ask(_: int) -> tuple[int, str | None]:
            status, headers, _body = server.ask("POST", "/predict", *_as_request(png(), 4))
            return status, headers.get("retry-after")

        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(ask, range(12)))
        assert set(answers) == {(200, None), (429, "1")}
        assert server.predict(png(), "image/png")[0] == 200


def _as_request(data: bytes, n: int) -> tuple[bytes, dict[str, str]]:
    body, kind = multipart(*[(f"{i}.png", data) for i in range(n)])
    return body, {"Content-Type": kind}


def test_sigterm_answers_what_is_under_way_and_ends_with_0(tmp_path: Path) -> None:
    with serving(tmp_path, seconds=1.0) as server:
        with ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(server.predict, png(), "image/png")
            time.sleep(0.5)
            server.process.send_signal(signal.SIGTERM)
            assert under_way.result(10)[0] == 200
        assert server.process.wait(10) == 0
        with pytest.raises(OSError, match="refused"):
            server.ask("GET", "/health")


def test_a_bundle_is_served_from_the_command_line(finished_run: Any, mean_bundle: Path) -> None:
    file = next((finished_run.images / "test").rglob("*.png"))
    process = subprocess.Popen(
        [sys.executable, "-m", "ensembler", "serve", str(mean_bundle), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        port = int(re.search(r":(\d+)/", process.stdout.readline())[1])  # type: ignore[index]
        answer = Server(process, port).predict(file.read_bytes(), "image/png")[1]  # type: ignore[arg-type]
        proba = Bundle.load(mean_bundle).predict([file])[0]
        np.testing.assert_allclose(answer["predictions"][0]["proba"], proba, atol=1e-5)
        assert b"How to run it" in Server(process, port).ask("GET", "/card")[2]  # type: ignore[arg-type]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


def test_settings_that_cannot_be_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], colour_bundle: Callable[..., Any]
) -> None:
    colour_bundle()
    token = tmp_path / "token"
    for text in ("", "short", "has a space in it 0123", "ümlaut-0123456789abc"):
        token.write_text(text)
        with pytest.raises(ConfigError, match="a token has at least 16 ASCII characters"):
            read_token(token)
    with pytest.raises(ConfigError, match="no token can be read"):
        read_token(tmp_path / "nowhere")
    for option, wrong, wanted in (
        ("--max-batch", "0", "1 or more"),
        ("--max-body-mb", "0", "1e-06 or more"),
        ("--max-pixels", "-1", "1 or more"),
        ("--max-files", "0", "1 or more"),
        ("--read-timeout-s", "0", "seconds above 0"),
        ("--max-wait-ms", "-1", "milliseconds, 0 or more"),
        ("--max-wait-ms", "nan", "milliseconds, 0 or more"),
    ):
        assert main(["serve", "b", option, wrong]) == 2
        assert capsys.readouterr().err == f"error: serve {option} {wrong}: expected {wanted}\n"
    assert [is_loopback(a) for a in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "example.org")] == [
        True, True, True, False, False, False]  # fmt: skip


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        program = PROGRAM.format(
            conftest=str(Path(__file__).with_name("conftest.py")),
            seconds=0,
            waiting=9,
            folder="b",
            token=None,
        ).replace("port=0", f"port={port}")
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
        )
    assert "cannot be listened on" in done.stderr


def test_numbers_are_written_as_prometheus_reads_them() -> None:
    counter = Counter("c", "", ("a",))
    counter.add(2, 'x"\n\\')
    assert counter.lines() == ['c{a="x\\"\\n\\\\"} 2']
    histogram = Histogram("h", "", (1, 2))
    for value in (0.5, 1, 1.5, 9):
        histogram.add(value)
    assert histogram.lines() == [
        'h_bucket{le="1"} 2', 'h_bucket{le="2"} 3', 'h_bucket{le="+Inf"} 4', "h_sum 12", "h_count 4"]  # fmt: skip
