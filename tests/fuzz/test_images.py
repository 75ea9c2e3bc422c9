"""Images: whatever the bytes of a file are, they become pixels or an error that names the file."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from ensembler.bundle.uploads import Limits, Upload, decode_upload
from ensembler.data import decode as decoder
from ensembler.data.decode import decode, header, header_size, load_pixels, preview

from .choices import Choices, damaged, one_in, pick
from .target import CASES, Target

#: Beyond so many pixels an image is a bomb, in these tests: a case has to take a millisecond.
MAX_PIXELS = 1 << 18

#: Side to which images are brought.
SIDE = 16

#: Numbers that stand in headers where sizes, counts and offsets stand.
NUMBERS = (0, 1, 2, 3, 7, 8, 16, 255, 256, 511, 512, 65535, 65536, 1 << 24, (1 << 31) - 1, 1 << 31,
(1 << 32) - 1)  # fmt: skip


def _saved(mode: str, kind: str, size: tuple[int, int] = (13, 9), **how: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), np.uint8)
    deep = {"I;16": np.uint16, "I": np.int32, "F": np.float32}.get(mode)
    image = (
        Image.fromarray(pixels[..., 0].astype(deep))
        if deep
        else Image.fromarray(pixels, "RGBA").convert(mode)
    )
    stream = io.BytesIO()
    image.save(stream, kind, **how)
    return stream.getvalue()


def _seeds() -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta/>", zip=True)

    def several() -> dict[str, Any]:
        return {"save_all": True, "append_images": [Image.new("RGB", (13, 9), "red")]}

    return [
        _saved("RGB", "PNG", pnginfo=text), _saved("RGBA", "PNG"), _saved("P", "PNG", transparency=3), _saved("1",
        "PNG"),
        _saved("I;16", "PNG"), _saved("LA", "PNG"), _saved("RGB", "PNG", **several()), _saved("RGB", "JPEG",
        exif=exif),
        _saved("RGB", "JPEG", progressive=True), _saved("CMYK", "JPEG"), _saved("L", "JPEG"), _saved("RGB", "MPO",
        **several()),
        _saved("P", "GIF"), _saved("P", "GIF", **several()), _saved("RGB", "BMP"), _saved("P", "BMP"), _saved("RGB",
        "WEBP"),
        _saved("RGBA", "WEBP", lossless=True), _saved("RGB", "WEBP", **several()), _saved("RGB", "TIFF"),
        _saved("RGB", "TIFF", compression="tiff_lzw"), _saved("RGB", "TIFF", compression="tiff_deflate"),
        _saved("1", "TIFF", compression="group4"), _saved("RGB", "TIFF", compression="jpeg"), _saved("I;16", "TIFF"),
        _saved("F", "TIFF"), _saved("RGB", "TIFF", **several()), _saved("RGB", "PPM"), _saved("L", "PPM"),
        _saved("1", "PPM"),
        # formats in disguise: none of these may be opened by its own plugin
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(secret) run showpage\n%%EOF\n",
        b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', b"%PDF-1.7\n%%EOF\n",
        b"8BPS\0\1" + bytes(60), b"\0\0\1\0\1\0" + bytes(30), b"MM\0*\0\0\0\x08\0\0", b"", b"\0",
        b"push graphic-context\n",
    ]  # fmt: skip


def prepare(inside: Path) -> list[bytes]:
    """Images of every format, a few hundred bytes each."""
    return _seeds()


def generate(choices: Choices, seeds: list[bytes]) -> bytes:
    """A file that begins as an image of some format and then has numbers changed, parts lost, another image's parts."""
    data = bytearray(pick(choices, seeds))
    for _ in range(choices.whole(0, 3)):
        at = choices.whole(0, max(0, min(len(data), 300) - 1))
        if one_in(choices, 2):
            width, order = pick(choices, ("B", "H", "I")), pick(choices, "<>")
            number = pick(choices, NUMBERS) & (1 << 8 * struct.calcsize(width)) - 1
            data[at : at + struct.calcsize(width)] = struct.pack(order + width, number)
        elif one_in(choices, 2):
            other = pick(choices, seeds)
            data[at : at + choices.whole(0, 64)] = other[choices.whole(0, len(other)) :]
    content = damaged(choices, bytes(data)) if one_in(choices, 2) else bytes(data)
    return _checked(content) if one_in(choices, 2) else content


def _checked(data: bytes) -> bytes:
    """A PNG file with checksums that fit, so that damage gets past them."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    out, at = data[:8], 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        body = data[at + 4 : at + 8 + length]
        out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return out


def run(case: bytes, shared: Any, inside: Path) -> object:
    """Everything that reads images, on one file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "MAX_PIXELS", MAX_PIXELS)
        return _read(case, inside)


def _read(case: bytes, inside: Path) -> object:
    file = inside / "image.png"
    file.write_bytes(case)
    limits = Limits(pixels=MAX_PIXELS)
    answer = decode_upload(Upload("image.png", case), SIDE, limits)
    try:
        pixels = load_pixels(file, SIDE)
    except Exception:
        assert isinstance(answer, str)
        raise
    assert isinstance(answer, str) or np.array_equal(answer, pixels)
    assert pixels.shape == (SIDE, SIDE, 3)
    whole = decode(case, name="image.png")
    found = header(file)
    assert whole.ndim == 3
    assert sorted(whole.shape[:2]) == sorted(header_size(file)) == sorted((found.width, found.height))
    return preview(file, 8)


IMAGES = Target("images", prepare, generate, run)


def test_an_image_is_read_or_refused(tmp_path: Path) -> None:
    outcomes = IMAGES.hold(tmp_path)
    assert outcomes.get("accepted", 0) > CASES / 20
    assert len(outcomes) > min(15, CASES / 20), outcomes
