"""From image bytes to RGB pixels: one way for training and for the bundle, so that both see the same bits.

Needs numpy and Pillow alone.
"""

from __future__ import annotations

import errno
import io
import math
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ..errors import UnreadableImageError

#: Raise it whenever the same bytes would give other pixels: caches of the old version are then left alone.
DECODER_VERSION = 1

#: A file may name any size in its header; beyond this one (400 MB of RGB) it is a decompression bomb.
MAX_PIXELS = 1 << 27

#: Pixels that are converted at a time where converting takes more room than the image.
STRIP_PIXELS = 1 << 22

#: Pillow would also open formats that start another program (EPS) or read other files; these do neither.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")

_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")

_EXIF_ORIENTATION = 0x0112

#: Where the first chunk of a PNG file has the bits of a channel.
_PNG_DEPTH = 24

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(source: Path | bytes | Image.Image, *, name: str | None = None) -> NDArray[np.uint8]:
    """The picture as a person sees it.

    EXIF orientation is applied. Transparency is laid over white. Greyscale becomes three equal channels;
    deep greyscale (16-bit, 32-bit, float) is scaled to 8 bits, not clipped. An animation is its first frame.

    Args:
        source: a file, its bytes, or an open Pillow image (left as it is).
        name: what an error calls the image; the path where there is one.

    Returns:
        uint8 (height, width, 3), RGB.

    Raises:
        UnreadableImageError: naming the image and the cause: missing, empty, truncated, no image, too large.
    """
    return np.array(_read_rgb(source, name))


def resize(image: NDArray[np.uint8] | Image.Image, size: int) -> NDArray[np.uint8]:
    """The whole picture in a square, antialiased.

    The sides are squashed rather than cropped: an object that fills a tall photograph keeps its head and its
    feet, and a network learns the mild distortion more easily than it guesses what was cut away.

    Args:
        image: uint8 (height, width, 3), or an RGB Pillow image.
        size: side of the square, in pixels.

    Returns:
        uint8 (size, size, 3).
    """
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    # Halving by box filter down to twice the size first takes less than half the time of a bicubic filter as
    # wide as the photograph, and moves an average pixel by 0.4 of 255 (400 x 533 to 96 x 96).
    return np.array(picture.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=2.0))


def load_pixels(
    source: Path | bytes | Image.Image, size: int, *, name: str | None = None
) -> NDArray[np.uint8]:
    """What every model is fed: `resize(decode(source), size)` to the bit, without the array in between.

    Returns:
        uint8 (size, size, 3), RGB.

    Raises:
        UnreadableImageError: see `decode`.
    """
    return resize(_read_rgb(source, name), size)


def preview(
    source: Path | bytes, side: int, *, max_pixels: int = MAX_PIXELS, name: str | None = None
) -> Image.Image:
    """A small picture for a person, in its own proportions; of a JPEG no more is decoded than it takes.

    Args:
        source: a file or its bytes.
        side: most pixels of the longer side; a smaller picture stays as it is.
        max_pixels: more are refused, by the header, before any is decoded.
        name: see `decode`.

    Returns:
        RGB, without metadata.

    Raises:
        UnreadableImageError: see `decode`.
    """
    shown = name or (str(source) if isinstance(source, Path) else "image")
    try:
        with _QUIET, _open(source) as image:
            if image.width * image.height > max_pixels:
                size = f"{image.width} x {image.height} pixels"
                raise ValueError(f"is too large: {size}; at most {max_pixels:,} pixels are shown")
            image.draft(None, (side, side))
            picture = _to_rgb(_upright(image))
            small = picture.copy() if picture is image else picture
            small.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
            small.info = {}
            return small
    # No narrower class, as in `_read_rgb`.
    except Exception as error:
        raise UnreadableImageError(f"{shown}: {_cause(error)}") from error


def header_size(source: Path | bytes, *, name: str | None = None) -> tuple[int, int]:
    """Width and height in pixels as the file's header has them, before any EXIF rotation; decodes nothing.

    Raises:
        UnreadableImageError: see `decode`; damage behind the header is not seen.
    """
    shown = name or (str(source) if isinstance(source, Path) else "image")
    try:
        with _QUIET, _open(source) as image:
            return image.size
    # No narrower class, as in `_read_rgb`.
    except Exception as error:
        raise UnreadableImageError(f"{shown}: {_cause(error)}") from error


class Header(NamedTuple):
    """What a file says of itself before anything is decoded.

    Attributes:
        format: one of FORMATS.
        width, height: in pixels, before any EXIF rotation.
        mode: Pillow's name of the channels, such as RGB, L, CMYK.
        bits: a channel, 8, 16 or 32.
        animated: whether it holds more than one frame of a moving picture.
    """

    format: str
    width: int
    height: int
    mode: str
    bits: int
    animated: bool


def header(source: Path | bytes, *, name: str | None = None) -> Header:
    """Format, size and channels of an image; decodes nothing.

    Raises:
        UnreadableImageError: see `decode`; damage behind the header is not seen.
    """
    shown = name or (str(source) if isinstance(source, Path) else "image")
    try:
        data = read_plain(source) if isinstance(source, Path) else source
        with _QUIET, _open(data) as image:
            several = image.format == "MPO"  # a JPEG with another view beside it, as some cameras write
            bits = {"I": 32, "F": 32}.get(image.mode, 16 if image.mode in _DEEP_MODES else 8)
            if image.format == "PNG":
                bits = max(bits if image.mode != "I" else 16, data[_PNG_DEPTH])
            return Header(
                "JPEG" if several else str(image.format),
                *image.size,
                image.mode,
                bits,
                bool(getattr(image, "is_animated", False)) and not several,
            )
    # No narrower class, as in `_read_rgb`.
    except Exception as error:
        raise UnreadableImageError(f"{shown}: {_cause(error)}") from error


# ---------------------------------------------------------------------- reading


def open_plain(path: Path) -> io.BufferedReader:
    """A file open for reading; a pipe would keep us waiting for ever, and a device need not end.

    Raises:
        OSError: it cannot be opened, or is no plain file.
    """
    return open(path, "rb", opener=_plain_handle)


def read_plain(path: Path) -> bytes:
    """The content of a file; see `open_plain`."""
    with open_plain(path) as stream:
        return stream.read()


def _plain_handle(path: str, flags: int) -> int:
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise OSError(errno.EINVAL, "is no plain file", path)


def _read_rgb(source: Path | bytes | Image.Image, name: str | None) -> Image.Image:
    if not isinstance(source, Path | bytes | Image.Image):
        raise TypeError(f"source: {type(source).__name__}; expected a Path, bytes or a Pillow image")
    shown = name or (str(source) if isinstance(source, Path) else "image")
    try:
        with _QUIET:
            image = source if isinstance(source, Image.Image) else _open(source)
            return _to_rgb(_upright(image))
    # No narrower class: on damaged bytes Pillow's plugins raise struct, zlib, index, key and syntax errors.
    except Exception as error:
        raise UnreadableImageError(f"{shown}: {_cause(error)}") from error


def _open(source: Path | bytes) -> Image.Image:
    data = read_plain(source) if isinstance(source, Path) else source
    if not data:
        raise ValueError("is empty")
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
    return image


def _cause(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"is no image of a known format ({', '.join(FORMATS)})"
    if isinstance(error, Image.DecompressionBombError):
        return f"is too large, a decompression bomb perhaps: {error}; at most {MAX_PIXELS} pixels are read"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # first: PNG and TIFF know their orientation, and TIFF applies it, only once they are loaded
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    except (
        Exception
    ):  # damaged metadata: any class again; the pixels are whole, so the image is used as stored
        return image
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _DEEP_MODES:
        return _deep_to_8_bit(image).convert("RGB")
    if image.has_transparency_data:
        return _over_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    """Transparency laid over white, strip by strip: at once it would take four times the memory of the result."""
    whole = Image.new("RGB", image.size)
    for top, bottom in _strips(image):
        front = image.crop((0, top, image.width, bottom)).convert("RGBA")
        flat = Image.alpha_composite(Image.new("RGBA", front.size, "white"), front)
        whole.paste(flat.convert("RGB"), (0, top))
    return whole


def _strips(image: Image.Image) -> Iterator[tuple[int, int]]:
    """First row and end of strips of a few megapixels; most images are one."""
    rows = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield top, min(top + rows, image.height)


def _deep_to_8_bit(image: Image.Image) -> Image.Image:
    """Deep greyscale scaled to 8 bits by its full scale, so that images keep their brightness to one another.

    The full scale of integers is 65,535. That of floats is the smallest of 1, 255 and 65,535 that holds all
    values. What fits no full scale (negative or larger values) is stretched from its least to its greatest.
    """
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not math.isfinite(low + high):  # one NaN makes both NaN
        raise ValueError("has values that are not finite")
    full_scales = (1.0, 255.0, 65535.0) if image.mode == "F" else (65535.0,)
    fitting = [scale for scale in full_scales if low >= 0 and high <= scale]
    if fitting:
        low, high = 0.0, fitting[0]
    grey = np.empty(values.shape, np.uint8)
    transparent = image.info.get("transparency")
    for top, bottom in _strips(image):
        part = values[top:bottom].astype(np.float64)
        scaled = np.rint((part - low) * (255.0 / max(high - low, 1e-12))).astype(np.uint8)
        if isinstance(transparent, int):  # PNG marks one grey value as see-through
            scaled[part == transparent] = 255
        grey[top:bottom] = scaled
    return Image.fromarray(grey)


class _PillowWarningsOff:
    """Keeps Pillow's warnings (bombs, odd EXIF, MPO) from the user while any thread decodes.

    Warning filters belong to the process. Were every thread to enter `warnings.catch_warnings` for itself,
    those that leave out of order would restore one another's filters; so the first to come sets them and the
    last to go restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._filters.__exit__(kind, error, trace)


_QUIET = _PillowWarningsOff()
