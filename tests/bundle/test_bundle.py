"""The exported winner: what it predicts is what was scored, wherever it lies, and nothing foreign is used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from ensembler.bundle import Bundle
from ensembler.bundle.card import model_card
from ensembler.bundle.layout import INDEX, file_digest, inside, read_index
from ensembler.bundle.member import FoldWeights, Member
from ensembler.bundle.options import ExportOptions
from ensembler.bundle.predict import find_images
from ensembler.cli import main
from ensembler.errors import BackboneError, BundleError, DataError, UnreadableImageError
from ensembler.experiment import Experiment
from ensembler.metrics import get_metric
from ensembler.store import RunStore
from ensembler.training.backbone import create, to_arrays


@pytest.fixture(scope="module")
def rows(finished_run: Any) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in RunStore(finished_run.run).leaderboard() or []}


@pytest.fixture(scope="module")
def exported(finished_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Exports a row once."""
    made: dict[str, Path] = {}

    def export(name: str) -> Path:
        if name not in made:
            target = tmp_path_factory.mktemp("bundles") / "b"
            options = ExportOptions(format="torch")
            made[name] = Experiment.from_run(finished_run.run).export(target, name, options)
        return made[name]

    return export


def _test_files(finished_run: Any) -> tuple[list[Path], np.ndarray]:
    table = RunStore(finished_run.run).table()
    table = table[table["split"] == "test"]
    classes = RunStore(finished_run.run).manifest()["classes"]
    return [Path(p) for p in table["path"]], np.array([classes.index(label) for label in table["label"]])


def _single(rows: dict[str, Any], part: str) -> str:
    return next(name for name, row in rows.items() if row["kind"] == "single" and part in name)


@pytest.mark.parametrize("what", ["mean", "greedy", "boosting", "stacking", "probe", "lp-ft", "full"])
def test_a_bundle_predicts_what_the_leaderboard_scored(
    what: str, finished_run: Any, rows: dict[str, Any], exported: Callable[[str], Path]
) -> None:
    name = what if what in rows else _single(rows, what)
    bundle = Bundle.load(exported(name))
    files, labels = _test_files(finished_run)
    proba = bundle.predict(files)
    assert bundle.name == name
    assert get_metric("log_loss")(labels, proba) == pytest.approx(rows[name]["test"], abs=1e-5)
    if rows[name]["kind"] == "single":
        test = RunStore(finished_run.run).test_predictions()
        assert test is not None
        np.testing.assert_allclose(proba, test.select([name]).proba[0], atol=1e-5)


def test_members_without_weight_are_not_shipped(
    rows: dict[str, Any], exported: Callable[[str], Path]
) -> None:
    members = rows["greedy"]["members"]
    assert 0 < len(members) < 3  # otherwise this run shows nothing
    assert list(Bundle.load(exported("greedy")).members) == members
    assert len(list((exported("greedy") / "members").iterdir())) == len(members)


def test_the_recommended_row_is_exported_unless_told_otherwise(finished_run: Any, tmp_path: Path) -> None:
    experiment = Experiment.from_run(finished_run.run)
    from ensembler.comparison import read_leaderboard

    bundle = Bundle.load(experiment.export(tmp_path / "b"))
    assert bundle.name == read_leaderboard(experiment.store).verdict.winner


def test_a_bundle_needs_neither_its_run_nor_its_place_nor_the_weights(
    finished_run: Any, rows: dict[str, Any], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(finished_run.home, home)
    name = "stacking"
    assert any("probe" in m for m in rows[name]["members"])  # whose body has to travel along
    config = home / "run" / "config.yaml"
    config.write_text(config.read_text().replace(str(finished_run.home), str(home)))
    bundle = Experiment.from_run(home / "run").export(home / "bundle", name)
    files, _ = _test_files(finished_run)
    before = Bundle.load(bundle).predict(files)
    moved = bundle.rename(tmp_path / "moved")
    shutil.rmtree(home)
    np.testing.assert_array_equal(Bundle.load(moved).predict(files), before)


def test_images_come_as_files_bytes_pictures_or_pixels(
    finished_run: Any, rows: dict[str, Any], exported: Callable[[str], Path]
) -> None:
    bundle = Bundle.load(exported(_single(rows, "full")))
    file = _test_files(finished_run)[0][0]
    picture = Image.open(file)
    kinds = [file, str(file), file.read_bytes(), picture, np.asarray(picture)]
    proba = bundle.predict(kinds)
    assert proba.shape == (5, 3)
    # Where in a batch an image stands may change its last bit: some processors' arithmetic goes in blocks.
    np.testing.assert_allclose(proba, np.repeat(proba[:1], 5, 0), atol=1e-6)
    alone = np.concatenate([bundle.predict([kind]) for kind in kinds])
    np.testing.assert_array_equal(alone, np.repeat(alone[:1], 5, 0))
    np.testing.assert_allclose(proba.sum(1), 1, atol=1e-5)
    assert bundle.predict([]).shape == (0, 3)


def test_many_images_are_the_same_as_few(
    finished_run: Any, rows: dict[str, Any], exported: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.load(exported(_single(rows, "full")))
    files, _ = _test_files(finished_run)
    whole = bundle.predict(files)
    monkeypatch.setattr("ensembler.bundle.runtime.CHUNK", 5)
    monkeypatch.setattr("ensembler.bundle.member.BATCH", 2)
    np.testing.assert_allclose(bundle.predict(files), whole, atol=1e-5)


def test_an_image_that_does_not_decode_is_named(
    rows: dict[str, Any], exported: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    with pytest.raises(UnreadableImageError, match=r"bad\.jpg"):
        Bundle.load(exported(_single(rows, "full"))).predict([tmp_path / "bad.jpg"])


# ---------------------------------------------------------------------- what is in it


def test_the_index_names_every_file_and_nothing_is_a_pickle(exported: Callable[[str], Path]) -> None:
    folder = exported("stacking")
    index = read_index(folder)
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {INDEX}
    assert set(index["files"]) == files
    assert all(file_digest(folder / name) == digest for name, digest in index["files"].items())
    assert {Path(name).suffix for name in files} == {".safetensors", ".md"}
    assert index["scores"]["name"] == "stacking"
    assert index["versions"]["torch"]


def test_the_card_tells_verdict_members_licence_and_scores(
    finished_run: Any, exported: Callable[[str], Path]
) -> None:
    from ensembler.comparison import read_leaderboard

    card = (exported("stacking") / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front)["pipeline_tag"] == "image-classification"
    assert yaml.safe_load(front)["license"] == "apache-2.0"
    board = read_leaderboard(RunStore(finished_run.run))
    assert board.verdict.sentence.replace("&", "&amp;").replace("<", "&lt;") in body
    row = next(r for r in board.to_records() if r["name"] == "stacking")
    for member in row["members"]:
        assert member in body
    assert f"{row['cv']:.4f}" in body
    assert f"{row['test']:.4f}" in body
    assert "weights.safetensors#" in body
    assert "ant, bee, cow" in body


def test_the_card_says_what_may_not_be_sold() -> None:
    member = {"name": "m", "architecture": "net", "weights": "w.safetensors#1", "licence": "cc-by-nc-4.0"}
    told = "published weights under cc-by-nc-4.0 may not be used commercially"
    assert told in _card(members=[member])
    assert told not in _card(members=[{**member, "weights": "random"}])
    assert "commercially" not in _card(members=[{**member, "licence": "mit"}])


def _card(**changes: Any) -> str:
    row = {"name": "mean", "metric": "log_loss", "cv": 0.5, "cv_low": 0.4, "cv_high": 0.6, "accuracy": 0.9,
           "log_loss": 0.5, "ece": None, "test": None}  # fmt: skip
    values: dict[str, Any] = {
        "name": "x",
        "row": row,
        "verdict": "v",
        "classes": ["a", "b"],
        "members": [{"name": "m", "architecture": "net", "weights": "random", "licence": ""}],
        "data": {"images": 5, "test_images": 0, "image_size": 32, "k": 2, "fingerprint": "f" * 32},
    }
    return model_card(**{**values, **changes})


def test_the_card_says_what_answers_in_place_of_the_fold_models() -> None:
    assert "Every member is the average of its 2 fold models, and `mean` is made of:" in _card()
    assert "One network that was taught by the best ensemble answers in place of `mean`:" in _card(
        deployed={"collapse": "distill"}
    )
    assert "Every member is one network (refit) in place of its 2 fold models" in _card(
        deployed={"collapse": "refit"}
    )


def test_operations_that_cannot_be_counted_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise BackboneError("odd: cannot be traced")

    arrays = to_arrays(create("test_resnet", 3).state_dict())
    member = Member("test_resnet", "abc", 32, [FoldWeights(arrays, 1.0)] * 2, mirror=True)
    monkeypatch.setattr("ensembler.bundle.member.flops", lambda *_: 1000)
    assert member.flops == 4000
    monkeypatch.setattr("ensembler.bundle.member.flops", fail)
    assert member.flops is None


def test_names_that_look_like_markup_are_text() -> None:
    member = {"name": "m", "architecture": "net", "weights": "a|<b>.safetensors#1", "licence": "mit"}
    card = _card(classes=["<script>alert(1)</script>", "R&B", "a|b"], members=[member])
    assert "<script>" not in card
    assert "&lt;script>" in card
    assert "R&amp;B" in card
    assert "a\\|&lt;b>.safetensors#1" in card


def test_what_is_unknown_is_said() -> None:
    card = _card()
    assert "license: unknown" in card
    assert "Cost: not measured." in card
    assert "| calibration error (ECE), out of fold | unknown | |" in card
    assert "test images" not in card
    two = [{"name": n, "architecture": "net", "weights": "w", "licence": n} for n in ("mit", "gpl")]
    assert "license: other" in _card(members=two)


# ---------------------------------------------------------------------- what is refused


@pytest.fixture
def damaged(exported: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to damage; building anything of it fails the test."""
    folder = tmp_path / "bundle"
    shutil.copytree(exported("stacking"), folder)
    monkeypatch.setattr(Member, "__init__", lambda *_, **__: pytest.fail("built before it was checked"))
    return folder


def _refused(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _index(folder: Path, **changes: Any) -> dict[str, Any]:
    index = json.loads((folder / INDEX).read_text()) | changes
    (folder / INDEX).write_text(json.dumps(index))
    return index


@pytest.mark.parametrize("name", ["members/0/0.safetensors", "combiner.safetensors", "README.md"])
def test_a_flipped_byte_is_found(name: str, damaged: Path) -> None:
    content = bytearray((damaged / name).read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / name).write_bytes(content)
    assert _refused(damaged) == f"{damaged / name}: altered since the export (SHA-256 differs); export again"


def test_a_missing_file_is_named(damaged: Path) -> None:
    (damaged / "members" / "0" / "1.safetensors").unlink()
    assert "members/0/1.safetensors: missing; export again" in _refused(damaged)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "members/../../outside", "a\\b", "", "."])
def test_a_name_that_leads_outside_is_refused(name: str, damaged: Path) -> None:
    (damaged.parent / "outside").write_text("x")
    files = json.loads((damaged / INDEX).read_text())["files"]
    _index(damaged, files={**files, name: file_digest(damaged.parent / "outside")})
    assert "leads outside the bundle" in _refused(damaged)


def test_a_symbolic_link_is_refused(damaged: Path) -> None:
    file = damaged / "README.md"
    file.rename(damaged.parent / "real.md")
    file.symlink_to(damaged.parent / "real.md")
    assert f"{file}: is a symbolic link" in _refused(damaged)
    file.unlink()
    (damaged.parent / "real.md").rename(file)
    (damaged / "members").rename(damaged.parent / "members")
    (damaged / "members").symlink_to(damaged.parent / "members")
    assert "is a symbolic link" in _refused(damaged)


def test_a_name_that_no_file_can_have_is_refused(damaged: Path) -> None:
    files = json.loads((damaged / INDEX).read_text())["files"]
    _index(damaged, files={**files, "x" * 300: "0" * 64})
    assert "cannot be read ([Errno 36] File name too long" in _refused(damaged)


def test_a_file_without_a_digest_is_not_used(damaged: Path) -> None:
    shutil.copy(damaged / "members/0/0.safetensors", damaged / "extra.safetensors")
    index = json.loads((damaged / INDEX).read_text())
    index["members"][0]["folds"][0]["file"] = "extra.safetensors"
    _index(damaged, members=index["members"])
    assert "extra.safetensors: the index holds no digest of it" in _refused(damaged)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"format": 99}, "format 99; this version reads 2; export again"),
        ({"name": 3}, "name is 3; expected a row's name; export again"),
        ({"files": []}, "files is no table of digests"),
        ({"members": None}, "members is no list of members"),
        ({"members": [{}]}, "members is no list of members"),
        ({"members": [{"name": "a"}]}, "cannot be used"),
    ],
)
def test_an_index_that_is_not_ours_is_refused(changes: dict[str, Any], expected: str, damaged: Path) -> None:
    _index(damaged, **changes)
    assert expected in _refused(damaged)


def test_no_bundle_at_all_is_told(damaged: Path, tmp_path: Path) -> None:
    assert "no bundle here (bundle.json is missing)" in _refused(tmp_path / "nowhere")
    (damaged / INDEX).write_text("[" * 100_000)
    assert "cannot be read" in _refused(damaged)
    (damaged / INDEX).write_text('{"format": 1}')
    assert "lacks some of" in _refused(damaged)


def test_an_unknown_combiner_is_refused(exported: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(exported("stacking"), folder)
    index = json.loads((folder / INDEX).read_text())
    _index(folder, combiner={**index["combiner"], "combiner": "evil"})
    assert "unknown combiner 'evil'" in _refused(folder)


def test_inside_finds_what_is_inside(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").touch()
    assert inside(tmp_path, "a/b") == tmp_path / "a" / "b"


# ---------------------------------------------------------------------- writing


def test_an_export_replaces_a_bundle_but_nothing_else(
    finished_run: Any, rows: dict[str, Any], tmp_path: Path
) -> None:
    experiment = Experiment.from_run(finished_run.run)
    single = _single(rows, "full")
    target = experiment.export(tmp_path / "b", "mean")
    experiment.export(tmp_path / "b", single)
    assert Bundle.load(target).name == single
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").touch()
    with pytest.raises(BundleError, match="exists and is no bundle; choose another place with -o"):
        experiment.export(tmp_path / "other", "mean")
    assert (tmp_path / "other" / "precious").exists()


def test_an_unknown_row_is_refused_with_those_there_are(finished_run: Any, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"'gready': no such row on the leaderboard; there are .*greedy"):
        Experiment.from_run(finished_run.run).export(tmp_path / "b", "gready")
    assert not (tmp_path / "b").exists()


# ---------------------------------------------------------------------- predict


def test_a_folder_with_one_broken_image_is_predicted_and_the_broken_one_named(
    finished_run: Any, rows: dict[str, Any], exported: Callable[[str], Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    import pandas as pd

    folder = tmp_path / "images"
    shutil.copytree(finished_run.images / "test", folder)
    (folder / "ant" / "broken.png").write_bytes(b"\x89PNG broken")
    (folder / "notes.txt").write_text("no image")
    name = "mean"
    assert main(["predict", str(exported(name)), str(folder), "-o", str(tmp_path / "out.csv")]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "broken.png" in captured.err
    frame = pd.read_csv(tmp_path / "out.csv")
    assert list(frame.columns) == ["path", "label", "confidence", "ant", "bee", "cow"]
    assert len(frame) == 18
    assert (frame["label"] == frame[["ant", "bee", "cow"]].idxmax(axis=1)).all()
    np.testing.assert_allclose(frame["confidence"], frame[["ant", "bee", "cow"]].max(axis=1))
    labels = np.array([["ant", "bee", "cow"].index(Path(p).parent.name) for p in frame["path"]])
    score = get_metric("log_loss")(labels, frame[["ant", "bee", "cow"]].to_numpy(np.float32))
    assert score == pytest.approx(rows[name]["test"], abs=1e-5)


def test_predictions_go_to_standard_output(
    finished_run: Any, exported: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file = _test_files(finished_run)[0][0]
    assert main(["predict", str(exported("mean")), str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "path,label,confidence,ant,bee,cow"
    assert lines[1].startswith(f"{file},")


def test_images_that_are_not_there_are_told(
    exported: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        find_images([tmp_path / "nowhere"])
    with pytest.raises(DataError, match="no image files; expected "):
        find_images([tmp_path])
    (tmp_path / "bad.png").write_bytes(b"bad")
    assert main(["predict", str(exported("mean")), str(tmp_path)]) == 2
    err = capsys.readouterr().err.splitlines()
    assert err[0].startswith("warning: left out: ")
    assert err[-1] == "error: none of 1 images can be read; see the warnings above"
