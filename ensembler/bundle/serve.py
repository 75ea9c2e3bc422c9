"""`ensembler serve`: a bundle over HTTP, by uvicorn, on loopback unless told otherwise.

It ends gracefully: on SIGTERM or Ctrl-C it takes no new connection, answers what is under way, and exits 0.
"""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from ..errors import BundleError, ConfigError
from .runtime import Bundle
from .uploads import Limits

#: Seconds until a connection must have sent a whole request head, and to take in what follows a refusal.
HEAD_S = 10.0

#: Seconds that a client has to take in what it was answered.
TAKE_S = 60.0

#: Connections at a time; more are closed at once.
MAX_CONNECTIONS = 512

#: Seconds that requests under way have after SIGTERM.
GRACE_S = 30

#: The shortest token that is taken.
TOKEN_LENGTH = 16


def serve(
    bundle_path: str | Path,
    *,
    address: str = "127.0.0.1",
    port: int = 8000,
    token_file: Path | None = None,
    max_batch: int = 32,
    max_wait_s: float = 0.005,
    limits: Limits | None = None,
) -> None:
    """Serves a bundle until it is told to end.

    Args:
        bundle_path: a bundle.
        address: where to listen.
        port: 0 takes a free one; it is printed.
        token_file: a file whose first line every request has to show.
        max_batch: images a call of the model.
        max_wait_s: see `Batcher`.
        limits: of a request.

    Raises:
        BundleError: a library is missing; see also `Bundle.load`.
        ConfigError: a token that is none, or an address that cannot be had.
    """
    uvicorn = _require_libraries()
    from .pages import read_card
    from .service import Settings, create_app

    given = limits or Limits()
    _require_positive(given, max_batch, max_wait_s)
    ending = _EndAtOnce()
    token = None if token_file is None else read_token(token_file)
    if not is_loopback(address):
        _warn_of(address, token)
    bundle = Bundle.load(bundle_path)
    settings = Settings(token=token, max_batch=max_batch, max_wait_s=max_wait_s, limits=given)
    app = create_app(bundle, read_card(Path(bundle_path)), settings)
    config = uvicorn.Config(
        app,
        host=address,
        port=port,
        http=_guarded_protocol(),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    server = _announced(uvicorn.Server)(config)
    try:
        ending.defer()
        server.run()
    except KeyboardInterrupt:
        pass  # sent again by uvicorn, when everything has been answered
    except SystemExit as error:
        if error.code:
            raise ConfigError(
                f"{address}:{port}: cannot be listened on; see above, or choose another --port"
            ) from error


def _require_positive(limits: Limits, max_batch: int, max_wait_s: float) -> None:
    least = {
        "--max-batch": (max_batch, 1),
        "--max-body-mb": (limits.body_bytes / 1e6, 1e-6),
        "--max-pixels": (limits.pixels, 1),
        "--max-files": (limits.files, 1),
    }
    for name, (value, low) in least.items():
        if not value >= low:
            raise ConfigError(f"serve {name} {value:g}: expected {low:g} or more")
    if not limits.read_s > 0:
        raise ConfigError(f"serve --read-timeout-s {limits.read_s:g}: expected seconds above 0")
    if not max_wait_s >= 0:
        raise ConfigError(f"serve --max-wait-ms {1000 * max_wait_s:g}: expected milliseconds, 0 or more")


def read_token(file: Path) -> str:
    """The first line of a file.

    Raises:
        ConfigError: the file cannot be read, or holds no token that could protect anything.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{file}: no token can be read ({error}); write one with: openssl rand -hex 32 > {file}"
        ) from error
    token = lines[0].strip() if lines else ""
    if len(token) < TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"{file}: a token has at least {TOKEN_LENGTH} ASCII characters and no space; "
            f"write one with: openssl rand -hex 32 > {file}"
        )
    return token


def is_loopback(address: str) -> bool:
    """Whether nobody but this machine can reach an address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _warn_of(address: str, token: str | None) -> None:
    who = "whoever shows the token" if token else "everybody: give --token-file FILE"
    print(
        f"warning: {address} can be reached from other machines, without encryption, and answers {who}",
        file=sys.stderr,
    )


class _EndAtOnce:
    """SIGTERM ends the process with 0: at once while the bundle is loaded, and after uvicorn has ended gracefully.

    uvicorn handles the signal while it runs, and then sends it again to whoever handled it before.
    """

    def __init__(self) -> None:
        self._deferred = False
        signal.signal(signal.SIGTERM, self._handle)

    def defer(self) -> None:
        """From now on uvicorn ends the process; nothing is left to do when the signal comes again."""
        self._deferred = True

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if not self._deferred:
            sys.exit(0)


def _require_libraries() -> Any:
    try:
        import fastapi  # noqa: F401
        import markdown_it  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise BundleError(
            f"serve needs {error.name}: pip install fastapi uvicorn python-multipart markdown-it-py"
        ) from error
    return uvicorn


def _announced(server: Any) -> Any:
    """uvicorn's server, which says where it listens once it does."""

    class Announced(server):  # type: ignore[misc]
        def _log_started_message(self, listeners: Any) -> None:
            host, port = listeners[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            print(f"serving on http://{shown}:{port}/ (Ctrl-C ends it)", flush=True)

    return Announced


def _guarded_protocol() -> Any:
    """uvicorn's HTTP protocol, which waits for nobody for ever, and takes no more clients than it says.

    uvicorn gives up on a connection that sends nothing between two requests; not on one that sends its head, or what is
    left of a body that was refused, a byte at a time, nor on one that does not read its answer.
    """
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class GuardedProtocol(H11Protocol):
        _guard: asyncio.TimerHandle | None = None
        _patience: asyncio.TimerHandle

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > MAX_CONNECTIONS:
                transport.abort()
                return
            # So that it is told of every byte that the client does not take.
            transport.set_write_buffer_limits(0)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._guard is not None:
                self._guard.cancel()
            if self.flow.write_paused:
                self._patience.cancel()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._patience = self.loop.call_later(TAKE_S, self.transport.abort)

        def resume_writing(self) -> None:
            self._patience.cancel()
            super().resume_writing()

        def _watch(self) -> None:
            between = self.cycle is None or self.cycle.response_complete
            if between and self._guard is None:
                self._guard = self.loop.call_later(HEAD_S, self._give_up)
            elif not between and self._guard is not None:
                self._guard.cancel()
                self._guard = None

        def _give_up(self) -> None:
            self._guard = None
            between = self.cycle is None or self.cycle.response_complete
            if between and not self.transport.is_closing():
                self.transport.close()

    return GuardedProtocol
