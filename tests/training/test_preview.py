"""Pictures of augmentation: drawn by the code that trains, from plain values, whole or absent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensembler.data.decode import load_pixels
from ensembler.errors import DataError
from ensembler.training.preview import INDEX, MOST_IMAGES, augmented, main, write_previews
from ensembler.training.recipe import Recipe

PLAIN = Recipe(augment=0.0, flip=False)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    made = []
    for i in range(3):
        file = tmp_path / f"{i}.png"
        ramp = np.linspace(0, 255, 40 * 30).reshape(30, 40)
        Image.fromarray(np.stack([ramp, 255 - ramp, np.full_like(ramp, 80 * i)], 2).astype(np.uint8)).save(
            file
        )
        made.append(file)
    return made


def test_without_augmentation_every_draw_is_the_plain_image(files: list[Path]) -> None:
    pixels = np.stack([load_pixels(file, 24) for file in files])
    seen = augmented(pixels, "test_resnet", PLAIN, 2)
    assert seen.shape == (2, 3, 24, 24, 3)
    assert seen.dtype == np.uint8
    assert (seen == pixels).all(), "normalised and taken back to the bit"


def test_augmentation_changes_images_draw_by_draw_and_a_seed_repeats_them(files: list[Path]) -> None:
    pixels = np.stack([load_pixels(file, 24) for file in files])
    first, second = augmented(pixels, "test_resnet", Recipe(), 2)
    assert (first != pixels).any(axis=(1, 2, 3)).all()
    assert (first != second).any(axis=(1, 2, 3)).all()
    assert (augmented(pixels, "test_resnet", Recipe(), 2)[1] == second).all()
    assert (augmented(pixels, "test_resnet", Recipe(), 2, seed=1)[0] != first).any()


def test_mixing_shows_what_it_mixes(files: list[Path]) -> None:
    pixels = np.zeros((4, 16, 16, 3), np.uint8)
    pixels[2:] = 255
    mixed = augmented(pixels, "test_resnet", Recipe(augment=0.0, flip=False, mixup=5.0), 6)
    assert ((mixed > 30) & (mixed < 225)).any(), "greys that no image has by itself"


def test_the_folder_holds_the_plain_image_and_its_draws(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    asked = [files[0], tmp_path / "broken.png", files[1], tmp_path / "gone.png", tmp_path]
    write_previews(tmp_path / "out", asked, "test_resnet", Recipe(), 24, draws=2)
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    assert index["shown"] == [0, 2]
    assert index["draws"] == 2
    assert set(index["unreadable"]) == {"1", "3", "4"}
    assert "no image of a known format" in index["unreadable"]["1"]
    assert sorted(p.name for p in (tmp_path / "out").glob("*.png")) == [
        f"{i}-{draw}.png" for i in (0, 2) for draw in (0, 1, 2)
    ]
    assert (np.asarray(Image.open(tmp_path / "out" / "2-0.png")) == load_pixels(files[1], 24)).all()


def test_nothing_is_written_where_no_image_can_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of the 1 images can be read"):
        write_previews(tmp_path / "out", [tmp_path / "gone.png"], "test_resnet", PLAIN, 24)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--recipe={"], "expected hyperparameters as a JSON object"),
        (['--recipe={"lrr": 1}'], "lrr"),
        (['--recipe={"policy": "none"}'], "unknown policy"),
        (["--recipe={}", "--draws=99"], "99 draws"),
        (["--recipe={}", "--backbone=nosuchnet"], "nosuchnet"),
    ],
)
def test_what_cannot_be_drawn_is_told_in_a_line(
    files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    arguments = [
        "--backbone=test_resnet",
        *options,
        "--size=16",
        f"--output={tmp_path / 'out'}",
        str(files[0]),
    ]
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert said in told
    assert not (tmp_path / "out").exists()


def test_too_many_images_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--backbone=test_resnet", "--recipe={}", "--size=16", f"--output={tmp_path / 'out'}"]
    assert main([*arguments, *["x.png"] * (MOST_IMAGES + 1)]) == 2
    assert "at most" in capsys.readouterr().err


def test_the_command_runs_by_itself(files: list[Path], tmp_path: Path) -> None:
    arguments = ["--backbone=test_resnet", '--recipe={"flip": false}', "--size=16", "--draws=1"]
    done = subprocess.run(
        [sys.executable, "-m", "ensembler.training.preview", *arguments, f"--output={tmp_path / 'out'}", "--",
         str(files[0])],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out" / "0-1.png").is_file()
