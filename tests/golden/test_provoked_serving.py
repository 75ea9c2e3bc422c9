"""What is said where a bundle is served or watched, and cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ensembler.bundle.uploads import Buffer, Limits, Refusal, read_body
from ensembler.errors import BundleError, ConfigError, DataError

# ---------------------------------------------------------------------- served


def test_serving_without_its_libraries(without: Callable[[str], None]) -> None:
    from ensembler.bundle.serve import serve

    without("fastapi")
    with pytest.raises(
        BundleError, match="serve needs fastapi: pip install fastapi uvicorn python-multipart markdown-it-py"
    ):
        serve("bundle")


def test_an_address_that_cannot_be_served_at(monkeypatch: pytest.MonkeyPatch) -> None:
    from ensembler.bundle import pages, serve, service

    class Server:
        """As uvicorn's ends where it cannot listen."""

        def __init__(self, config: object) -> None:
            del config

        def run(self) -> None:
            raise SystemExit(1)

    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(serve.Bundle, "load", lambda _: None)
    monkeypatch.setattr(pages, "read_card", lambda _: "")
    monkeypatch.setattr(service, "create_app", lambda *_: None)
    monkeypatch.setattr(serve, "_announced", lambda _: Server)
    with pytest.raises(
        ConfigError, match=r"127\.0\.0\.1:80: cannot be listened on; see above, or choose another --port"
    ):
        serve.serve("bundle", port=80)


def test_a_body_that_is_too_long_by_its_own_word() -> None:
    async def receive() -> dict[str, Any]:
        raise AssertionError("nothing of it is read")

    buffer = Buffer(9)
    with pytest.raises(Refusal, match="the body is larger than 1000 bytes; send fewer or smaller images"):
        asyncio.run(read_body(receive, 1001, Limits(body_bytes=1000), buffer))
    assert buffer.held == 0


def test_ray_serve_that_is_not_there(without: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    from ensembler.bundle.serve_ray import deployment, from_environment

    monkeypatch.delenv("ENSEMBLER_BUNDLE", raising=False)
    with pytest.raises(ConfigError, match="ENSEMBLER_BUNDLE: is not set; give it the folder of a bundle"):
        from_environment()
    without("ray")
    with pytest.raises(BundleError, match=r"Ray Serve is not installed \(ray\); pip install 'ray\[serve\]'"):
        deployment("bundle")


# ---------------------------------------------------------------------- watched


def test_a_rate_of_false_alarms_that_is_none() -> None:
    from ensembler.bundle.monitor.watch import monitor

    with pytest.raises(
        ConfigError, match=r"--threshold 0\.7: expected a rate of false alarms above 0, and at most 0\.5"
    ):
        monitor("bundle", [], threshold=0.7)


def test_too_few_images_to_tell_drift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ensembler.bundle.monitor import observe

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    nothing: Any = (None, np.empty((1, 2), np.float32))
    monkeypatch.setattr(observe, "observe", lambda *_: nothing)
    bundle: Any = SimpleNamespace(image_size=8)
    with pytest.raises(
        DataError, match="1 images can be read; give 20 or more, fewer do not tell drift from chance"
    ):
        observe.observe_files(bundle, [tmp_path], 2)


def test_a_reference_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from ensembler.bundle import layout
    from ensembler.bundle.monitor.reference import REFERENCE, read_reference

    files = SimpleNamespace(
        index={"files": {REFERENCE: ""}, "classes": ["cat"], "members": [{}]},
        read=lambda _: b"",
        where=lambda name: f"bundle/{name}",
    )
    monkeypatch.setattr(layout, "open_bundle", lambda _: files)
    with pytest.raises(BundleError, match=r"bundle/.*: cannot be used \(.*\); export again"):
        read_reference("bundle")
