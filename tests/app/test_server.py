import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path

import pytest

from ensembler.app.server import SETTINGS, command, launch
from ensembler.errors import ConfigError, EnsemblerError, StoreError
from tests.ports import free_port

ROOT = Path(__file__).parents[2]

#: For a server to start and to end: each takes a second, on a machine that others use a minute.
PATIENCE_S = 120


def test_a_port_in_use_is_named_with_a_way_out(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"127.0.0.1:{port}: .*in use; .*--port {port + 1}"):
            launch(tmp_path, "127.0.0.1", port, True)


@pytest.mark.parametrize(("address", "port"), [("127.0.0.1", 99999), ("no.such.host.invalid", 8501)])
def test_an_address_that_cannot_be_used(tmp_path, address, port):
    with pytest.raises(ConfigError, match="cannot be listened on"):
        launch(tmp_path, address, port, True)


def test_a_file_is_no_folder_of_runs(tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(StoreError, match="give the folder"):
        launch(tmp_path / "f", "127.0.0.1", 8501, True)


def test_a_server_that_fails_is_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "ensembler.app.server.command", lambda *_: [sys.executable, "-c", "raise SystemExit(3)"]
    )
    with pytest.raises(EnsemblerError, match="exit code 3"):
        launch(tmp_path, "0.0.0.0", free_port(), True)
    said = capsys.readouterr().err
    assert "http://localhost:" in said
    assert "warning: everybody who reaches 0.0.0.0" in said


def test_the_command_serves_this_package_quietly_on_that_address(tmp_path):
    words = command(tmp_path / "runs", "127.0.0.1", 1234, True)
    assert Path(words[4]).name == "main.py"
    assert Path(words[4]).is_file()
    assert {"--server.address=127.0.0.1", "--server.port=1234", "--server.headless=true"} <= set(words)
    assert "--browser.gatherUsageStats=false" in words
    assert words[-2:] == ["--", str(tmp_path / "runs")]


def test_the_repository_serves_the_same():
    found = {}

    def flatten(prefix, value):
        if isinstance(value, dict):
            for key, inner in value.items():
                flatten([*prefix, key], inner)
        else:
            found[".".join(prefix)] = str(value).lower() if isinstance(value, bool) else str(value)

    flatten([], tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text()))
    assert found == SETTINGS | {"server.address": "127.0.0.1"}


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminate"])
def test_it_serves_a_missing_folder_and_ends_with_its_server(tmp_path, ending):
    port = free_port()
    words = [
        sys.executable,
        "-m",
        "ensembler",
        "app",
        str(tmp_path / "none"),
        "--port",
        str(port),
        "--headless",
    ]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True) as app:
        try:
            end = time.monotonic() + PATIENCE_S
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1).close()
                    break
                except OSError:
                    assert time.monotonic() < end
                    assert app.poll() is None
                    time.sleep(0.1)
            os.kill(app.pid, ending)
            assert app.wait(timeout=PATIENCE_S) == (0 if ending == signal.SIGINT else 128 + ending)
            assert f"http://127.0.0.1:{port}" in app.stderr.read()
        finally:
            if app.poll() is None:
                os.killpg(app.pid, signal.SIGKILL)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)), "the server is gone with it"


def test_pages_import_neither_torch_nor_ray():
    code = """
import sys
import ensembler.app.main, ensembler.app.server, ensembler.metrics, ensembler.combiners, ensembler.evaluation
import ensembler.figures, ensembler.store, ensembler.comparison, ensembler.evaluation.leaderboard
print(sorted({"torch", "ray", "timm", "torchvision"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
