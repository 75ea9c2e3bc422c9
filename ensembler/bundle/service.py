"""The web application around a bundle: FastAPI, its routes, and the guard that every request passes first.

The same application is run by `serve` (uvicorn, one process) and by `serve_ray` (Ray Serve, many).
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from numpy.typing import NDArray

from .. import __version__
from .batching import Batcher, BusyError
from .counters import CONTENT_TYPE, Counters
from .pages import PAGE_HEADERS, api_page, card_page
from .runtime import Bundle
from .uploads import Buffer, ClientGone, Limits, Refusal, Upload, decode_upload, read_body, split

#: Answered without the token: what a load balancer asks.
OPEN = ("/health", "/ready")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class Settings:
    """How a bundle is served.

    Attributes:
        token: that requests have to show; None lets everybody in.
        max_batch: images a call of the model.
        max_wait_s: see `Batcher`.
        limits: of a request.
        decoders: threads that decode; one a core unless told otherwise.
    """

    token: str | None = None
    max_batch: int = 32
    max_wait_s: float = 0.005
    limits: Limits = field(default_factory=Limits)
    decoders: int | None = None


class Service:
    """A bundle that answers requests: decodes in threads, asks the model in batches, counts.

    Args:
        bundle: loaded.
        settings: see there.
    """

    def __init__(self, bundle: Bundle, settings: Settings) -> None:
        self.bundle, self.limits = bundle, settings.limits
        self.buffer = Buffer(self.limits.buffered_bytes)
        self.counters = Counters(lambda: self._batcher.waiting, resident_bytes)
        self._decoders = ThreadPoolExecutor(settings.decoders or os.cpu_count(), thread_name_prefix="decode")
        self._batcher = Batcher(
            bundle.predict_pixels,
            max_batch=settings.max_batch,
            max_wait_s=settings.max_wait_s,
            max_waiting=settings.limits.waiting,
            on_batch=self._count_batch,
        )

    def warm_up(self) -> None:
        """Asks the model once, so that the first request does not wait for what is made on first use."""
        size = self.bundle.image_size
        self.bundle.predict_pixels(np.zeros((1, size, size, 3), np.uint8))

    def close(self) -> None:
        """Answers what waits, then ends its threads."""
        self._decoders.shutdown()
        self._batcher.close()

    async def answer(self, receive: Receive, headers: dict[bytes, bytes]) -> dict[str, Any]:
        """The JSON-able answer to one request.

        Raises:
            Refusal: with its status.
            ClientGone: nobody waits for it any more.
        """
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Refusal(415, "compressed bodies are not read; send it as it is")
        body = await read_body(receive, _length(headers), self.limits, self.buffer)
        held = len(body)
        try:
            kind = headers.get(b"content-type", b"").decode("latin-1")
            uploads = await self._in_thread(split, body, kind, self.limits)
            del body  # the uploads are copies
            return await self._predict(uploads)
        finally:
            self.buffer.give_back(held)

    async def _predict(self, uploads: list[Upload]) -> dict[str, Any]:
        announced = len(uploads)
        try:
            self._batcher.reserve(announced)
        except BusyError as error:
            raise Refusal(429, "too many images are waiting; try again later") from error
        try:
            decoded = await asyncio.gather(
                *(self._in_thread(decode_upload, one, self.bundle.image_size, self.limits) for one in uploads)
            )
            readable = [pixels for pixels in decoded if not isinstance(pixels, str)]
            self.counters.unreadable.add(len(uploads) - len(readable))
            if not readable:
                raise Refusal(422, f"no image can be read: {next(x for x in decoded if isinstance(x, str))}")
            self._batcher.give_back(announced - len(readable))
            announced = 0
            answer: Future[NDArray[np.float32]] = self._batcher.submit(np.stack(readable))
        finally:
            self._batcher.give_back(announced)
        proba = await asyncio.wrap_future(answer)
        self.counters.images.add(len(readable))
        return self._shown(uploads, decoded, proba)

    def _shown(
        self, uploads: list[Upload], decoded: list[NDArray[np.uint8] | str], proba: NDArray[np.float32]
    ) -> dict[str, Any]:
        rows = iter(proba)
        predictions: list[dict[str, Any]] = []
        for upload, pixels in zip(uploads, decoded, strict=True):
            if isinstance(pixels, str):
                predictions.append({"name": upload.name, "error": pixels})
                continue
            row = next(rows)
            top = int(row.argmax())
            predictions.append(
                {
                    "name": upload.name,
                    "label": self.bundle.classes[top],
                    "confidence": round(float(row[top]), 7),
                    "proba": [round(value, 7) for value in row.tolist()],
                }
            )
        return {
            "bundle": self.bundle.name,
            "classes": list(self.bundle.classes),
            "predictions": predictions,
        }

    async def _in_thread(self, work: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._decoders, work, *args)

    def _count_batch(self, images: int, seconds: float) -> None:
        self.counters.batch.add(images)
        self.counters.model_s.add(seconds)


class Guard:
    """Wraps the application: asks for the token before a byte of the body is read, and counts every answer."""

    def __init__(self, app: Any, *, token: str | None, counters: Counters, paths: frozenset[str]) -> None:
        self._app, self._counters, self._paths = app, counters, paths
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        path = scope["path"] if scope["path"] in self._paths else "other"

        async def counted(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self._counters.requests.add(1, path, str(message["status"]))
                if path == "/predict":
                    self._counters.request_s.add(time.perf_counter() - began)
            await send(message)

        if self._token is not None and path not in OPEN and not self._shows_token(scope):
            refusal = _json(
                {"detail": "a token is needed: Authorization: Bearer ..."},
                401,
                {"WWW-Authenticate": "Bearer"},
            )
            await refusal(scope, receive, counted)
            return
        await self._app(scope, receive, counted)

    def _shows_token(self, scope: Scope) -> bool:
        shown = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        kind, _, token = shown.partition(b" ")
        return kind.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token or b"")


def create_app(bundle: Bundle, card: str, settings: Settings) -> FastAPI:
    """The application.

    Args:
        bundle: loaded.
        card: its model card in Markdown.
        settings: see there.
    """
    service = Service(bundle, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(service.warm_up)
        app.state.ready = True
        yield
        app.state.ready = False
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title=f"ensembler: {bundle.name}",
        version=__version__,
        description="Classifies images with an exported bundle.",
        docs_url=None,  # FastAPI's own pages load their scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.ready = False

    @app.post("/predict", summary="Classify images", openapi_extra=_BODY, responses=_RESPONSES)
    async def predict(request: Request) -> Response:
        try:
            return _json(await service.answer(request.receive, dict(request.scope["headers"])))
        except Refusal as refusal:
            again = {"Retry-After": "1"} if refusal.status == 429 else {}
            return _json({"detail": refusal.reason}, refusal.status, again)
        except ClientGone:
            return Response(status_code=400)  # to nobody

    @app.get("/health", summary="Whether the process lives")
    async def health() -> Response:
        return _json({"status": "ok"})

    @app.get("/ready", summary="Whether it answers requests now")
    async def ready() -> Response:
        return _json({"status": "ready"}) if app.state.ready else _json({"status": "not ready"}, 503)

    @app.get("/metrics", summary="Counts and times, for Prometheus")
    async def metrics() -> Response:
        return Response(service.counters.text(), media_type=CONTENT_TYPE)

    @app.get("/card", summary="The model card; as Markdown where it is asked for (Accept: text/markdown)")
    async def model_card(request: Request) -> Response:
        if "text/markdown" in request.headers.get("accept", ""):
            return Response(card, media_type="text/markdown; charset=utf-8")
        return Response(card_page(card), media_type="text/html", headers=PAGE_HEADERS)

    @app.get("/", include_in_schema=False)
    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(api_page(app.openapi()), media_type="text/html", headers=PAGE_HEADERS)

    paths = frozenset(str(getattr(route, "path", "")) for route in app.routes)
    app.add_middleware(Guard, token=settings.token, counters=service.counters, paths=paths)
    return app


def resident_bytes() -> float:
    """Resident memory of this process; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:  # noqa: PTH123 - a file that is no file
            return float(int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    except OSError:
        return 0.0


def _length(headers: dict[bytes, bytes]) -> int | None:
    value = headers.get(b"content-length", b"")
    return int(value[:20]) if value.isdigit() else None  # Python refuses to read thousands of digits


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Response(text, status, headers, "application/json")


# ---------------------------------------------------------------------- OpenAPI

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {"type": "array", "items": {"type": "string", "format": "binary"}}
                    },
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "contentEncoding": "base64"},
                        }
                    },
                }
            },
            "image/*": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}

_ANSWER: dict[str, Any] = {
    "type": "object",
    "required": ["bundle", "classes", "predictions"],
    "properties": {
        "bundle": {"type": "string"},
        "classes": {"type": "array", "items": {"type": "string"}},
        "predictions": {
            "type": "array",
            "description": "One an image, in the order of the request; an unreadable image has `error` instead.",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string"},
                    "label": {"type": "string"},
                    "confidence": {"type": "number"},
                    "proba": {"type": "array", "items": {"type": "number"}},
                    "error": {"type": "string"},
                },
            },
        },
    },
}

_REASON = {
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["detail"],
                "properties": {"detail": {"type": "string"}},
            }
        }
    }
}

_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The answers", "content": {"application/json": {"schema": _ANSWER}}},
    400: {"description": "Malformed", **_REASON},
    401: {"description": "The token is missing or wrong", **_REASON},
    408: {"description": "The body came too slowly", **_REASON},
    413: {"description": "Too many bytes or too many images", **_REASON},
    415: {"description": "A kind of body that is not known", **_REASON},
    422: {"description": "None of the images can be read", **_REASON},
    429: {"description": "Too much is waiting; see Retry-After", **_REASON},
}
