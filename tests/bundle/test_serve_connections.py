"""Whom a server lets go, and whom it does not: connections in number, slow heads, slow bodies, slow readers."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

import ensembler.bundle.serve as serve_module
from ensembler.bundle.uploads import Limits

from .served import Client, png

ServeHere = Callable[..., Any]

POST = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"


def rest_of(link: socket.socket) -> bytes:
    """What the server still sends until it closes the connection, by an end or by a reset."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while part := link.recv(1 << 20):
            received += part
    return received


def drip(link: socket.socket, data: bytes) -> float:
    """Sends a byte now and then until the server hangs up; the seconds that took."""
    began = time.monotonic()
    with contextlib.suppress(OSError):
        for i in range(len(data)):
            link.sendall(data[i : i + 1])
            time.sleep(0.03)
    return time.monotonic() - began


def test_more_connections_than_are_taken_are_closed_and_the_others_served(
    serve_here: ServeHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_module, "MAX_CONNECTIONS", 1)

    def status(link: http.client.HTTPConnection) -> int:
        link.request("GET", "/health")
        answer = link.getresponse()
        answer.read()
        return answer.status

    def ask(port: int) -> list[Any]:
        first = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        before = status(first)
        with Client(port).connect() as second:
            refused = rest_of(second)
        after = status(first)
        first.close()
        deadline, later = time.monotonic() + 10, 0
        while (
            not later and time.monotonic() < deadline
        ):  # until the server has noticed that the first has gone
            with contextlib.suppress(OSError, http.client.HTTPException):
                later = Client(port).ask("GET", "/health")[0]
        return [before, refused, after, later]

    assert serve_here(ask) == [200, b"", 200, 200]


def test_whoever_sends_no_whole_head_in_time_is_let_go(
    serve_here: ServeHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_module, "HEAD_S", 1.0)

    def ask(port: int) -> tuple[bytes, float, int]:
        Client(port).connect().close()  # gone before its time is up
        with Client(port).connect() as silent:
            nothing = rest_of(silent)
        with Client(port).connect() as slow:
            seconds = drip(slow, b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X-Pad: y\r\n" * 100)
        return nothing, seconds, Client(port).ask("GET", "/health")[0]

    nothing, seconds, status = serve_here(ask)
    assert nothing == b""
    assert 0.2 < seconds < 15  # all of it would take 30
    assert status == 200


def test_what_is_left_of_a_refused_body_is_not_waited_for(
    serve_here: ServeHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_module, "HEAD_S", 1.0)

    def ask(port: int) -> tuple[bytes, float]:
        with Client(port).connect() as link:
            link.sendall(POST % 1000)
            return link.recv(100), drip(link, b"x" * 1000)

    status, seconds = serve_here(ask, limits=Limits(body_bytes=900))
    assert status.startswith(b"HTTP/1.1 413 ")
    assert 0.2 < seconds < 15


def test_a_head_in_time_may_wait_longer_for_its_answer(
    serve_here: ServeHere, served_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_module, "HEAD_S", 1.0)
    served_bundle.seconds = 1.3
    assert serve_here(lambda port: Client(port).predict(png(), "image/png")[0]) == 200


def test_a_connection_serves_one_request_after_another(serve_here: ServeHere) -> None:
    """Their heads and bodies come in pieces."""
    body = png()
    head = POST % len(body)

    def ask(port: int) -> list[int]:
        statuses = []
        with Client(port).connect() as link:
            for _ in range(3):
                for piece in (head[:30], head[30:60], head[60:], body[:20], body[20:]):
                    link.sendall(piece)
                    time.sleep(0.01)
                with http.client.HTTPResponse(link) as answer:
                    answer.begin()
                    answer.read()
                    statuses.append(answer.status)
        return statuses

    assert serve_here(ask) == [200, 200, 200]


def test_an_answer_that_is_taken_slowly_is_sent_whole(
    serve_here: ServeHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the client sends meanwhile ends the connection, but not before the answer has been taken."""
    monkeypatch.setattr(serve_module, "HEAD_S", 1.0)
    card = "x" * 16_000_000  # more than the system holds between two processes
    monkeypatch.setattr("ensembler.bundle.pages.read_card", lambda _: card)

    def ask(port: int) -> bytes:
        with Client(port).connect() as link:
            link.sendall(b"GET /card HTTP/1.1\r\nHost: x\r\nAccept: text/markdown\r\n\r\n")
            received = link.recv(1000)
            link.sendall(b"nonsense\r\n\r\n")
            time.sleep(1.5)
            return received + rest_of(link)

    first, _, second = serve_here(ask).partition(b"HTTP/1.1 400 ")
    assert first.startswith(b"HTTP/1.1 200 ")
    assert first.endswith(b"\r\n\r\n" + card.encode())
    assert b"Invalid HTTP request received." in second


def test_whoever_does_not_take_an_answer_is_let_go(
    serve_here: ServeHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it a client that reads nothing would keep its connection, and what it was to read, for ever."""
    monkeypatch.setattr(serve_module, "TAKE_S", 0.5)
    monkeypatch.setattr("ensembler.bundle.pages.read_card", lambda _: "x" * 16_000_000)

    def ask(port: int) -> tuple[int, int]:
        with Client(port).connect() as link:
            link.sendall(b"GET /card HTTP/1.1\r\nHost: x\r\nAccept: text/markdown\r\n\r\n")
            link.recv(1000)
            time.sleep(3)
            return len(rest_of(link)), Client(port).ask("GET", "/health")[0]

    taken, status = serve_here(ask)
    assert taken < 16_000_000 - 1000
    assert status == 200
