"""What a run does about copies: refuses leaks, keeps copies in one fold, writes down what it did, minds old runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensembler.comparison import read_groups
from ensembler.errors import DataError, RunMismatchError
from ensembler.experiment import Experiment

CONFIG = (
    "name: x\ndata: {{source: images, image_size: 32{0}}}\nfolds: {{k: 3}}\n"
    "backbones: [{{test_resnet: {{weights: random}}}}]\n"
)


@pytest.fixture
def home(tmp_path: Path, write_images: Callable[..., Path]) -> Path:
    write_images(tmp_path / "images")
    write_images(tmp_path / "held", 9, seed=1)
    return tmp_path


def copy(home: Path, source: str, target: str) -> None:
    Image.open(home / source).save(home / target)


def experiment(home: Path, more: str = "", run: str = "run") -> Experiment:
    (home / "x.yaml").write_text(CONFIG.format(more))
    return Experiment.from_config(home / "x.yaml", home / run)


def prepare(home: Path, more: str = "", run: str = "run") -> Experiment:
    made = experiment(home, more, run)
    made.preparation.prepare(made.preparation.backbones())
    return made


def test_a_run_refuses_leaks_before_anything_is_written(home: Path) -> None:
    copy(home, "images/ant/000.png", "held/bee/x.bmp")
    with pytest.raises(
        DataError, match=r"test/bee/x\.bmp = ant/000\.png \(same picture\).*data\.leaks: drop"
    ):
        experiment(home, ", test: held").run()
    assert not (home / "run" / "manifest.json").exists()


def test_leaks_are_dropped_or_allowed_when_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy(home, "images/ant/000.png", "held/bee/x.bmp")
    dropped = prepare(home, ", test: held, leaks: drop")
    assert "1 test images show what training images show, and are left out" in capsys.readouterr().err
    assert dropped.store.manifest()["test_images"] == 9
    assert dropped.store.manifest()["copies"]["out_of_test"] == ["test/bee/x.bmp"]
    assert len(dropped.images().table.test) == 9 == len(np.load(str(dropped.images().test)))
    allowed = prepare(home, ", test: held, leaks: allow", "other")
    assert allowed.store.manifest()["test_images"] == 10
    assert allowed.store.manifest()["copies"]["leaked"] == ["test/bee/x.bmp"]
    assert "the test score is too good" in capsys.readouterr().err


def test_a_test_split_of_nothing_but_copies_cannot_be_dropped(home: Path) -> None:
    for file in sorted((home / "held").rglob("*.png")):
        file.unlink()
    for name in ("ant", "bee", "cow"):
        first = sorted((home / "images" / name).iterdir())[0]
        copy(home, str(first.relative_to(home)), f"held/{name}/x.bmp")
    with pytest.raises(DataError, match="all 3 test images are training images too"):
        prepare(home, ", test: held, leaks: drop")


def test_a_share_is_drawn_without_leaks(home: Path) -> None:
    for file in sorted((home / "images").glob("*/*.png")):
        copy(home, str(file.relative_to(home)), str(file.with_name(f"{file.stem}-x.bmp").relative_to(home)))
    for n in (0, 1):
        for file in sorted((home / "images").glob("*/*-x.bmp"))[n::3]:
            file.unlink()
    made = prepare(home, ", test: 0.2")
    table = made.store.table()
    split = dict(zip(table["id"], table["split"], strict=True))
    moved = made.store.manifest()["copies"]["out_of_test"]
    assert moved
    assert all(split[i] == "oof" for i in moved)
    for found in made.store.manifest()["copies"]["sets"]:
        assert len({split[i] for i in found}) == 1
    assert len(table) == made.store.manifest()["images"] + made.store.manifest()["test_images"]
    prepare(home, ", test: 0.2")  # and the same again


def test_copies_are_grouped_and_written_down(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in (0, 3, 6):
        copy(home, f"images/ant/{i:03d}.png", f"images/ant/{i:03d}-x.bmp")
    made = prepare(home)
    err = capsys.readouterr().err
    assert "3 pictures are in the training images more than once (6 files): each is kept in one fold" in err
    table = made.store.table()
    grouped = table[table["group"].notna()]
    assert len(grouped) == 6
    assert (grouped.groupby("group")["fold"].nunique() == 1).all()
    assert (grouped.groupby("group").size() == 2).all()
    kept = made.store.manifest()["copies"]
    assert kept["sets"] == [[f"ant/{i:03d}-x.bmp", f"ant/{i:03d}.png"] for i in (0, 3, 6)]
    assert (kept["duplicates"], kept["leaks"]) == ("group", "refuse")
    groups = read_groups(made.store)
    assert groups is not None
    assert len(np.unique(groups)) == 60, "copies are resampled together, the others by themselves"


def test_the_app_draws_the_same_index_sets(home: Path) -> None:
    pytest.importorskip("streamlit")
    from ensembler.app.data import _read, _stamp

    for i in range(0, 60, 6):
        copy(home, f"images/ant/{i:03d}.png", f"images/ant/{i:03d}-x.bmp")
    made = prepare(home)
    data = _read(str(made.store.path), _stamp(made.store))
    assert data is not None
    assert data.folds is not None


def test_without_copies_a_run_is_what_it_was(home: Path) -> None:
    """Fingerprint and folds of runs without copies must not change: their Cells are found by them."""
    found, ignored = prepare(home), prepare(home, ", duplicates: ignore", "other")
    assert found.store.manifest()["identity"] == ignored.store.manifest()["identity"]
    assert found.store.table()["group"].isna().all()
    assert found.store.manifest()["copies"]["sets"] == []


def test_copies_change_the_folds_and_nothing_else_of_the_identity(home: Path) -> None:
    copy(home, "images/ant/000.png", "images/ant/000-x.bmp")
    copy(home, "images/ant/000.png", "images/ant/000-y.tiff")
    grouped = prepare(home).store.manifest()["identity"]
    ignored = prepare(home, ", duplicates: ignore", "other").store.manifest()["identity"]
    assert {key for key in grouped if grouped[key] != ignored[key]} <= {"folds"}


def test_a_run_that_began_before_copies_were_looked_for_goes_on(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy(home, "images/ant/000.png", "images/ant/000-x.bmp")
    copy(home, "images/ant/003.png", "held/ant/003-x.bmp")
    old = prepare(home, ", test: held, duplicates: ignore, leaks: allow")
    manifest = old.store.manifest()
    del manifest["copies"]
    (old.store.path / "manifest.json").write_text(json.dumps(manifest))
    capsys.readouterr()
    again = prepare(home, ", test: held")
    assert again.store.manifest()["identity"] == manifest["identity"]
    assert "copies" not in again.store.manifest()
    assert "began before copies were looked for" in capsys.readouterr().err


def test_a_run_keeps_to_what_it_began_with(home: Path) -> None:
    for i in range(0, 60, 3):
        copy(home, f"images/ant/{i:03d}.png", f"images/ant/{i:03d}-x.bmp")
    prepare(home)
    prepare(home)
    with pytest.raises(RunMismatchError, match=r"data\.duplicates was group, is ignore"):
        prepare(home, ", duplicates: ignore")


def test_copies_that_leave_too_few_pictures_say_so(home: Path) -> None:
    for file in sorted((home / "images" / "cow").iterdir())[1:]:
        file.unlink()
    first = next((home / "images" / "cow").iterdir()).relative_to(home)
    for i in range(5):
        copy(home, str(first), f"images/cow/{i}.bmp")
    with pytest.raises(DataError, match=r"'cow': 1 images for 3 folds.*data\.duplicates: ignore"):
        prepare(home)
    prepare(home, ", duplicates: ignore")
