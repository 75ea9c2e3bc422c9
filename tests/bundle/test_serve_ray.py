"""On Ray Serve the same application answers."""

from __future__ import annotations

import asyncio
import io
import json
import warnings
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ensembler.bundle.serve_ray import build_app, deployment, from_environment
from ensembler.bundle.service import Settings
from ensembler.errors import BundleError, ConfigError

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray Serve's own use of pydantic
        from ray import serve as ray_serve
except ImportError:
    ray_serve = None


async def _ask(
    app: Any, method: str, path: str, body: bytes = b"", kind: str = "image/png"
) -> tuple[int, Any]:
    """One request, as Ray's replica hands it over; the application is started and ended around it."""
    sent: list[MutableMapping[str, Any]] = []
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "http_version": "1.1",
        "headers": [(b"content-type", kind.encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async with app.router.lifespan_context(app):
        await app(scope, receive, send)
    return sent[0]["status"], json.loads(b"".join(m.get("body", b"") for m in sent[1:]))


def test_the_application_is_that_of_serve(colour_bundle: Callable[..., Any], monkeypatch: Any) -> None:
    colour_bundle()
    monkeypatch.setattr("ensembler.bundle.serve_ray.read_card", lambda path: "# card")
    stream = io.BytesIO()
    Image.new("RGB", (9, 9), (10, 250, 10)).save(stream, "PNG")

    def ask(*what: Any) -> tuple[int, Any]:
        return asyncio.run(_ask(build_app("b", Settings()), *what))

    status, answer = ask("POST", "/predict", stream.getvalue())
    assert (status, answer["predictions"][0]["label"]) == (200, "green")
    assert ask("GET", "/ready") == (200, {"status": "ready"})
    assert ask("POST", "/predict", b"x")[0] == 422
    locked = build_app("b", Settings(token="0123456789abcdef"))
    assert asyncio.run(_ask(locked, "POST", "/predict", stream.getvalue()))[0] == 401


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENSEMBLER_BUNDLE", raising=False)
    with pytest.raises(ConfigError, match="ENSEMBLER_BUNDLE: is not set"):
        from_environment()


@pytest.mark.skipif(ray_serve is not None, reason="ray[serve] is installed")
def test_without_ray_serve_it_says_what_to_install() -> None:
    with pytest.raises(BundleError, match=r"pip install 'ray\[serve\]'"):
        deployment("b")


@pytest.mark.skipif(ray_serve is None, reason="needs ray[serve]")
@pytest.mark.filterwarnings("ignore")  # what Ray Serve's own libraries warn of
def test_a_bundle_on_ray_serve(finished_run: Any, mean_bundle: Path) -> None:
    import http.client
    import socket

    import ray

    image = next((finished_run.images / "test").rglob("*.png")).read_bytes()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray.init("local", num_cpus=2, include_dashboard=False, configure_logging=False)
    try:
        ray_serve.start(http_options={"host": "127.0.0.1", "port": port})
        ray_serve.run(deployment(mean_bundle, cpus=0.5))
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        link.request("POST", "/predict", image, {"Content-Type": "image/png"})
        answer = link.getresponse()
        assert answer.status == 200
        assert json.loads(answer.read())["classes"] == ["ant", "bee", "cow"]
    finally:
        ray_serve.shutdown()
        ray.shutdown()
