"""What an audit finds in files, copies, classes and shortcuts; as text, as JSON, by its exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensembler.cli import main
from ensembler.data.audit import Audit, Finding
from ensembler.data.audit.shortcuts import find_shortcuts
from ensembler.experiment import Experiment

CONFIG = "name: x\ndata: {{source: images, image_size: 32{0}}}\nfolds: {{k: 3}}\nbackbones: [test_resnet]\n"


@pytest.fixture
def config(tmp_path: Path, write_images: Callable[..., Path]) -> Path:
    write_images(tmp_path / "images")
    return write(tmp_path)


def write(home: Path, more: str = "") -> Path:
    (home / "x.yaml").write_text(CONFIG.format(more))
    return home / "x.yaml"


def found(config: Path) -> dict[str, Finding]:
    return {finding.kind: finding for finding in Experiment.from_config(config).audit().findings}


def test_clean_images_have_no_findings(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(config)]) == 0
    out = capsys.readouterr().out
    assert "60 training images in 3 classes, 0 test images" in out
    assert "0 errors, 0 warnings, 0 notes: nothing that would invalidate a verdict" in out


def test_no_run_is_begun(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(config.parent)
    main(["audit", str(config)])
    assert not (config.parent / "runs").exists()


def test_a_leak_is_an_error_and_exit_2(
    config: Path, write_images: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(config.parent / "held", 9, seed=1)
    Image.open(config.parent / "images" / "ant" / "000.png").save(config.parent / "held" / "ant" / "x.bmp")
    write(config.parent, ", test: held")
    assert main(["audit", str(config), "--format", "json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["stands"] is False
    (leak,) = [finding for finding in told["findings"] if finding["kind"] == "leak"]
    assert leak["level"] == "error"
    assert leak["items"] == ["test/ant/x.bmp = ant/000.png (same picture)"]
    for policy, code in (("drop", 0), ("allow", 2)):
        write(config.parent, f", test: held, leaks: {policy}")
        assert main(["audit", str(config)]) == code


def test_files_that_do_not_open_are_told_with_their_reason(config: Path) -> None:
    folder = config.parent / "images" / "ant"
    whole = (folder / "000.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.png").write_text("no image")
    finding = found(config)["unreadable"]
    assert finding.level == "error"
    assert len(finding.items) == 3
    assert any(item.startswith("ant/empty.jpg: is empty") for item in finding.items)
    write(config.parent, ", unreadable: skip")
    assert found(config)["unreadable"].level == "warning"


def test_odd_files_are_told(config: Path) -> None:
    folder = config.parent / "images" / "bee"
    draw = np.random.default_rng(0)
    noise = [Image.fromarray(draw.integers(0, 256, (24, 24, 3), np.uint8)) for _ in range(6)]
    noise[0].save(folder / "p.jpg", "PNG")
    noise[1].save(folder / "moving.gif", save_all=True, append_images=[noise[2]])
    noise[3].convert("CMYK").save(folder / "print.jpg")
    Image.fromarray(draw.integers(0, 65536, (24, 24), np.uint16)).save(folder / "deep.png")
    noise[4].resize((5, 7)).save(folder / "tiny.png")
    noise[5].resize((120, 20)).save(folder / "banner.png")
    (folder / "phone.heic").write_bytes(b"x")
    findings = found(config)
    for kind, item in {
        "extension": "bee/p.jpg: is a PNG file",
        "animated": "bee/moving.gif: GIF",
        "colours": "bee/print.jpg: CMYK",
        "deep": "bee/deep.png: 16 bits",
        "small": "bee/tiny.png: 5 x 7",
        "narrow": "bee/banner.png: 120 x 20",
        "passed over": "bee/phone.heic",
    }.items():
        assert findings[kind].items == (item,), kind
        assert findings[kind].level != "error"


def test_copies_of_different_classes_are_told(config: Path) -> None:
    images = config.parent / "images"
    Image.open(images / "ant" / "000.png").save(images / "bee" / "again.bmp")
    findings = found(config)
    assert findings["conflict"].level == "warning"
    assert findings["conflict"].items == ("ant/000.png is ant, bee/again.bmp is bee",)
    assert findings["copies"].items == ("ant/000.png = bee/again.bmp",)


def test_classes_too_small_for_the_folds_are_an_error(config: Path) -> None:
    folder = config.parent / "images" / "rare"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for i in range(2):
        Image.fromarray(draw.integers(0, 256, (24, 24, 3), np.uint8)).save(folder / f"{i}.png")
    finding = found(config)["classes"]
    assert (finding.level, finding.items) == ("error", ("rare: 2",))


def test_a_class_of_copies_alone_cannot_be_held_out(config: Path) -> None:
    images = config.parent / "images"
    (images / "rare").mkdir()
    picture = Image.open(images / "ant" / "000.png").convert("RGB")
    for i, side in enumerate((24, 48, 96)):
        picture.resize((side, side), Image.Resampling.BICUBIC).save(images / "rare" / f"{i}.png")
    assert found(config)["folds"].level == "error"


def test_a_format_that_tells_the_class_is_a_warning(config: Path) -> None:
    for file in (config.parent / "images" / "cow").glob("*.png"):
        Image.open(file).save(file.with_suffix(".bmp"))
        file.unlink()
    finding = found(config)["shortcut"]
    assert finding.level == "warning"
    assert any(item.startswith("format: balanced accuracy 0.6") for item in finding.items)


def test_shortcuts_are_measured_against_chance() -> None:
    draw = np.random.default_rng(0)
    labels = draw.permutation(np.repeat(np.arange(4), [400, 200, 100, 50]))
    values = {
        "nothing": draw.normal(size=750),
        "constant": np.zeros(750),
        "weak": labels + draw.normal(0, 3, 750),
        "strong": np.where(labels == 2, 5.0, draw.integers(0, 4, 750)),
    }
    shortcuts = {s.name: s for s in find_shortcuts(values, labels)}
    assert set(shortcuts) == {"nothing", "weak", "strong"}
    assert shortcuts["nothing"].p > 0.01
    assert abs(shortcuts["nothing"].chance - 0.25) < 0.02
    assert shortcuts["strong"].p < 0.01
    assert shortcuts["strong"].balanced_accuracy > 0.45
    assert find_shortcuts(values, labels) == find_shortcuts(values, labels)


def test_properties_that_tell_nothing_are_seldom_noted() -> None:
    alarms = 0
    for seed in range(20):
        draw = np.random.default_rng(seed)
        values = {f"x{i}": draw.normal(size=300) for i in range(9)}
        alarms += any(s.p < 0.01 for s in find_shortcuts(values, draw.integers(0, 3, 300), seed))
    assert alarms <= 2


@pytest.mark.parametrize("name", ["\x1b[31mred", "two\nlines", "\u202ereversed", "--format", "$(touch x)"])
def test_hostile_names_are_shown_as_text(config: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    images = config.parent / "images"
    Image.open(images / "ant" / "000.png").save(images / "ant" / f"{name}.bmp")
    (images / "ant" / f"{name}.png").write_bytes(b"broken")
    assert main(["audit", str(config)]) == 2
    out = capsys.readouterr().out
    assert "broken" not in out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert all(line.isprintable() for line in out.splitlines())
    main(["audit", str(config), "--format", "json"])
    items = [item for finding in json.loads(capsys.readouterr().out)["findings"] for item in finding["items"]]
    assert any(name in item for item in items)


def test_many_items_are_cut_in_the_text_and_whole_in_the_json() -> None:
    finding = Finding("note", "x", "something", tuple(f"item {i}" for i in range(50)))
    told = Audit({"a": 1, "b": 2}, 0, (finding,))
    assert "item 5\n" in told.to_text()
    assert "and 44 more" in told.to_text()
    assert len(json.loads(told.to_json())["findings"][0]["items"]) == 50


def test_images_that_are_not_there_are_an_error_of_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path)
    assert main(["audit", str(tmp_path / "x.yaml")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
