"""What reaches a server from strangers: requests made from its description, heads made by hand, slow and rude clients.

Each is answered, refused with 4xx or cut off; none is answered with 5xx, and the next client is served as ever.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from .served import Server, as_json, multipart, png, serving

#: Requests that are made from the description.
REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "120"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("served")) as running:
        yield running
        assert running.predict(png(), "image/png")[0] == 200
        text = running.ask("GET", "/metrics")[2].decode()
        assert 'status="5' not in text
        assert "ensembler_waiting_images 0\n" in text


# ---------------------------------------------------------------------- by the description


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_requests_made_from_the_description_have_the_answers_it_names(
    mode: GenerationMode, server: Server
) -> None:
    base = f"http://127.0.0.1:{server.port}"
    schema = schemathesis.openapi.from_dict(json.loads(server.ask("GET", "/openapi.json")[2]))
    (predict,) = (o.ok() for o in schema.get_all_operations() if o.ok().label == "POST /predict")
    documented = {int(status) for status in predict.definition.raw["responses"]}
    statuses: Counter[int] = Counter()
    session = requests.Session()
    session.trust_env = False  # no proxy between us and ourselves

    @settings(
        max_examples=REQUESTS, derandomize=True, database=None, deadline=None, phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=predict.as_strategy(generation_mode=mode))
    def each(case: Any) -> None:
        answer = case.call(base_url=base, session=session)
        statuses[answer.status_code] += 1
        assert answer.status_code in documented, (answer.status_code, answer.text)
        assert answer.status_code < 500
        said = answer.json()
        assert set(said) == (
            {"bundle", "classes", "predictions"} if answer.status_code == 200 else {"detail"}
        )

    each()
    session.close()
    assert sum(statuses.values()) >= REQUESTS / 2
    assert 200 not in statuses or mode is GenerationMode.POSITIVE, statuses


PATHS = (
    "/predict",
    "/health",
    "/ready",
    "/metrics",
    "/card",
    "/openapi.json",
    "/docs",
    "/",
    "/predict/",
    "//",
    "/%2e%2e/x",
)
METHODS = (
    "GET",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "HEAD",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "PROPFIND",
    "get",
    "X" * 100,
)


def test_every_method_on_every_path_is_answered(server: Server) -> None:
    statuses = Counter()
    for method in METHODS:
        for path in PATHS:
            body = b"x" if method not in ("GET", "HEAD") else None
            statuses[server.ask(method, path, body)[0]] += 1
    assert set(statuses) <= {200, 307, 400, 404, 405, 415}, statuses
    assert statuses[405] > 40


@settings(max_examples=REQUESTS, derandomize=True, database=None, deadline=None)
@given(
    path=st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f"), max_size=60),
    name=st.from_regex(r"[A-Za-z-]{1,30}", fullmatch=True),
    value=st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60),
)
def test_any_path_and_header_is_answered(path: str, name: str, value: str, server: Server) -> None:
    request = f"GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{name}: {value}\r\n\r\n".encode(
        "latin-1"
    )
    assert status_of(server.raw(request)) in (0, 200, 400, 404, 405, 426)


def status_of(received: bytes) -> int:
    """Of the first answer; 0 where the connection was closed without one."""
    found = re.match(rb"HTTP/1\.[01] (\d{3}) ", received)
    return int(found[1]) if found else 0


# ---------------------------------------------------------------------- heads made by hand

POST = b"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: image/png\r\n"
GET = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
ONE = b"Content-Length: 1\r\n\r\nx"
BY_HAND = {
    "nothing but line ends": b"\r\n" * 20,
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n",
    "a version from the future": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "a whole address": b"GET http://elsewhere/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "an asterisk": b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "a null byte in the path": b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a null byte, escaped": b"GET /%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "half a character, escaped": b"GET /%ff%fe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "a path outside": b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "a path outside, escaped": b"GET /%2e%2e%2f%2e%2e%2fetc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "a path without end": b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a header without end": GET + b"X: " + b"a" * 70_000 + b"\r\n\r\n",
    "ten thousand headers": GET + b"X: y\r\n" * 10_000 + b"\r\n",
    "a header without a name": GET + b": y\r\n\r\n",
    "a header without a colon": GET + b"nonsense\r\n\r\n",
    "a folded header": GET + b"X: a\r\n b\r\n\r\n",
    "a control character in a header": GET + b"X: a\x01b\r\n\r\n",
    "a bare carriage return": GET + b"X: a\rY: b\r\n\r\n",
    "two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "the same length twice": POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    "a negative length": POST + b"Content-Length: -1\r\n\r\nx",
    "a length in words": POST + b"Content-Length: ten\r\n\r\nx",
    "a length of many digits": POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nx",
    "a length with a sign": POST + b"Content-Length: +1\r\n\r\nx",
    "a length and chunks": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x",
    "an unknown encoding": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a chunk of no size": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nx\r\n0\r\n\r\n",
    "a chunk of endless size": POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\nx",
    "a chunk with a tail": POST + b"Transfer-Encoding: chunked\r\n\r\n1;a=" + b"b" * 5000 + b"\r\nx\r\n0\r\n\r\n",
    "a negative chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n",
    "trailers": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nHost: other\r\n\r\n",
    "a body that is short": POST + b"Content-Length: 100\r\n\r\nx",
    "a body that is long": POST + b"Content-Length: 1\r\n\r\n" + b"x" * 1000,
    "an upgrade": GET + b"Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n",
    "an expectation": POST + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
    "an unknown expectation": POST + b"Expect: the-impossible\r\nContent-Length: 1\r\n\r\nx",
    "a type of many parts": POST.replace(b"image/png", b"multipart/form-data" + b"; a=b" * 2000) + ONE,
    "a boundary of control characters": POST.replace(b"image/png", b'multipart/form-data; boundary="\t"') + ONE,
    "a compressed body": POST + b"Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx",
    "many requests at once": (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 50) + GET + b"\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_a_head_made_by_hand_is_answered_or_refused(name: str, server: Server) -> None:
    received = server.raw(BY_HAND[name])
    assert status_of(received) in (0, 100, 200, 400, 404, 405, 413, 415, 417, 422, 426, 431, 408), received[
        :300
    ]
    assert not re.search(rb"HTTP/1\.[01] 5\d\d", received)
    assert b"root:" not in received


# ---------------------------------------------------------------------- slow and rude clients


def test_a_crowd_of_slow_clients_keeps_nobody_waiting(server: Server) -> None:
    """Forty of them send a byte now and then; meanwhile others are answered, and then all forty are let go."""
    head = POST + b"Content-Length: 100000\r\n\r\n"
    began, links = time.monotonic(), []
    with contextlib.ExitStack() as stack:
        for i in range(40):
            link = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
            link.sendall(head[: len(head) - (i % 2) * 10])
            links.append(link)
        asked = time.monotonic()
        assert server.predict(png(), "image/png")[0] == 200
        assert time.monotonic() - asked < 3
        told = []
        for _ in range(4):
            for link in links:
                with contextlib.suppress(OSError):
                    link.sendall(b"x")
            time.sleep(0.2)
        for link in links:
            with contextlib.suppress(OSError):
                told.append(link.recv(4096))
    assert time.monotonic() - began < 20
    assert all(not answer or b" 408 " in answer or b" 400 " in answer for answer in told), told
    assert sum(b" 408 " in answer for answer in told) >= 15


@pytest.mark.parametrize("bytes_", [200_000, 200_001, 1 << 20, 50 << 20])
def test_a_body_of_any_size_is_read_or_refused(bytes_: int, server: Server) -> None:
    before = server.memory()
    declared = server.raw(POST + b"Content-Length: %d\r\n\r\n" % bytes_, b"x" * bytes_)
    assert status_of(declared) in ((422,) if bytes_ <= 200_000 else (413, 0)), declared[:200]
    chunk = b"%x\r\n" % bytes_ + b"x" * bytes_ + b"\r\n0\r\n\r\n"
    chunked = server.raw(POST + b"Transfer-Encoding: chunked\r\n\r\n", chunk)
    assert status_of(chunked) in ((422,) if bytes_ <= 200_000 else (413, 0)), chunked[:200]
    assert server.memory() - before < 20e6


def test_who_leaves_before_the_answer_does_no_harm(server: Server) -> None:
    """By an end, by a reset and by half an end; at once and after a moment."""
    body, kind = multipart(*[(f"{i}.png", png()) for i in range(8)])
    head = POST.replace(b"image/png", kind.encode()).replace(b"Connection: close\r\n", b"")
    whole = head + b"Content-Length: %d\r\n\r\n" % len(body) + body

    def leave(i: int) -> int:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as link:
            link.sendall(whole if i % 4 else whole[: len(whole) // 2])
            if i % 3 == 0:
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif i % 3 == 1 and i % 4:
                link.shutdown(socket.SHUT_WR)
                return status_of(link.recv(65536))
            time.sleep(0.002 * (i % 5))
        return -1

    with ThreadPoolExecutor(16) as pool:
        statuses = Counter(pool.map(leave, range(240)))
    assert set(statuses) <= {-1, 0, 200, 400, 429}, statuses
    time.sleep(0.5)
    assert server.predict(as_json(png()), "application/json")[0] == 200


def test_more_connections_than_are_taken(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(600):
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=5))
    deadline = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError):
            if server.predict(png(), "image/png")[0] == 200:
                break
        assert time.monotonic() < deadline
        time.sleep(0.2)
