"""What clients do to a server, out of malice or by mistake: each is refused, answered or let go, and nothing grows."""

from __future__ import annotations

import base64
import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensembler.bundle.uploads import Limits, Refusal, split

from .served import Server, as_json, multipart, png, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("served")) as running:
        yield running


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
