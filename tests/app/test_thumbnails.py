"""Pictures come from the run's own table, whatever lies behind its paths."""

import base64
import io
import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ensembler.app import thumbnails as module
from ensembler.app.gallery import Card, grid_html
from ensembler.app.reading import view
from ensembler.app.thumbnails import Thumbnail, has_images, thumbnails
from ensembler.figures import votes_frame
from ensembler.predictions import Predictions

SCRIPT = "<script>alert(1)</script>.png"
NEWLINE = "two\nlines.png"
BACKWARDS = "\u202egnp.evil.png"
NOTHING = votes_frame(Predictions.from_arrays([[0.9, 0.1]], [0], [0]), [])


@pytest.fixture
def photos(trained, tmp_path):
    """Puts files behind the first rows of the run: `photos(a, b, ...)` by path."""

    def photos_(*paths):
        table = trained.table()
        table.loc[: len(paths) - 1, "path"] = [str(p) for p in paths]
        trained.write_table(table)
        return view(trained)

    return photos_


@pytest.fixture
def picture(tmp_path):
    def picture_(name, size=(400, 300), colour="red", **options):
        Image.new("RGB", size, colour).save(tmp_path / name, **options)
        return tmp_path / name

    return picture_


def opened(thumbnail):
    head, data = thumbnail.uri.split(",")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert head == f"data:image/{image.format.lower()};base64"
    return image


def test_a_picture_is_small_upright_and_in_its_own_proportions(photos, picture):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "secret"
    run = photos(picture("a.jpg"), picture("turned.jpg", exif=exif), picture("tiny.png", (8, 8), "blue"))
    wide, tall, tiny = (opened(t) for t in thumbnails(run, [0, 1, 2]))
    assert wide.size == (320, 240)
    assert tall.size == (240, 320)
    assert not tall.getexif()
    assert (tiny.size, tiny.format, tiny.convert("RGB").getpixel((0, 0))) == ((8, 8), "PNG", (0, 0, 255))


@pytest.mark.parametrize("name", [SCRIPT.replace("/", "\u2215"), NEWLINE, BACKWARDS])
def test_any_name_is_shown_as_one_line_of_text(name, photos, picture):
    run = photos(picture(name), f"/gone/{name}")
    there, gone = thumbnails(run, [0, 1])
    assert opened(there).size == (320, 240)
    assert gone.uri == ""
    assert gone.note.isprintable()
    html = grid_html([Card(0, name, name, (name,)), Card(1, name, name, (name,))], [there, gone], NOTHING)
    assert "<script" not in html
    assert "\n" not in html
    assert "\u202e" not in html
    assert html.count("<img ") == 1
    assert "No picture." in html


def test_what_is_no_picture_says_why(photos, picture, tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("root:x:0:0")
    (tmp_path / "cut.jpg").write_bytes(picture("whole.jpg", (900, 900)).read_bytes()[:3000])
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "folder.png").symlink_to(tmp_path)
    names = ["empty.png", "text.png", "cut.jpg", "pipe.png", "loop.png", "folder.png", "gone.png"]
    run = photos(*[tmp_path / name for name in names], "/with\0zero.png", "relative.png")
    found = thumbnails(run, range(9))
    assert [t.uri for t in found] == [""] * 9
    empty, text, cut, pipe, loop, folder, gone, zero, relative = [t.note for t in found]
    assert empty == "empty.png: is empty"
    assert text.startswith("text.png: is no image of a known format")
    assert cut.startswith("cut.jpg: image file is truncated")
    assert pipe == "pipe.png: is no file"
    assert loop == "loop.png: Too many levels of symbolic links"
    assert folder == "folder.png: is no file"
    assert gone == "gone.png: the file is missing; it was moved, renamed or deleted"
    assert "null byte" in zero
    assert relative.startswith("relative.png: the run's table does not say in which folder")


def test_a_link_is_followed_as_in_training(photos, picture, tmp_path):
    (tmp_path / "link.png").symlink_to(picture("real.jpg"))
    assert opened(*thumbnails(photos(tmp_path / "link.png"), [0])).size == (320, 240)


def test_large_files_and_bombs_are_refused_before_they_are_unpacked(photos, picture, tmp_path, monkeypatch):
    (tmp_path / "bomb.pgm").write_bytes(b"P5 60000 60000 255\n")
    monkeypatch.setattr(module, "MAX_BYTES", 2000)
    monkeypatch.setattr(module, "MAX_PIXELS", 40_000)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8))
    noise.save(tmp_path / "noise.png")
    run = photos(tmp_path / "bomb.pgm", picture("many.gif", (300, 200)), tmp_path / "noise.png")
    bomb, many, noise = (t.note for t in thumbnails(run, [0, 1, 2]))
    assert "decompression bomb" in bomb
    assert many == "many.gif: is too large: 300 x 200 pixels; at most 40,000 pixels are shown"
    assert noise.startswith("noise.png: has 0 MB; at most 0 MB are read")


def test_only_the_rows_of_the_table_have_pictures_and_test_rows_are_not_among_them(photos, picture, trained):
    run = photos(picture("a.png", colour="red"), picture("b.png", colour="blue"))
    table = trained.table()
    trained.write_table(pd.concat([table.iloc[:1].assign(split="test", id="t", fold=-1), table.iloc[1:]]))
    run = view(trained)
    red, _, blue = opened(thumbnails(run, [0])[0]).convert("RGB").getpixel((5, 5))
    assert blue > 200 > red, "the first out-of-fold row is the table's second"
    for row in (len(table) - 1, -1):
        (outside,) = thumbnails(run, [row])
        assert outside.uri == ""
        assert "not in the run's table" in outside.note


def test_a_picture_that_comes_back_is_shown_and_one_that_was_shown_is_not_read_again(
    photos, picture, tmp_path
):
    run = photos(tmp_path / "late.png")
    assert thumbnails(run, [0])[0].uri == ""
    picture("late.png")
    (there,) = thumbnails(run, [0])
    assert there.uri
    (tmp_path / "late.png").unlink()
    assert thumbnails(run, [0]) == [there]


def test_a_missing_file_is_replaced_by_the_copy_that_the_models_saw(photos, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("ENSEMBLER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "pixels").mkdir(parents=True)
    n = len(trained.table())
    pixels = np.zeros((n, 32, 32, 3), np.uint8)
    pixels[1] = (0, 255, 0)
    name = f"pixels-32-{'a' * 40}.npy"
    np.save(tmp_path / "cache" / "pixels" / name, pixels)
    trained.update_manifest(pixels={"oof": name})
    run = photos("/gone/0.png", "/gone/1.png")
    (copy,) = thumbnails(run, [1])
    assert opened(copy).convert("RGB").getpixel((3, 3)) == (0, 255, 0)
    assert copy.note == (
        "1.png: the file is missing; it was moved, renamed or deleted; this is the square copy that the models were "
        "trained on"
    )
    np.save(tmp_path / "cache" / "pixels" / name, pixels[:-1])  # of other rows
    assert thumbnails(run, [0])[0].uri == ""


@pytest.mark.parametrize("named", ["../../secret.npy", "/etc/passwd", "secret.npy", None, 3])
def test_the_manifest_can_name_no_other_file(named, photos, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("ENSEMBLER_CACHE", str(tmp_path / "a"))
    (tmp_path / "a" / "pixels").mkdir(parents=True)
    pixels = np.zeros((len(trained.table()), 32, 32, 3), np.uint8)
    for folder in (tmp_path, tmp_path / "a" / "pixels"):
        np.save(folder / "secret.npy", pixels)
    trained.update_manifest(pixels={"oof": named} if named != 3 else 3)
    assert thumbnails(photos("/gone/0.png"), [0])[0].uri == ""


def test_a_run_of_predictions_alone_has_no_images(bare):
    assert not has_images(view(bare))


# ---------------------------------------------------------------------- the cards


def test_cards_are_numbered_and_carry_the_votes():
    predictions = Predictions.from_arrays(
        [[[0.9, 0.1], [0.2, 0.8]], [[0.3, 0.7], [0.4, 0.6]]],
        [0, 1],
        [0, 1],
        members=["<b>one</b>", "two"],
        classes=["x", "y&z"],
    )
    cards = [Card(1, "b.png", "y&z", ("first line",)), Card(0, "a.png", "x", (), "agree")]
    html = grid_html(
        cards,
        [Thumbnail("data:image/png;base64,AA=="), Thumbnail("", "gone")],
        votes_frame(predictions, [1, 0]),
        25,
    )
    assert html.index("25. ") < html.index("26. ")
    assert '<summary style="cursor:pointer">2 of 2 models right</summary>' in html
    assert "1 of 2 models agree</summary>" in html
    assert "✗ <bdi>two</bdi>: <b><bdi>y&amp;z</bdi></b> 70%" in html
    assert "<b>one</b>" not in html
    assert "image-rendering:pixelated" in html
    assert "<img" not in grid_html(cards, None, NOTHING)
