"""On Ray Serve the same application answers."""

from __future__ import annotations

import asyncio
import json
import sys
import types
import warnings
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import pytest

from ensembler.bundle import Bundle
from ensembler.bundle.serve_ray import build_app, deployment, from_environment
from ensembler.bundle.service import Settings
from ensembler.bundle.uploads import Limits
from ensembler.errors import BundleError, ConfigError

from .served import png

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray Serve's own use of pydantic
        from ray import serve as ray_serve
except ImportError:
    ray_serve = None


async def _ask(app: Any, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
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
        "headers": [(b"content-type", b"image/png"), *((k.encode(), v.encode()) for k, v in headers.items())],
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
    image = png((10, 250, 10))

    def ask(*what: Any) -> tuple[int, Any]:
        return asyncio.run(_ask(build_app("b", Settings()), *what))

    status, answer = ask("POST", "/predict", image)
    assert (status, answer["predictions"][0]["label"]) == (200, "green")
    assert ask("GET", "/ready") == (200, {"status": "ready"})
    assert ask("POST", "/predict", b"x")[0] == 422
    locked = build_app("b", Settings(token="0123456789abcdef"))
    assert asyncio.run(_ask(locked, "POST", "/predict", image))[0] == 401


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENSEMBLER_BUNDLE", raising=False)
    with pytest.raises(ConfigError, match="ENSEMBLER_BUNDLE: is not set"):
        from_environment()


# ---------------------------------------------------------------------- the deployment


class RayServe(types.ModuleType):
    """What `deployment` asks of `ray.serve`: its decorators, which note what they are given."""

    def __init__(self) -> None:
        super().__init__("ray.serve")
        self.options: dict[str, Any] = {}
        self.build: Callable[[], Any] = lambda: None

    def ingress(self, build: Callable[[], Any]) -> Callable[[type], type]:
        self.build = build
        return lambda replica: replica

    def deployment(
        self, *, name: str, num_replicas: int, ray_actor_options: dict[str, float]
    ) -> Callable[[type], Any]:
        self.options = {"name": name, "num_replicas": num_replicas, **ray_actor_options}
        return lambda replica: types.SimpleNamespace(bind=lambda: f"{replica.__name__}, bound")


@pytest.fixture
def on_ray(monkeypatch: pytest.MonkeyPatch) -> RayServe:
    """Ray Serve as if it were installed; no cluster is started."""
    serve, ray = RayServe(), types.ModuleType("ray")
    monkeypatch.setattr(ray, "serve", serve, raising=False)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.serve", serve)
    monkeypatch.setattr("ensembler.bundle.serve_ray.read_card", lambda path: f"# Card of {path}")
    return serve


@pytest.fixture
def loaded(colour_bundle: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The bundles that were loaded so far."""
    bundle, names = colour_bundle(), list[str]()

    def load(path: str) -> Any:
        names.append(path)
        return bundle

    monkeypatch.setattr(Bundle, "load", load)
    return names


def test_replicas_are_asked_for_and_build_the_application_themselves(
    on_ray: RayServe, loaded: list[str], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("0123456789abcdef\n")
    bound = deployment(
        "/shared/birds",
        replicas=3,
        cpus=2,
        gpus=0.25,
        token_file=tmp_path / "token",
        settings=Settings(token="of nobody", limits=Limits(body_bytes=1000)),
    )
    assert bound == "Replica, bound"
    assert on_ray.options == {"name": "ensembler", "num_replicas": 3, "num_cpus": 2, "num_gpus": 0.25}
    assert not loaded  # the driver needs no copy of its own
    (tmp_path / "token").unlink()  # nor is its file where the replicas are

    def status(body: bytes, **headers: str) -> int:
        return asyncio.run(_ask(on_ray.build(), "POST", "/predict", body, **headers))[0]

    shown = {"authorization": "Bearer 0123456789abcdef"}
    assert [status(png()), status(png(), **shown), status(b"x" * 1001, **shown)] == [401, 200, 413]
    assert loaded == ["/shared/birds"] * 3


def test_the_environment_says_how_many_and_who_may_ask(
    on_ray: RayServe, loaded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENSEMBLER_BUNDLE", "hf:ada/birds")
    monkeypatch.delenv("ENSEMBLER_REPLICAS", raising=False)
    monkeypatch.delenv("ENSEMBLER_TOKEN_FILE", raising=False)
    assert from_environment({}) == "Replica, bound"
    assert on_ray.options == {"name": "ensembler", "num_replicas": 1, "num_cpus": 1, "num_gpus": 0}
    assert asyncio.run(_ask(on_ray.build(), "POST", "/predict", png()))[0] == 200
    (tmp_path / "token").write_text("0123456789abcdef\n")
    monkeypatch.setenv("ENSEMBLER_REPLICAS", "4")
    monkeypatch.setenv("ENSEMBLER_TOKEN_FILE", str(tmp_path / "token"))
    from_environment()
    assert on_ray.options["num_replicas"] == 4
    assert asyncio.run(_ask(on_ray.build(), "POST", "/predict", png()))[0] == 401
    assert loaded == ["hf:ada/birds"] * 2


@pytest.mark.parametrize("replicas", ["two", "0", "-1", "1.5", ""])
def test_a_number_of_replicas_that_is_none_is_told(
    replicas: str, on_ray: RayServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENSEMBLER_BUNDLE", "b")
    monkeypatch.setenv("ENSEMBLER_REPLICAS", replicas)
    with pytest.raises(ConfigError, match=f"ENSEMBLER_REPLICAS '{replicas}': expected a number, 1 or more"):
        from_environment()
    assert not on_ray.options


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
