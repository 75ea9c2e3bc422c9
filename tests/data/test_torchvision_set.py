"""torchvision's data sets, downloaded by stand-ins with the signatures that torchvision's own have."""

from __future__ import annotations

import sys
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ensembler.data import load_table
from ensembler.data.table import ImageTable
from ensembler.errors import DataError

datasets = pytest.importorskip("torchvision.datasets")


class Items:
    """Six images, of classes 0, 1, 2, 0, 1, 2, in a colour that tells the parts apart."""

    classes: Any = ("cat", "dog", "T-shirt/top")

    def __init__(self, blue: int) -> None:
        self.blue = blue
        print("Downloading ...")

    def __len__(self) -> int:
        return 6

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        return Image.new("RGB", (4, 4), (i, 0, self.blue)), i % 3


class WithTrain(Items):
    def __init__(self, root: str, train: bool = True, transform: Any = None, download: bool = False) -> None:
        assert download
        assert Path(root).is_dir()
        super().__init__(blue=0 if train else 255)


class WithSplit(Items):
    def __init__(self, root: str, split: str = "train", download: bool = False) -> None:
        if split not in ("train", "val"):
            raise ValueError(f"Unknown value '{split}' for argument split.")
        super().__init__(blue={"train": 0, "val": 255}[split])


class Whole(Items):
    classes = (("tench", "Tinca tinca"), ("goldfish",), (".shark",))

    def __init__(self, root: str, download: bool = False) -> None:
        super().__init__(blue=7)


class Unnamed(Whole):
    classes = None


class Boxes(Whole):
    def __getitem__(self, i: int) -> tuple[Any, Any]:
        return Image.new("RGB", (4, 4)), {"boxes": []}


class ByHand(Items):
    def __init__(self, root: str) -> None:
        raise AssertionError


class Offline(Items):
    def __init__(self, root: str, download: bool = False) -> None:
        raise urllib.error.URLError("Temporary failure in name resolution")


class Mirrorless(Items):
    def __init__(self, root: str, download: bool = False) -> None:
        raise RuntimeError("Error downloading\ntrain.gz")


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (WithTrain, WithSplit, Whole, Unnamed, Boxes, ByHand, Offline, Mirrorless):
        monkeypatch.setattr(datasets, kind.__name__, kind, raising=False)


def load(root: Path, name: str, **options: Any) -> ImageTable:
    return load_table(f"torchvision:{name}", base_dir=root, cache_dir=root, **options)


@pytest.mark.parametrize("name", ["WithTrain", "WithSplit"])
def test_training_and_official_test_parts(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    table = load(tmp_path, name)
    assert table.classes == ("T-shirt-top", "cat", "dog")
    assert len(table) == 6
    assert len(table.test) == 0
    for row in table.frame.itertuples():
        red, _, blue = np.asarray(Image.open(str(row.path)))[0, 0].tolist()
        assert (blue, row.label) == (0, ["cat", "dog", "T-shirt-top"][red % 3])
    both = load(tmp_path, name, test="official")
    assert both.oof.ids.tolist() == table.ids.tolist()
    assert both.test.ids.tolist() == [f"test/{image_id}" for image_id in table.ids]
    assert {np.asarray(Image.open(path))[0, 0, 2] for path in both.test.paths} == {255}
    assert capfd.readouterr().out == ""


def test_the_download_happens_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load(tmp_path, "Whole")
    assert before.classes == ("goldfish", "shark", "tench")
    monkeypatch.setattr(datasets, "Whole", Offline)
    assert load(tmp_path, "Whole").ids.tolist() == before.ids.tolist()


def test_classes_without_names_are_numbers(tmp_path: Path) -> None:
    assert load(tmp_path, "Unnamed").classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("OxfordPet", "torchvision has no such data set; did you mean 'OxfordIIITPet'"),
        ("../x", "expected torchvision:<Dataset>"),
        ("Boxes", "target of image 0 is a dict; only data sets with one class an image"),
        ("ByHand", "torchvision cannot download it; give a folder"),
        (
            "Offline",
            "download failed: .*name resolution.*; without a network, make class folders of it elsewhere",
        ),
        ("Mirrorless", "download failed: Error downloading train.gz;"),
    ],
)
def test_errors_say_what_to_do_and_leave_no_half_data_set(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, name)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "torchvision" / name / "train").exists()


def test_a_data_set_without_a_test_part(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Whole: has no test part that is known here; give test as a share"):
        load(tmp_path, "Whole", test="official")


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(DataError, match="images of Whole cannot be written: No space left on device"):
        load(tmp_path, "Whole")


def test_torchvision_is_imported_only_to_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(tmp_path, "Whole")
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert len(load(tmp_path, "Whole")) == 6
