"""The life of a server, in this process: how it begins, what it says, and how a signal ends it."""

from __future__ import annotations

import http.client
import json
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ensembler.bundle.serve as serve_module
from ensembler.bundle import Bundle
from ensembler.bundle.serve import serve
from ensembler.bundle.uploads import Limits
from ensembler.errors import BundleError, ConfigError

from .served import Client, png

ServeHere = Callable[..., Any]

PNG = {"Content-Type": "image/png"}


# ---------------------------------------------------------------------- begin


def test_it_answers_with_the_bundle_its_card_and_its_limits(serve_here: ServeHere) -> None:
    def ask(port: int) -> list[tuple[int, dict[str, str], bytes]]:
        client = Client(port)
        markdown = {"Accept": "text/markdown"}
        return [
            client.ask("POST", "/predict", png(), PNG),
            client.ask("POST", "/predict", b"x" * 1001, PNG),
            client.ask("GET", "/card", None, markdown),
        ]

    small, large, card = serve_here(ask, limits=Limits(body_bytes=1000))
    assert small[0] == 200
    assert json.loads(small[2])["predictions"][0]["label"] == "red"
    assert "server" not in small[1]  # nobody has to know which
    assert large[0] == 413
    assert card[2] == b"# Card of a-bundle\n"


def test_the_token_is_the_first_line_of_its_file(serve_here: ServeHere, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef\nand a note\n")

    def ask(port: int) -> list[int]:
        client = Client(port)
        shown = {"Authorization": "Bearer 0123456789abcdef"}
        return [client.ask("POST", "/predict", png(), PNG | more)[0] for more in ({}, shown)]

    assert serve_here(ask, token_file=tmp_path / "token") == [401, 200]


@pytest.mark.parametrize("library", ["fastapi", "markdown_it", "python_multipart", "uvicorn"])
def test_without_its_libraries_it_says_what_to_install(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(BundleError, match=f"serve needs {library}: pip install fastapi uvicorn"):
        serve("a-bundle")


@pytest.mark.usefixtures("announced")
@pytest.mark.parametrize(
    ("address", "with_token", "who"),
    [
        ("0.0.0.0", False, "everybody: give --token-file FILE"),
        ("192.0.2.1", True, "whoever shows the token"),
        ("::1", False, None),
    ],
)
def test_an_address_that_others_reach_is_warned_of_before_anything_is_loaded(
    address: str,
    with_token: bool,
    who: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "token").write_text("0123456789abcdef")
    with pytest.raises(BundleError, match="no bundle here"):
        serve(tmp_path, address=address, token_file=tmp_path / "token" if with_token else None)
    warning = (
        f"warning: {address} can be reached from other machines, without encryption, and answers {who}\n"
    )
    assert capsys.readouterr().err == (warning if who else "")


def test_an_address_of_ipv6_is_printed_as_browsers_take_it(capsys: pytest.CaptureFixture[str]) -> None:
    class Listener:
        def getsockname(self) -> tuple[str, int, int, int]:
            return "::1", 8000, 0, 0

    serve_module._announced(object)()._log_started_message([Listener()])
    assert capsys.readouterr().out == "serving on http://[::1]:8000/ (Ctrl-C ends it)\n"


@pytest.mark.usefixtures("served_bundle")
def test_a_port_that_is_taken_is_told(
    announced: queue.SimpleQueue[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigError, match=f"127.0.0.1:{port}: cannot be listened on; see above, or choose"
        ):
            serve("a-bundle", port=port)
    assert "address already in use" in capfd.readouterr().err
    assert announced.empty()


# ---------------------------------------------------------------------- end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_when_what_is_under_way_is_answered(
    number: int, serve_here: ServeHere, served_bundle: Any
) -> None:
    served_bundle.seconds = 0.3
    threads = set(threading.enumerate())

    def ask(port: int) -> tuple[int, http.client.HTTPConnection]:
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        link.request("POST", "/predict", png(), PNG)
        while len(served_bundle.batches) < 2:  # the first was its warming up
            time.sleep(0.01)
        return port, link

    port, link = serve_here(ask, number)
    assert link.getresponse().status == 200
    link.close()
    with pytest.raises(ConnectionRefusedError):
        Client(port).connect()
    assert set(threading.enumerate()) <= threads  # those that decode and the model's have ended


def test_a_signal_while_the_bundle_is_loaded_ends_it_at_once(
    monkeypatch: pytest.MonkeyPatch, announced: queue.SimpleQueue[str]
) -> None:
    monkeypatch.setattr(Bundle, "load", lambda _: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        serve("a-bundle", port=0)
    assert ended.value.code == 0
    assert announced.empty()


@pytest.mark.usefixtures("served_bundle")
def test_a_signal_right_before_it_listens_is_no_error(
    monkeypatch: pytest.MonkeyPatch, announced: queue.SimpleQueue[str]
) -> None:
    """It comes when the bundle is there, and uvicorn does not handle signals yet."""
    monkeypatch.setattr(serve_module._EndAtOnce, "defer", lambda _: signal.raise_signal(signal.SIGTERM))
    serve("a-bundle", port=0)
    assert announced.empty()
