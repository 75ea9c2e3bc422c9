"""Every way an image can be stored gives the pixels a person sees, or an error that names it."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensembler.data import decode as module
from ensembler.data.decode import decode, load_pixels, preview, resize
from ensembler.errors import UnreadableImageError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)

# Four corners that tell every rotation and mirroring apart.
UPRIGHT = np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8).repeat(8, axis=0).repeat(16, axis=1)

# How a camera stores the upright picture under each orientation tag.
STORED = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.transpose(1, 0, 2),
    6: np.rot90(UPRIGHT, 1),
    7: np.rot90(UPRIGHT, 2).transpose(1, 0, 2),
    8: np.rot90(UPRIGHT, -1),
}


def saved(image: Image.Image, suffix: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, suffix, **options)
    return buffer.getvalue()


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("suffix", ["jpeg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied_once(suffix: str, orientation: int) -> None:
    options = {"quality": 100} if suffix == "jpeg" else {"lossless": True} if suffix == "webp" else {}
    picture = Image.fromarray(np.ascontiguousarray(STORED[orientation]))
    pixels = decode(saved(picture, suffix, exif=oriented(orientation), **options))
    assert pixels.shape == UPRIGHT.shape
    # JPEG blurs colour around the edges between corners, not within them.
    np.testing.assert_allclose(pixels[2:6, 4:12], UPRIGHT[2:6, 4:12], atol=6)
    np.testing.assert_allclose(pixels[10:14, 20:28], UPRIGHT[10:14, 20:28], atol=6)
    np.testing.assert_allclose(pixels[2:6, 20:28], UPRIGHT[2:6, 20:28], atol=6)


@pytest.mark.parametrize(
    "exif", [oriented(9).tobytes(), b"Exif\x00\x00MM\x00\x2a\x00\x00\xff\xff", b"Exif\x00\x00junk"]
)
def test_senseless_exif_leaves_the_picture_as_stored(exif: bytes) -> None:
    np.testing.assert_array_equal(decode(saved(Image.fromarray(UPRIGHT), "png", exif=exif)), UPRIGHT)


def test_known_pixels_of_every_8_bit_mode() -> None:
    grey = Image.fromarray(np.array([[0, 100], [200, 255]], np.uint8))
    expected = np.array([[0, 100], [200, 255]], np.uint8)[..., None].repeat(3, axis=2)
    np.testing.assert_array_equal(decode(saved(grey, "png")), expected)
    np.testing.assert_array_equal(decode(saved(grey.convert("P"), "gif")), expected)
    bits = Image.fromarray(np.array([[True, False]]))
    assert decode(saved(bits, "png"))[0].tolist() == [[255] * 3, [0] * 3]
    cyan = decode(saved(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "jpeg", quality=100))
    np.testing.assert_allclose(cyan, np.broadcast_to([0, 255, 255], (8, 8, 3)), atol=3)


def test_transparency_is_laid_over_white() -> None:
    rgba = np.array([[[255, 0, 0, 255], [0, 0, 0, 0], [0, 0, 0, 128]]], np.uint8)
    assert decode(saved(Image.fromarray(rgba), "png"))[0].tolist() == [[255, 0, 0], [255] * 3, [127] * 3]
    grey = Image.fromarray(np.array([[[10, 255], [10, 0]]], np.uint8), "LA")
    assert decode(saved(grey, "png"))[0].tolist() == [[10] * 3, [255] * 3]


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])], ids=["one index", "alpha a colour"])
def test_transparent_palette_colour_becomes_white(transparency: int | bytes) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    pixels = decode(saved(image, "png", transparency=transparency))
    assert pixels[0].tolist() == [list(RED), list(WHITE)]


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    deep = np.array([[0, 257, 25700, 65535]], np.uint16)
    expected = [0, 1, 100, 255]
    for suffix in ("png", "tiff"):
        pixels = decode(saved(Image.fromarray(deep), suffix))
        assert pixels[0, :, 0].tolist() == expected
        assert (pixels == pixels[..., :1]).all()
    big_endian = b"P5 4 1 65535\n" + deep.astype(">u2").tobytes()
    assert decode(big_endian)[0, :, 0].tolist() == expected
    wide = Image.fromarray(deep.astype(np.int32))
    assert decode(wide)[0, :, 0].tolist() == expected


def test_a_dark_sixteen_bit_image_stays_dark() -> None:
    assert decode(Image.fromarray(np.full((2, 2), 514, np.uint16))).max() == 2


def test_transparent_grey_of_sixteen_bits_becomes_white() -> None:
    data = saved(Image.fromarray(np.array([[0, 25700]], np.uint16)), "png", transparency=0)
    assert decode(data)[0, :, 0].tolist() == [255, 100]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([0.0, 25700.0, 65535.0], [0, 100, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([-3.0, -3.0, -3.0], [0, 0, 0]),
    ],
)
def test_float_images_are_scaled_by_their_full_scale(values: list[float], expected: list[int]) -> None:
    data = saved(Image.fromarray(np.array([values], np.float32)), "tiff")
    assert decode(data)[0, :, 0].tolist() == expected


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE)]
    data = saved(frames[0], "gif", save_all=True, append_images=frames[1:])
    assert decode(data)[0, 0].tolist() == list(RED)


# ---------------------------------------------------------------------- what does not decode


def photograph(size: int = 64) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    return Image.fromarray(noise)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "is empty"),
        (b"<html>not found</html>", "is no image of a known format"),
        (saved(photograph(), "jpeg")[:2000], "truncated"),
        (saved(photograph(), "png")[:2000], "truncated"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n", "is no image of a known format"),
        (saved(Image.fromarray(np.full((2, 2), np.nan, np.float32)), "tiff"), "not finite"),
    ],
    ids=["empty", "html", "cut jpeg", "cut png", "postscript", "nan"],
)
def test_unreadable_files_are_named_with_their_cause(data: bytes, cause: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(data)
    with pytest.raises(UnreadableImageError, match=cause) as caught:
        decode(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match=r"gone\.png: No such file"):
        load_pixels(tmp_path / "gone.png", 8)


def test_bytes_are_named_by_the_caller() -> None:
    with pytest.raises(UnreadableImageError, match=r"^upload\.png: is empty"):
        load_pixels(b"", 8, name="upload.png")


def test_other_types_are_a_bug_of_the_caller() -> None:
    with pytest.raises(TypeError, match="expected a Path"):
        decode("a/path.png")  # type: ignore[arg-type]


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PIXELS", 100)
    with pytest.raises(UnreadableImageError, match="16 x 16 pixels; at most 100"):
        decode(saved(photograph(16), "png"))
    huge = b"P5 60000 60000 255\n"  # a header alone; Pillow's own limit
    with pytest.raises(UnreadableImageError, match="decompression bomb"):
        decode(huge)


def test_pillow_warnings_stay_inside_even_with_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", 3000
    )  # 64 x 64 is above it, and below twice as much: a warning
    data = saved(photograph(), "png")
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        shapes = {pixels.shape for pixels in pool.map(decode, [data] * 64)}
    assert shapes == {(64, 64, 3)}
    assert list(warnings.filters) == before
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(io.BytesIO(data))


# ---------------------------------------------------------------------- size


def test_the_whole_picture_is_squashed_into_the_square() -> None:
    pixels = resize(UPRIGHT, 8)
    assert pixels.shape == (8, 8, 3)
    assert [pixels[y, x].tolist() for y, x in ((0, 0), (0, 7), (7, 0), (7, 7))] == [
        list(c) for c in (RED, GREEN, BLUE, WHITE)
    ]


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.ptp(resize(stripes, 48).astype(int)) <= 12  # of 255


def test_one_way_to_the_pixels(tmp_path: Path) -> None:
    image = photograph(300)
    path = tmp_path / "a.jpg"
    image.save(path)
    expected = resize(decode(path), 32)
    for source in (path, path.read_bytes(), Image.open(path)):
        np.testing.assert_array_equal(load_pixels(source, 32), expected)
    assert expected.flags.writeable


def test_a_preview_keeps_the_proportions_and_is_decoded_like_everything_else(tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    Image.new("RGB", (400, 100), (200, 10, 10)).save(path, pnginfo=None)
    for source in (path, path.read_bytes()):
        assert preview(source, 100).size == (100, 25)
    assert preview(path, 100).getpixel((50, 12)) == (200, 10, 10)
    assert preview(path, 1000).size == (400, 100), "never enlarged"


def test_a_preview_of_a_photograph_is_upright_and_carries_no_metadata() -> None:
    stored = Image.fromarray(STORED[6]).resize((640, 1280), Image.Resampling.NEAREST)
    small = preview(saved(stored, "jpeg", quality=95, exif=oriented(6), comment=b"secret"), 64)
    assert small.size == (64, 32)
    for at, colour in (((8, 8), RED), ((56, 8), GREEN), ((8, 24), BLUE), ((56, 24), WHITE)):
        assert np.abs(np.subtract(small.getpixel(at), colour)).max() < 8
    assert small.info == {}


def test_a_preview_refuses_by_the_header() -> None:
    with pytest.raises(UnreadableImageError, match=r"^it: is too large: 16 x 16 pixels; at most 200 pixels"):
        preview(saved(photograph(16), "png"), 8, max_pixels=200, name="it")
    with pytest.raises(UnreadableImageError, match="decompression bomb"):
        preview(b"P5 60000 60000 255\n", 8)
    with pytest.raises(UnreadableImageError, match="is empty"):
        preview(b"", 8)


def test_decoding_needs_neither_pandas_nor_scikit_learn_nor_torch() -> None:
    code = (
        "import sys, ensembler.data.decode;"
        "print(sorted({'pandas', 'sklearn', 'torch', 'torchvision', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
