"""Starts the app's server: `ensembler app`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from ..errors import ConfigError, EnsemblerError, StoreError

#: Settings of Streamlit; `.streamlit/config.toml` says the same to a plain `streamlit run app.py`.
SETTINGS = {
    "browser.gatherUsageStats": "false",
    "client.toolbarMode": "viewer",
    # Python collects of itself; all of it after each script would hold what was just drawn back for 0.2 s.
    "runner.postScriptGC": "false",
    "server.fileWatcherType": "none",
    "server.maxUploadSize": "20",
    "server.showEmailPrompt": "false",
    "theme.light.primaryColor": "#0072B2",
    "theme.dark.primaryColor": "#56B4E9",
}

#: "1" lets those who open the app from other machines start and stop sweeps too.
LAUNCH_VARIABLE = "ENSEMBLER_ALLOW_LAUNCH"

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104


def launch(runs: Path, address: str, port: int, headless: bool, allow_launch: bool = False) -> None:
    """Serves the app until Ctrl-C.

    Args:
        runs: folder of runs; one that is missing is opened too, and the app says what to do.
        address: to listen on.
        port: to listen on.
        headless: do not open a browser.
        allow_launch: sweeps can be started and stopped on the page Launch, even where other machines reach the app.

    Raises:
        StoreError: `runs` is a file.
        ConfigError: the address or the port cannot be used.
        EnsemblerError: the server ended by itself.
    """
    if runs.exists() and not runs.is_dir():
        raise StoreError(f"{runs}: a file; give the folder that holds the runs")
    _require_free(address, port)
    host = "localhost" if address in _EVERYWHERE else address
    shown = f"[{host}]" if ":" in host else host
    print(f"ensembler app: http://{shown}:{port} (Ctrl-C ends it)", file=sys.stderr)
    if address not in _LOOPBACK:
        may = "read the runs, export and launch sweeps" if allow_launch else "read the runs and export"
        print(f"warning: everybody who reaches {address}:{port} can {may}", file=sys.stderr)
    environment = os.environ | {LAUNCH_VARIABLE: "1" if allow_launch else "0"}
    previous = signal.signal(signal.SIGTERM, _terminated)
    server = subprocess.Popen(  # noqa: S603
        command(runs, address, port, headless), stdout=subprocess.DEVNULL, env=environment
    )
    try:
        code = server.wait()
    except KeyboardInterrupt:  # the terminal has sent it to the server too
        return
    finally:
        _end(server)
        signal.signal(signal.SIGTERM, previous)
    if code:
        raise EnsemblerError(f"the app's server ended with exit code {code}; its last lines above say why")


def command(runs: Path, address: str, port: int, headless: bool) -> list[str]:
    """What is run: Streamlit on the script inside this package."""
    settings = SETTINGS | {
        "server.address": address,
        "server.port": str(port),
        "server.headless": str(headless).lower(),
    }
    script = Path(__file__).with_name("main.py")
    flags = [f"--{key}={value}" for key, value in settings.items()]
    return [sys.executable, "-m", "ensembler.app.run", "run", str(script), *flags, "--", str(runs.resolve())]


def may_launch(address: str | None, environment: Mapping[str, str]) -> bool:
    """Whether this app may start and stop sweeps: only those at this machine reach it, or it was allowed.

    Args:
        address: that the server listens on; None and "" are every address.
        environment: of the server.
    """
    return address in _LOOPBACK or environment.get(LAUNCH_VARIABLE) == "1"


def _require_free(address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except (OSError, OverflowError) as error:
            cause = getattr(error, "strerror", None) or error
            other = port + 1 if 0 < port < 65535 else 8502
            raise ConfigError(
                f"{address}:{port}: cannot be listened on: {cause}; choose another port, such as --port {other}"
            ) from error


def _end(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        server.terminate()
    try:
        server.wait(timeout=5)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _terminated(*_: object) -> None:
    """Ends this process by an exception, so that its server is ended too."""
    raise SystemExit(128 + signal.SIGTERM)
