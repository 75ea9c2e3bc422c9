"""Requests without a socket: what the service makes of bodies as they arrive, part by part, and what it gives back."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ensembler.bundle.service import Service, Settings, create_app, resident_bytes
from ensembler.bundle.uploads import Buffer, ClientGone, Limits, Refusal, read_body, split

LIMITS = Limits(body_bytes=2000, buffered_bytes=3000, pixels=1000, files=3, read_s=0.2, waiting=4)

GONE = {"type": "http.disconnect"}


def parts(*bodies: bytes) -> list[dict[str, Any]]:
    """A body in several messages, as a server hands them on."""
    return [
        {"type": "http.request", "body": body, "more_body": i < len(bodies)}
        for i, body in enumerate(bodies, start=1)
    ]


def receiver(messages: list[dict[str, Any]]) -> Callable[[], Any]:
    """Gives one message after another, then nothing for ever."""
    waiting = list(messages)

    async def receive() -> dict[str, Any]:
        if not waiting:
            await asyncio.sleep(60)
        return waiting.pop(0)

    return receive


def png(colour: tuple[int, int, int] = (255, 0, 0), side: int = 8) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(stream, "PNG")
    return stream.getvalue()


def as_json(*images: bytes) -> bytes:
    return json.dumps({"images": [base64.b64encode(image).decode() for image in images]}).encode()


def refusal(run: Any) -> tuple[int, str]:
    with pytest.raises(Refusal) as caught:
        asyncio.run(run) if asyncio.iscoroutine(run) else run()
    return caught.value.status, caught.value.reason


# ---------------------------------------------------------------------- bodies


def test_a_body_is_read_part_by_part_and_counted() -> None:
    buffer = Buffer(3000)
    body = asyncio.run(read_body(receiver(parts(b"one", b"", b"two")), 6, LIMITS, buffer))
    assert (body, buffer.held) == (b"onetwo", 6)
    buffer.give_back(6)
    # Of a message that names no bytes, ASGI says that it has none; nor need the last one say that it is the last.
    messages = [{"type": "http.request", "more_body": True}, {"type": "http.request", "body": b"one"}]
    assert asyncio.run(read_body(receiver(messages), 3, LIMITS, buffer)) == b"one"
    buffer.give_back(3)
    assert buffer.held == 0


def test_a_body_may_be_as_long_as_the_limit_and_no_longer() -> None:
    buffer = Buffer(3000)
    assert len(asyncio.run(read_body(receiver(parts(b"x" * 2000)), 2000, LIMITS, buffer))) == 2000
    buffer.give_back(2000)
    said = "the body is larger than 2000 bytes; send fewer or smaller images"
    assert refusal(read_body(receiver([]), 2001, LIMITS, buffer)) == (413, said)  # without reading any
    assert refusal(read_body(receiver(parts(b"x" * 1999, b"xx")), None, LIMITS, buffer)) == (413, said)
    assert buffer.held == 0


def test_a_body_that_stops_coming_is_refused_and_what_it_took_given_back() -> None:
    buffer = Buffer(3000)
    slow = parts(b"x", b"y")[:1]
    status, reason = refusal(read_body(receiver(slow), 2, LIMITS, buffer))
    assert (status, reason) == (408, "the body did not arrive within 0.2 s; send less, or faster")
    assert buffer.held == 0


def test_a_client_that_goes_leaves_nothing_behind() -> None:
    buffer = Buffer(3000)
    with pytest.raises(ClientGone):
        asyncio.run(read_body(receiver([*parts(b"x", b"y")[:1], GONE]), None, LIMITS, buffer))
    assert buffer.held == 0


def test_all_requests_together_have_a_limit() -> None:
    buffer = Buffer(3000)
    buffer.take(3000)
    status, reason = refusal(read_body(receiver(parts(b"x")), 1, LIMITS, buffer))
    assert (status, reason) == (429, "too many bytes are being received; try again later")
    assert buffer.held == 3000


FILE = b'--e\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n%s\r\n'


@pytest.mark.parametrize(
    ("body", "kind", "status", "reason"),
    [
        (b"[", "application/json", 400, 'the body is no JSON; expected {"images": ["<base64>", ...]}'),
        (b"{}", "application/json", 400, 'expected {"images": ["<base64>", ...]}'),
        (b'{"images": ["+"]}', "application/json", 400, "images[0] is no base64; encode it"),
        (as_json(*[b"x"] * 4), "application/json", 413, "more than 3 images in one request; send several requests"),
        (b"x", "text/plain", 415,
         "send multipart/form-data with files, application/json with base64, or one image as image/*"),
        (b"", "image/png", 400, "no image in the request; send one or more"),
        (b"x", "multipart/form-data", 400, "multipart/form-data without a boundary; name it in Content-Type"),
        (b"x", "multipart/form-data; boundary=e", 400,
         "the body is no multipart/form-data; send it as its Content-Type says"),
        (FILE % (b"a", b"x"), "multipart/form-data; boundary=e", 400,
         "the body ends before its last boundary; send all of it"),
    ],
)  # fmt: skip
def test_what_is_no_image_is_refused(body: bytes, kind: str, status: int, reason: str) -> None:
    assert refusal(lambda: split(bytearray(body), kind, LIMITS)) == (status, reason)


def test_images_of_every_kind_of_body() -> None:
    def taken(body: bytes, kind: str) -> list[tuple[str, bytes]]:
        return [(upload.name, upload.data) for upload in split(bytearray(body), kind, LIMITS)]

    assert taken(b"x", "image/png") == taken(b"x", "application/octet-stream") == [("0", b"x")]
    assert taken(as_json(b"x", b"y"), "application/json") == [("0", b"x"), ("1", b"y")]
    url = b'{"images": ["data:image/png;base64,eA=="]}'
    assert taken(url, "application/json; charset=utf-8") == [("0", b"x")]
    field = b'--e\r\nContent-Disposition: form-data; name="note"\r\nX-Other: y\r\n\r\nhello\r\n'
    body = field + FILE % (b"a.png", b"x") + FILE % (b"", b"y") + b"--e--\r\n"
    assert taken(body, "multipart/form-data; boundary=e") == [("a.png", b"x"), ("1", b"y")]
    long = FILE % (b"n" * 300, b"x") + b"--e--\r\n"
    assert [name for name, _ in taken(long, "multipart/form-data; boundary=e")] == ["n" * 200]
    no_text = FILE % (b"caf\xe9.png", b"x") + b"--e--\r\n"
    assert taken(no_text, "multipart/form-data; boundary=e") == [("caf\ufffd.png", b"x")]


# ---------------------------------------------------------------------- answers


@pytest.fixture
def service(colour_bundle: Callable[..., Any]) -> Iterator[Service]:
    made = Service(colour_bundle(), Settings(limits=LIMITS, decoders=1))
    yield made
    made.close()


def ask(service: Service, body: bytes, kind: str = "application/json", **headers: str) -> dict[str, Any]:
    given = {b"content-type": kind.encode(), b"content-length": str(len(body)).encode()}
    given |= {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return asyncio.run(service.answer(receiver(parts(body)), given))


def test_each_image_has_its_answer_or_its_reason(service: Service) -> None:
    answer = ask(service, as_json(png((255, 0, 0)), b"broken", png((0, 0, 255))))
    red, broken, blue = answer["predictions"]
    assert answer["bundle"] == "colours"
    assert answer["classes"] == ["red", "green", "blue"]
    assert (red["name"], red["label"], blue["name"], blue["label"]) == ("0", "red", "2", "blue")
    assert set(broken) == {"name", "error"}
    assert broken["name"] == "1"
    assert broken["error"].startswith("1: is no image of a known format")
    for one in (red, blue):
        assert sum(one["proba"]) == pytest.approx(1, abs=1e-5)
        assert one["confidence"] == max(one["proba"])
        assert one["proba"] == [round(value, 7) for value in one["proba"]]
    assert (service.buffer.held, service._batcher.waiting) == (0, 0)


def test_a_body_of_no_kind_is_refused_like_one_of_an_unknown_kind(service: Service) -> None:
    bare = service.answer(receiver(parts(b"x")), {b"content-length": b"1"})
    assert refusal(bare)[0] == 415
    assert service.buffer.held == 0


def test_the_model_has_its_own_words_for_the_same_pixels(service: Service) -> None:
    pixels = np.full((1, 8, 8, 3), (255, 0, 0), np.uint8)
    expected = service.bundle.predict_pixels(pixels)[0]
    got = ask(service, png((255, 0, 0)), "image/png")["predictions"][0]["proba"]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_what_cannot_be_answered_is_refused_and_leaves_nothing_waiting(service: Service) -> None:
    with pytest.raises(Refusal, match="compressed bodies are not read; send it as it is") as caught:
        ask(service, png(), "image/png", content_encoding="gzip")
    assert caught.value.status == 415
    with pytest.raises(Refusal, match="no image can be read: 0: ") as caught:
        ask(service, b"x", "image/png")
    assert caught.value.status == 422
    with pytest.raises(Refusal, match="0: has 32 x 32 pixels; at most 1000 are read"):
        ask(service, png(side=32), "image/png")
    assert (
        ask(service, png(side=31), "image/png", content_encoding="Identity")["predictions"][0]["label"]
        == "red"
    )
    assert (service.buffer.held, service._batcher.waiting) == (0, 0)


def test_more_images_than_may_wait_are_told_to_come_again(service: Service) -> None:
    service._batcher.reserve(4)
    with pytest.raises(Refusal, match="too many images are waiting; try again later") as caught:
        ask(service, png(), "image/png")
    assert caught.value.status == 429
    assert (service.buffer.held, service._batcher.waiting) == (0, 4)
    service._batcher.give_back(4)
    assert len(ask(service, png(), "image/png")["predictions"]) == 1


def test_a_length_that_is_no_number_is_no_length(service: Service) -> None:
    assert len(ask(service, png(), "image/png", content_length="many")["predictions"]) == 1
    with pytest.raises(Refusal, match="the body is larger than 2000 bytes"):
        ask(service, png(), "image/png", content_length="9" * 5000)


def test_images_and_batches_are_counted(service: Service) -> None:
    service.warm_up()
    ask(service, as_json(png(), b"broken", png()))
    text = service.counters.text()
    assert "ensembler_images_total 2\n" in text
    assert "ensembler_unreadable_images_total 1\n" in text


# ---------------------------------------------------------------------- the application


def call(
    app: Any, method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """One request through the application, as a server would make it."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
        "raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http",
        "server": ("127.0.0.1", 1), "client": ("127.0.0.1", 2),
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    messages = [GONE] if body == b"gone" else parts(body)
    asyncio.run(app(scope, receiver(messages), send))
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent[1:])


def test_routes_answer_and_count(colour_bundle: Callable[..., Any]) -> None:
    app = create_app(colour_bundle(), "# Card\n", Settings(limits=LIMITS))
    assert call(app, "GET", "/health")[::2] == (200, b'{"status":"ok"}')
    assert call(app, "GET", "/ready")[::2] == (503, b'{"status":"not ready"}')  # its lifespan has not begun
    status, _, text = call(app, "POST", "/predict", png(), content_type="image/png")
    assert (status, json.loads(text)["predictions"][0]["label"]) == (200, "red")
    status, headers, text = call(app, "POST", "/predict", b"[", content_type="application/json")
    assert (status, json.loads(text)["detail"].split(";")[0]) == (400, "the body is no JSON")
    assert "retry-after" not in headers
    assert call(app, "POST", "/predict", b"gone")[0] == 400
    text = call(app, "GET", "/metrics")[2]
    assert b'ensembler_requests_total{path="/predict",status="200"} 1\n' in text
    assert b'ensembler_requests_total{path="/predict",status="400"} 2\n' in text
    assert call(app, "GET", "/nowhere")[0] == 404
    assert b'ensembler_requests_total{path="other",status="404"} 1\n' in call(app, "GET", "/metrics")[2]
    assert call(app, "GET", "/card", accept="text/markdown")[2] == b"# Card\n"
    assert b"<h1>Card</h1>" in call(app, "GET", "/card")[2]
    assert call(app, "GET", "/docs")[2] == call(app, "GET", "/")[2] != b""


def test_overload_says_when_to_come_again(colour_bundle: Callable[..., Any]) -> None:
    app = create_app(colour_bundle(), "", Settings(limits=Limits(waiting=0)))
    status, headers, _ = call(app, "POST", "/predict", png(), content_type="image/png")
    assert (status, headers["retry-after"]) == (429, "1")


@pytest.mark.parametrize(
    ("shown", "status"),
    [
        (None, 401), ("", 401), ("Bearer", 401), ("Bearer wrong-wrong-wrong-", 401), ("Basic 0123456789abcdef", 401),
        ("Bearer 0123456789abcdefx", 401), ("Bearer 0123456789abcdef", 200), ("bearer  0123456789abcdef ", 200),
    ],
)  # fmt: skip
def test_the_token_opens_and_nothing_else_does(
    shown: str | None, status: int, colour_bundle: Callable[..., Any]
) -> None:
    app = create_app(colour_bundle(), "", Settings(token="0123456789abcdef", limits=LIMITS))
    headers = {} if shown is None else {"authorization": shown}
    got, answered, text = call(app, "POST", "/predict", png(), content_type="image/png", **headers)
    assert got == status
    if status == 401:
        assert answered["www-authenticate"] == "Bearer"
        assert json.loads(text) == {"detail": "a token is needed: Authorization: Bearer ..."}
    assert call(app, "GET", "/health")[0] == 200
    assert call(app, "GET", "/ready")[0] == 503


def test_the_application_is_ready_while_it_lives(colour_bundle: Callable[..., Any]) -> None:
    bundle = colour_bundle()
    app = create_app(bundle, "", Settings(limits=LIMITS))

    async def live() -> None:
        async with app.router.lifespan_context(app):
            assert app.state.ready
        assert not app.state.ready

    asyncio.run(live())
    assert bundle.batches == [1]  # warmed up


def test_a_server_starts_and_ends_it_past_the_token(colour_bundle: Callable[..., Any]) -> None:
    app = create_app(colour_bundle(), "", Settings(token="0123456789abcdef", limits=LIMITS))
    sent: list[str] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message["type"])

    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    asyncio.run(app({"type": "lifespan", "asgi": {"version": "3.0"}}, receiver(messages), send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_memory_that_the_system_does_not_tell_is_0(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resident_bytes() > 1e6

    def absent(*_: object, **__: object) -> Any:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", absent)
    assert resident_bytes() == 0
