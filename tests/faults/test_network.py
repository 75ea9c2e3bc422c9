"""What a sweep, the app and the server open and say: they listen on loopback alone, connect to nobody outside this
machine, and write none of the secrets that they are given.

One command of each kind runs under a library that notes and refuses every connection that would leave:
`connections.c`.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import pytest

from ensembler.store import RunStore
from ensembler.tuning.loopback import withhold_secrets
from tests.ports import free_port

SOURCE = Path(__file__).with_name("connections.c")

needs_compiler = pytest.mark.skipif(
    not (sys.platform == "linux" and shutil.which("cc")), reason="needs Linux and a C compiler"
)

CONFIG = """
name: quiet
data: {source: images/train, test: images/test, image_size: 32}
folds: {k: 2}
backbones: [{test_resnet: {weights: pretrained-or-random}}]
recipe: {batch_size: 8}
search: {trials: 1, epochs: 1}
ensembles: [mean]
numerics: {precision: fp32}
"""

CANARY = "c4n4ry"

#: Ray asks the host, by a link-local address and by a name that only Google's machines know, which cloud it runs in. It
#: does so though its usage statistics are off; the answer stays in its dashboard's process.
METADATA = (" connect 169.254.169.254 80", " lookup metadata.google.internal 0")

#: What people have in their environment.
SECRETS = {
    name: f"{CANARY}-{number}"
    for number, name in enumerate(
        [
            "HF_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GITHUB_TOKEN",
            "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "DATABASE_PASSWORD",
        ]
    )
}  # fmt: skip


#: What `ensembler/__init__.py` sets in this process too.
REPORTS = ("HF_HUB_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED", "ORT_DISABLE_TELEMETRY")


@dataclasses.dataclass
class Watched:
    """A command and what was seen of it.

    Attributes:
        process: the command's.
        listening: (process and its command, address, port) of each socket that was ever seen to listen.
        log: of connections that would have left the machine.
    """

    process: subprocess.Popen[str]
    log: Path
    listening: set[tuple[str, str, int]] = dataclasses.field(default_factory=set)

    def look(self) -> None:
        with_children = [psutil.Process(self.process.pid)]
        with_children += with_children[0].children(recursive=True)
        for process in with_children:
            try:
                sockets = process.net_connections(kind="inet")
                name = " ".join([process.name(), *process.cmdline()])[:80]
            except psutil.Error:
                continue
            for one in sockets:
                # Whoever has bound a datagram socket to no peer hears everybody too.
                if one.status == psutil.CONN_LISTEN or (one.type == socket.SOCK_DGRAM and not one.raddr):
                    self.listening.add((name, one.laddr.ip, one.laddr.port))

    def left(self) -> list[str]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if not line.endswith(METADATA)]

    def exposed(self) -> list[tuple[str, str, int]]:
        return sorted(s for s in self.listening if not _is_loopback(s[1]))


def _is_loopback(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("shim") / "connections.so"
    flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["cc", *flags, "-o", str(target), str(SOURCE), "-ldl"], check=True)
    return target


def _as_at_home(shim: Path, log: Path) -> dict[str, str]:
    """The environment, without what keeps libraries from reporting where tests run."""
    kept = {
        key: value for key, value in os.environ.items() if key not in REPORTS and not key.startswith("CI")
    }
    return kept | {"LD_PRELOAD": str(shim), "CONNECTIONS_LOG": str(log)}


def _start(arguments: list[str], home: Path, shim: Path, **environment: str) -> Watched:
    log = home / "connections.log"
    with (home / "said.txt").open("a") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "ensembler", *arguments],
            stdout=said,
            stderr=subprocess.STDOUT,
            text=True,
            env=_as_at_home(shim, log) | environment,
        )
    return Watched(process, log)


class Refusing(BaseHTTPRequestHandler):
    """A hub that lets nobody in."""

    seen: list[str]

    def do_GET(self) -> None:
        self.seen.append(self.headers.get("User-Agent", ""))
        self.send_error(403)

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def hub() -> Iterator[tuple[str, list[str]]]:
    """Address of a hub with a password in it, and the user agents of those who came."""
    seen: list[str] = []
    handler = type("Handler", (Refusing,), {"seen": seen})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://someone:{CANARY}-hub@127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()


@dataclasses.dataclass
class QuietRun:
    home: Path
    ray: Path
    sweep: Watched
    agents: list[str]

    @property
    def run(self) -> Path:
        return self.home / "run"


@pytest.fixture(scope="module")
def quiet(
    tmp_path_factory: pytest.TempPathFactory,
    write_experiment: Callable[..., Path],
    shim: Path,
    hub: tuple[str, list[str]],
) -> Iterator[QuietRun]:
    """A run with secrets all around, looked at while it works."""
    home = tmp_path_factory.mktemp("quiet")
    config = write_experiment(home, CONFIG, 36)
    ray = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # the paths of its sockets have to be short
    environment = SECRETS | {
        "HF_ENDPOINT": hub[0],
        "HF_HOME": str(home / "hub"),
        "ENSEMBLER_CACHE": str(home / "cache"),
        "RAY_TMPDIR": str(ray),
    }
    try:
        sweep = _start(["run", str(config), "-o", str(home / "run")], home, shim, **environment)
        deadline = time.monotonic() + 450
        while sweep.process.poll() is None:
            assert time.monotonic() < deadline
            sweep.look()
            time.sleep(0.5)
        assert sweep.process.returncode == 0, (home / "said.txt").read_text()[-3000:]
        export = _start(["export", str(home / "run"), "-o", str(home / "bundle")], home, shim, **environment)
        assert export.process.wait(450) == 0, (home / "said.txt").read_text()[-3000:]
        report = _start(["report", str(home / "run")], home, shim, **environment)
        assert report.process.wait(450) == 0, (home / "said.txt").read_text()[-3000:]
        yield QuietRun(home, ray, sweep, hub[1])
    finally:
        shutil.rmtree(ray, ignore_errors=True)


@needs_compiler
def test_a_sweep_listens_on_loopback_alone(quiet: QuietRun) -> None:
    programs = " ".join(name for name, _, _ in quiet.sweep.listening)
    assert "raylet" in programs  # it was looked at while Ray worked
    assert "gcs_server" in programs
    assert quiet.sweep.exposed() == []


@needs_compiler
def test_a_sweep_an_export_and_a_report_connect_to_nobody(quiet: QuietRun) -> None:
    assert quiet.sweep.left() == []


INFERENCE = """
import sys, time
if sys.argv[1] == "ensembler":
    import ensembler
import numpy as np, onnx, onnxruntime
from onnx import TensorProto as T, helper
value = [helper.make_tensor_value_info(name, T.FLOAT, [1]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
session.run(None, {"x": np.ones(1, np.float32)})
"""


@needs_compiler
@pytest.mark.parametrize("who", ["ensembler", "onnxruntime alone"])
def test_the_runtime_of_bundles_keeps_no_identifier_and_reports_nothing(
    who: str, shim: Path, tmp_path: Path
) -> None:
    """ONNX Runtime does so by itself since 1.29, anywhere but in CI."""
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment = _as_at_home(shim, tmp_path / "log") | home
    subprocess.run([sys.executable, "-c", INFERENCE, who], env=environment, check=True, timeout=300)
    identifiers = [file for file in tmp_path.rglob("*") if "onnxruntime" in str(file).lower()]
    if who == "ensembler":
        assert identifiers == []
        assert not (tmp_path / "log").exists()
    elif tuple(map(int, metadata.version("onnxruntime").split(".")[:2])) >= (1, 29):
        assert identifiers  # so the other half of this test can fail


def test_tune_hands_on_no_keys_of_a_cloud() -> None:
    from ray.tune.execution import class_cache

    withhold_secrets()
    assert "RAY_CHDIR_TO_TRIAL_DIR" in class_cache.ENV_VARS_TO_PROPAGATE
    assert not [name for name in class_cache.ENV_VARS_TO_PROPAGATE if "KEY" in name or "TOKEN" in name]


@needs_compiler
def test_the_note_of_a_connection_can_be_seen(shim: Path, tmp_path: Path) -> None:
    """The library does note what leaves: by number, by name, and by datagram."""
    program = (
        "import contextlib, socket\n"
        "with contextlib.suppress(OSError): socket.create_connection(('192.0.2.7', 443), 1)\n"
        "with contextlib.suppress(OSError): socket.create_connection(('usage.example.org', 443), 1)\n"
        "with contextlib.suppress(OSError): socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.8', 53))\n"
    )
    log = tmp_path / "log"
    environment = os.environ | {"LD_PRELOAD": str(shim), "CONNECTIONS_LOG": str(log)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert [line.split(" ", 1)[1] for line in log.read_text().splitlines()] == [
        "connect 192.0.2.7 443",
        "lookup usage.example.org 0",
        "send 192.0.2.8 53",
    ]


@needs_compiler
def test_the_hub_is_not_told_what_else_is_installed(quiet: QuietRun) -> None:
    assert quiet.agents
    assert not [agent for agent in quiet.agents if "torch/" in agent]


@needs_compiler
def test_no_secret_is_written_anywhere(quiet: QuietRun) -> None:
    """Run, bundle, report, caches, what was printed, and Ray's own logs."""
    files = [file for folder in (quiet.home, quiet.ray) for file in folder.rglob("*") if file.is_file()]
    names = {file.name for file in files}
    assert {"manifest.json", "events.jsonl", "said.txt", "leaderboard.parquet", "raylet.out"} <= names
    assert any(file.suffix == ".html" for file in files)
    assert any(file.suffix == ".onnx" for file in files)
    telling = [str(file) for file in files if CANARY.encode() in file.read_bytes()]
    assert telling == []
    note = RunStore(quiet.run).manifest()["details"]
    assert "the hub refused" in str(note)  # the message that would have held the password


def _draw(module: str, path: str) -> None:
    import importlib

    from ensembler.app.reading import view
    from ensembler.store import RunStore

    store = RunStore(path)
    given = store if module in ("live", "search", "data") else view(store)
    importlib.import_module(f"ensembler.app.{module}").page(given)


@needs_compiler
@pytest.mark.parametrize("module", ["overview", "leaderboard", "live", "search", "data", "export"])
def test_no_secret_is_on_a_page_of_the_app(
    module: str, quiet: QuietRun, hub: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from streamlit.testing.v1 import AppTest

    for name, value in {**SECRETS, "HF_ENDPOINT": hub[0]}.items():
        monkeypatch.setenv(name, value)
    page = AppTest.from_function(_draw, args=(module, str(quiet.run)), default_timeout=120).run()
    assert not page.exception
    shown = [element.proto for element in page._tree if getattr(element, "proto", None) is not None]
    assert shown
    assert not [proto for proto in shown if CANARY.encode() in proto.SerializeToString()]


# ---------------------------------------------------------------------- the app and the server


@needs_compiler
@pytest.mark.parametrize("verb", ["app", "serve"])
def test_the_app_and_the_server_listen_on_loopback_and_connect_to_nobody(
    verb: str, quiet: QuietRun, shim: Path, tmp_path: Path
) -> None:
    port = free_port()
    token = tmp_path / "token"
    token.write_text(f"{CANARY}-{'t' * 20}\n")
    arguments = {
        "app": ["app", str(quiet.home), "--port", str(port), "--headless"],
        "serve": ["serve", str(quiet.home / "bundle"), "--port", str(port), "--token-file", str(token)],
    }[verb]
    watched = _start(arguments, tmp_path, shim, **SECRETS)
    address = f"http://127.0.0.1:{port}" + ("/" if verb == "app" else "/health")
    try:
        deadline = time.monotonic() + 200
        while True:
            try:
                answer = urllib.request.urlopen(address, timeout=5).read()
                break
            except OSError:
                assert watched.process.poll() is None, (tmp_path / "said.txt").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.2)
        watched.look()
    finally:
        watched.process.terminate()
        watched.process.wait(120)
    assert answer
    assert port in {p for _, _, p in watched.listening}
    assert watched.exposed() == []
    assert watched.left() == []
    assert CANARY not in (tmp_path / "said.txt").read_text()
