"""`ensembler init`: choices that follow from the images and the machine, in a config that runs as it is."""

from __future__ import annotations

import csv
import dataclasses
import errno
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ensembler import draft as draft_mod
from ensembler import reach as reach_mod
from ensembler.cli import main
from ensembler.config import Config
from ensembler.data import load_table
from ensembler.data.survey import Survey, survey
from ensembler.draft import draft, run_name, scalar, split_beside, written_path
from ensembler.errors import DataError, StoreError
from ensembler.experiment import Experiment
from ensembler.folds import make_folds
from ensembler.propose import Hardware, Proposal, propose
from ensembler.store import RunStore

LAPTOP = Hardware(cores=2)
H100 = Hardware(cores=16, gpu="NVIDIA H100", gpu_bytes=80 << 30, gpus=1)


def _images(root: Path, counts: dict[str, int], size: tuple[int, int] = (24, 24)) -> Path:
    """Class folders of small images, no two alike."""
    for c, (name, n) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for i in range(n):
            Image.new("RGB", size, (c * 40, i % 256, i // 256)).save(root / name / f"{i}.png")
    return root


def _look(root: Path) -> Survey:
    return survey(load_table(str(root), base_dir=root.parent, cache_dir=root.parent / "cache"))


def _proposal(root: Path, hardware: Hardware = LAPTOP, problem: str | None = None) -> Proposal:
    return propose(_look(root), hardware, problem)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


# ---------------------------------------------------------------------- choices


def test_a_balanced_folder_on_a_laptop(tmp_path: Path) -> None:
    found = _proposal(_images(tmp_path / "x", {"ant": 40, "bee": 40, "cow": 40}, (80, 70)))
    assert found.metric.value == "log_loss"
    assert found.k.value == 5
    assert found.test.value == 0.2
    assert "24 images" in found.test.reason
    assert found.image_size.value == 64  # a multiple of 32 below 70
    assert "70 pixels" in found.image_size.reason
    assert found.unreadable.value == "fail"
    assert found.weights.value == "pretrained"
    assert 3 <= len(found.backbones) <= 6
    assert all("apache-2.0" in b.reason or "mit" in b.reason for b in found.backbones)


def test_a_strong_imbalance_asks_for_another_metric(tmp_path: Path) -> None:
    mild = _proposal(_images(tmp_path / "mild", {"ant": 45, "bee": 5}))
    strong = _proposal(_images(tmp_path / "strong", {"ant": 50, "bee": 5}))
    assert mild.metric.value == "log_loss"
    assert strong.metric.value == "balanced_accuracy"
    assert "50 images of ant to 5 of bee" in strong.metric.reason


def test_folds_and_test_split_shrink_with_the_smallest_class_and_fit_the_run(tmp_path: Path) -> None:
    for smallest in (2, 3, 4, 6):
        root = _images(tmp_path / f"x{smallest}", {"ant": 40, "bee": smallest})
        found = _proposal(root)
        assert str(found.k.value) in "2345"
        assert found.k.value <= smallest
        table = load_table(str(root), test=found.test.value, base_dir=tmp_path, cache_dir=tmp_path, seed=0)
        assert len(make_folds(table.oof.labels, found.k.value, 0)) == found.k.value
    assert _proposal(tmp_path / "x2").k.value == 2


def test_a_handful_of_images_is_not_split_further(tmp_path: Path) -> None:
    found = _proposal(_images(tmp_path / "x", {"ant": 6, "bee": 6}))
    assert found.test.value is None
    assert "of 12 images" in found.test.reason


def test_a_class_of_one_image_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'bee' has 1; add images, or take the class out"):
        _proposal(_images(tmp_path / "x", {"ant": 9, "bee": 1}))


def test_unreadable_files_are_skipped_and_count_for_nothing(tmp_path: Path) -> None:
    root = _images(tmp_path / "x", {"ant": 9, "bee": 2})
    (root / "bee" / "bad.png").write_bytes(b"")
    found = _proposal(root)
    assert found.unreadable.value == "skip"
    assert "bee/bad.png" in found.unreadable.reason
    assert found.k.value == 2
    (root / "bee" / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match="'bee' has 1"):
        _proposal(root)


def test_groups_bound_the_folds(tmp_path: Path) -> None:
    root = _images(tmp_path / "x", {"ant": 30, "bee": 30})
    with (tmp_path / "x.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "group"])
        for name in ("ant", "bee"):
            writer.writerows([f"x/{name}/{i}.png", name, f"g{i % 3}"] for i in range(30))
    table = load_table("x.csv", base_dir=tmp_path, cache_dir=tmp_path)
    found = propose(survey(table), LAPTOP, None)
    assert root.is_dir()
    # Three groups: a test split would leave two, of which one is held out and none is left to monitor.
    assert found.test.value is None
    assert found.k.value == 3
    assert "in their groups" in found.k.reason


def test_the_folds_of_a_manifest_are_kept(tmp_path: Path) -> None:
    _images(tmp_path / "x", {"ant": 12, "bee": 12})
    rows = [f"x/{name}/{i}.png,{name},{i % 4}" for name in ("ant", "bee") for i in range(12)]
    (tmp_path / "x.csv").write_text("\n".join(["path,label,fold", *rows]) + "\n")
    found = propose(survey(load_table("x.csv", base_dir=tmp_path, cache_dir=tmp_path)), LAPTOP, None)
    assert (found.k.value, found.test.value) == (4, None)


def test_a_gpu_gets_what_fits_its_memory(tmp_path: Path) -> None:
    looked = _look(_images(tmp_path / "x", {"ant": 9, "bee": 9}, (300, 400)))
    large = propose(looked, H100, None)
    small = propose(looked, dataclasses.replace(H100, gpu_bytes=6 << 30), None)
    tiny = propose(looked, dataclasses.replace(H100, gpu_bytes=1 << 20), None)
    names = [{b.value for b in found.backbones} for found in (large, small, tiny)]
    assert large.image_size.value == 224
    assert len(names[0]) == 8
    assert names[1] < names[0]
    assert names[1]
    assert names[2] == {b.value for b in propose(looked, Hardware(cores=16), None).backbones}
    assert large.trials.value == 24
    assert "H100" in str(H100)


def test_the_budget_grows_with_the_work_and_ends(tmp_path: Path) -> None:
    looked = _look(_images(tmp_path / "x", {"ant": 9, "bee": 9}, (300, 400)))
    more = dataclasses.replace(looked, counts={"ant": 1534, "bee": 1534})
    most = dataclasses.replace(looked, counts={"ant": 10**6, "bee": 10**6})
    assert propose(looked, LAPTOP, None).budget.value == "10m"
    assert "is 26 minutes" in propose(more, LAPTOP, None).budget.reason  # as it was measured
    assert propose(more, LAPTOP, None).budget.value == "1h"
    assert propose(most, LAPTOP, None).budget.value == "8h"


# ---------------------------------------------------------------------- text


@pytest.mark.parametrize("problem", [None, "OSError: a\nb: {c} # d"])
def test_the_written_config_says_what_was_proposed(tmp_path: Path, problem: str | None) -> None:
    looked = _look(_images(tmp_path / "x", {"<script>: &x": 30, "ü #\\ '\"": 30, "- [a]\t{b}": 30}))
    proposal = propose(looked, LAPTOP, problem)
    file = tmp_path / "my.yaml"
    file.write_text(draft("my", "my.yaml", "x", looked, proposal), encoding="utf-8")
    config = Config.load(file)
    assert (config.name, config.data.source, config.metric) == ("my", "x", "log_loss")
    assert config.data.test == proposal.test.value
    assert config.data.image_size == proposal.image_size.value
    assert config.folds.k == proposal.k.value
    assert [b.name for b in config.backbones] == [b.value for b in proposal.backbones]
    expected = "pretrained-or-random" if problem else "pretrained"
    assert {b.weights for b in config.backbones} == {expected}
    assert config.budget == 600
    lines = file.read_text(encoding="utf-8").splitlines()
    assert max(map(len, lines)) <= 120
    for key in ("test", "image_size", "unreadable", "k", "metric", "trials", "epochs", "budget"):
        (number,) = [i for i, line in enumerate(lines) if line.strip().startswith(f"{key}:")]
        assert lines[number - 1].strip().startswith("# ")


@given(st.text())
def test_any_text_reads_back_from_yaml(text: str) -> None:
    assert yaml.safe_load(f"value: {scalar(text)}")["value"] == text


@pytest.mark.parametrize(
    "text", ["true", "null", "1e5", "12", "0x1f", "2024-01-01", "1h", "a: b", "", "~", "é"]
)
def test_text_that_looks_like_something_else_stays_text(text: str, tmp_path: Path) -> None:
    body = f"name: x\ndata: {{source: {scalar(text)}}}\nbackbones: [a]\n"
    assert Config.parse(body, tmp_path / "x.yaml").data.source == text


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/birds", "birds"),
        ("/a/clothing/train", "clothing-train"),
        ("/a/my birds/images", "my-birds-images"),
        ("/a/list.csv", "list"),
        ("/a/<script>", "script"),
        ("/a/日本", "images"),
        ("/a/" + "x" * 300, "x" * 60),
    ],
)
def test_the_name_of_the_run_comes_from_the_folder(path: str, name: str) -> None:
    assert run_name(Path(path)) == name


def test_paths_are_relative_below_the_config_and_never_words(tmp_path: Path) -> None:
    assert written_path(tmp_path / "a" / "b", tmp_path) == "a/b"
    assert written_path(tmp_path / "digits", tmp_path) == "./digits"
    assert written_path(tmp_path / "a", tmp_path / "b") == str(tmp_path / "a")


def test_a_test_split_beside_the_training_folder_is_found(tmp_path: Path) -> None:
    train = _images(tmp_path / "train", {"ant": 3, "bee": 3})
    assert split_beside(train) is None
    _images(tmp_path / "val", {"ant": 1, "wasp": 1})
    assert split_beside(train) is None  # a class that is not trained on
    _images(tmp_path / "test", {"ant": 1})
    assert split_beside(train) == tmp_path / "test"
    assert split_beside(tmp_path / "test") is None


def test_a_test_split_that_cannot_be_listed_is_not_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "test", "val"):
        (tmp_path / split / "ant").mkdir(parents=True)

    def listdir(folder: Path) -> list[str]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

    monkeypatch.setattr(os, "listdir", listdir)
    with pytest.raises(
        StoreError, match=r"^\S+/\w+: cannot be listed \(Permission denied\); see to the disk"
    ):
        split_beside(tmp_path / "train")


# ---------------------------------------------------------------------- the verb


@pytest.mark.usefixtures("no_hub")
def test_init_writes_a_config_that_can_be_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _images(tmp_path / "my <birds>" / "train", {"<script>": 20, "ünï: x": 20, "b c": 20})
    _images(tmp_path / "my <birds>" / "validation", {"b c": 4}, (25, 25))
    assert main(["init", "my <birds>/train"]) == 0
    printed = capsys.readouterr()
    assert "60 images in 3 classes, and 4 marked as test images" in printed.out
    assert "next: ensembler run my-birds-train.yaml" in printed.out
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("warning: the hub of pretrained weights was out of reach (HF_HUB_OFFLINE")

    experiment = Experiment(Config.load("my-birds-train.yaml"), RunStore(tmp_path / "run"))
    backbones = experiment.preparation.backbones()
    assert {b.weights.label for b in backbones} == {"random"}
    images, folds = experiment.preparation.prepare(backbones)
    assert len(images.table.test) == 4
    assert len(images.table.oof) == 60
    assert len(folds) == 5
    capsys.readouterr()

    before = Path("my-birds-train.yaml").read_bytes()
    assert main(["init", "my <birds>/train"]) == 2
    assert "exists already; remove it, or name another with -o FILE" in capsys.readouterr().err
    assert Path("my-birds-train.yaml").read_bytes() == before


@pytest.mark.usefixtures("no_hub")
def test_init_reads_a_manifest_and_writes_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _images(tmp_path / "x", {"ant": 20, "bee": 20})
    rows = [
        f"x/{name}/{i}.png,{name},{'test' if i < 4 else 'train'}"
        for name in ("ant", "bee")
        for i in range(20)
    ]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["init", "../list.csv", "-o", "mine.yaml"]) == 0
    config = Config.load("mine.yaml")
    assert config.data.source == str(tmp_path / "list.csv")
    assert config.data.test is None
    assert "the source marks 8 test images itself" in Path("mine.yaml").read_text()
    assert "wrote mine.yaml" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["nowhere"], "no such folder"),
        (["x", "-o", "no/such/folder.yaml"], "there is no folder"),
        (["single"], "'bee' has 1"),
    ],
)
@pytest.mark.usefixtures("no_hub")
def test_init_refuses_in_one_line_and_writes_nothing(
    argv: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    _images(tmp_path / "x", {"ant": 3, "bee": 3})
    _images(tmp_path / "single", {"ant": 3, "bee": 1})
    assert main(["init", *argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert expected in error
    assert not list(tmp_path.rglob("*.yaml"))


def test_the_network_is_asked_once_for_all_backbones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    asked: list[str] = []
    monkeypatch.setattr(reach_mod, "_ANSWERS", {})
    monkeypatch.setattr(reach_mod, "hub_problem", lambda endpoint: asked.append(endpoint) or "gone")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(draft_mod.Hardware, "here", lambda: LAPTOP)
    monkeypatch.chdir(tmp_path)
    _images(tmp_path / "x", {"ant": 12, "bee": 12})
    assert main(["init", "x"]) == 0
    found: list[Any] = Experiment.from_config("x.yaml", tmp_path / "run").preparation.backbones()
    assert len(found) == 4
    assert all("(gone)" in backbone.weights.note for backbone in found)
    assert asked == [constants.ENDPOINT]
    assert capsys.readouterr().err.count("the hub") == 1 + 4
