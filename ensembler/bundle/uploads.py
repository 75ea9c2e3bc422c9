"""From a request's body to images: read under limits, taken apart, decoded.

Whatever a client sends ends in images or in a `Refusal`, which knows its status: 400 malformed, 408 too slow, 413 too
much, 415 a kind of body that is not known, 422 nothing in it can be read, 429 too busy.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.decode import header_size, load_pixels
from ..errors import UnreadableImageError

#: The longest name of a file that is given back.
NAME_LENGTH = 200

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Refusal(Exception):
    """A request that is not answered, and why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class ClientGone(Exception):
    """The client has closed the connection."""


@dataclass(frozen=True)
class Limits:
    """What a request may ask for.

    Attributes:
        body_bytes: of a request.
        buffered_bytes: of all requests that are being read or answered.
        pixels: of an image, by its header.
        files: images of a request.
        read_s: seconds until a body must have arrived.
        waiting: images that may wait for the model.
    """

    body_bytes: int = 32 << 20
    buffered_bytes: int = 256 << 20
    pixels: int = 50_000_000
    files: int = 64
    read_s: float = 30.0
    waiting: int = 512


@dataclass(frozen=True, eq=False)
class Upload:
    """An image as it came.

    Attributes:
        name: the file's, or its number.
        data: encoded bytes.
    """

    name: str
    data: bytes


class Buffer:
    """Bytes that all requests hold together."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    def take(self, n: int) -> None:
        """Counts `n` more.

        Raises:
            Refusal: 429, there is no room.
        """
        if self.held + n > self._limit:
            raise Refusal(429, "too many bytes are being received; try again later")
        self.held += n

    def give_back(self, n: int) -> None:
        """Counts `n` fewer."""
        self.held -= n


def _too_large(limits: Limits) -> Refusal:
    return Refusal(413, f"the body is larger than {limits.body_bytes} bytes; send fewer or smaller images")


async def read_body(receive: Receive, declared: int | None, limits: Limits, buffer: Buffer) -> bytearray:
    """The body, as long as it keeps to the limits; what it takes of the buffer is the caller's to give back.

    Args:
        receive: ASGI's.
        declared: Content-Length; None where there is none.
        limits: see there.
        buffer: of the server.

    Raises:
        Refusal: 408, 413 or 429.
        ClientGone: the connection was closed.
    """
    if declared is not None and declared > limits.body_bytes:
        raise _too_large(limits)
    body = bytearray()
    more = True
    try:
        async with asyncio.timeout(limits.read_s):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                part = message.get("body", b"")
                if len(body) + len(part) > limits.body_bytes:
                    raise _too_large(limits)
                buffer.take(len(part))
                body += part
                more = message.get("more_body", False)
    except TimeoutError as error:
        buffer.give_back(len(body))
        raise Refusal(
            408, f"the body did not arrive within {limits.read_s:g} s; send less, or faster"
        ) from error
    except (Refusal, ClientGone):
        buffer.give_back(len(body))
        raise
    return body


def split(body: bytearray, content_type: str, limits: Limits) -> list[Upload]:
    """The images of a body: multipart files, base64 in JSON, or one image as it is.

    Raises:
        Refusal: 400, 413 or 415.
    """
    from python_multipart.multipart import parse_options_header

    kind, options = parse_options_header(content_type.encode("latin-1", "replace").decode("latin-1"))
    if kind == b"multipart/form-data":
        uploads = _from_multipart(body, options.get(b"boundary", b""), limits)
    elif kind == b"application/json":
        uploads = _from_json(body, limits)
    elif kind.startswith(b"image/") or kind == b"application/octet-stream":
        uploads = [Upload("0", bytes(body))] if body else []
    else:
        raise Refusal(
            415, "send multipart/form-data with files, application/json with base64, or one image as image/*"
        )
    if not uploads:
        raise Refusal(400, "no image in the request; send one or more")
    return uploads


def decode_upload(upload: Upload, size: int, limits: Limits) -> NDArray[np.uint8] | str:
    """uint8 (size, size, 3) of an image, or why it cannot be read; its header is looked at before any pixel."""
    try:
        width, height = header_size(upload.data, name=upload.name)
        if width * height > limits.pixels:
            return f"{upload.name}: has {width} x {height} pixels; at most {limits.pixels} are read"
        return load_pixels(upload.data, size, name=upload.name)
    except UnreadableImageError as error:
        return str(error)


# ---------------------------------------------------------------------- kinds of bodies


def _from_json(body: bytearray, limits: Limits) -> list[Upload]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, 'the body is no JSON; expected {"images": ["<base64>", ...]}') from error
    images = value.get("images") if isinstance(value, dict) else None
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise Refusal(400, 'expected {"images": ["<base64>", ...]}')
    _count(len(images), limits)
    return [Upload(str(i), _from_base64(i, text)) for i, text in enumerate(images)]


def _from_base64(number: int, text: str) -> bytes:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(400, f"images[{number}] is no base64; encode it") from error


def _from_multipart(body: bytearray, boundary: bytes, limits: Limits) -> list[Upload]:
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser

    if not boundary:
        raise Refusal(400, "multipart/form-data without a boundary; name it in Content-Type")
    parts = _Parts(limits)
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        parser.write(bytes(body))
        parser.finalize()
    except FormParserError as error:
        raise Refusal(400, "the body is no multipart/form-data; send it as its Content-Type says") from error
    if not parts.ended:
        raise Refusal(400, "the body ends before its last boundary; send all of it")
    return parts.uploads


class _Parts:
    """Gathers the files of a multipart body; form fields without a file name are passed over."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.uploads: list[Upload] = []
        self.ended = False
        self._n_parts = 0
        self._header = self._value = b""
        self._file_name: bytes | None = None
        self._data = bytearray()

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._part_data,
            "on_part_end": self._end,
            "on_end": self._end_all,
        }

    def _begin(self) -> None:
        self._n_parts += 1
        _count(self._n_parts, self._limits)
        self._header = self._value = b""
        self._file_name = None
        self._data = bytearray()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        from python_multipart.multipart import parse_options_header

        if self._header.lower() == b"content-disposition":
            self._file_name = parse_options_header(self._value)[1].get(b"filename")
        self._header = self._value = b""

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file_name is not None:
            self._data += data[start:end]

    def _end(self) -> None:
        if self._file_name is not None:
            name = self._file_name.decode("utf-8", "replace")[:NAME_LENGTH]
            self.uploads.append(Upload(name or str(len(self.uploads)), bytes(self._data)))

    def _end_all(self) -> None:
        self.ended = True


def _count(n: int, limits: Limits) -> None:
    if n > limits.files:
        raise Refusal(413, f"more than {limits.files} images in one request; send several requests")
