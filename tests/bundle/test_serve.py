"""A real server on a free port: its answers, its pages, its refusals, and how it begins and ends."""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensembler.bundle import Bundle
from ensembler.bundle.counters import Counter, Histogram
from ensembler.bundle.pages import card_page
from ensembler.bundle.serve import is_loopback, read_token
from ensembler.cli import main
from ensembler.errors import ConfigError

from .served import Server, as_json, multipart, png, serving

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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "README.md").write_text(CARD)
    with serving(folder) as running:
        yield running


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


def test_other_paths_and_methods(server: Server) -> None:
    assert server.ask("GET", "/predict")[0] == 405
    assert server.ask("GET", "/nowhere/../etc/passwd")[0] == 404
    assert server.ask("DELETE", "/card")[0] == 405


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
    with serving(tmp_path, seconds=1.0, waiting=8) as server:

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
    with serving(tmp_path, seconds=3.0) as server:
        with ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(server.predict, png(), "image/png")
            time.sleep(1.5)
            server.process.send_signal(signal.SIGTERM)
            assert under_way.result(60)[0] == 200
        assert server.process.wait(60) == 0
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


def test_numbers_are_written_as_prometheus_reads_them() -> None:
    counter = Counter("c", "", ("a",))
    counter.add(2, 'x"\n\\')
    assert counter.lines() == ['c{a="x\\"\\n\\\\"} 2']
    histogram = Histogram("h", "", (1, 2))
    for value in (0.5, 1, 1.5, 9):
        histogram.add(value)
    assert histogram.lines() == [
        'h_bucket{le="1"} 2', 'h_bucket{le="2"} 3', 'h_bucket{le="+Inf"} 4', "h_sum 12", "h_count 4"]  # fmt: skip
