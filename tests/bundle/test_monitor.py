"""Alarms where something has changed, and hardly any where nothing has."""

from __future__ import annotations

import csv
import errno
import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import stats

from ensembler.atomic import reading
from ensembler.bundle import Bundle
from ensembler.bundle.choose import Chosen
from ensembler.bundle.monitor.drift import measure_drift
from ensembler.bundle.monitor.features import LOOKS, Sample, concatenate, looks_of, sample_of
from ensembler.bundle.monitor.history import append, read_history
from ensembler.bundle.monitor.labels import read_labels
from ensembler.bundle.monitor.make import make_reference
from ensembler.bundle.monitor.observe import Batch, fold_of, observe, observe_files, one_fold
from ensembler.bundle.monitor.reference import REFERENCE, Reference, read_reference
from ensembler.bundle.monitor.report import report_page
from ensembler.bundle.monitor.two_sample import fewer_right, holm, ks, mmd, psi, psi_value, wilson
from ensembler.bundle.monitor.watch import monitor
from ensembler.cli import main
from ensembler.errors import BundleError, ConfigError, DataError, StoreError
from ensembler.store import RunStore
from ensembler.training.candidate import Candidate

Make = Callable[..., Any]


def _photographs(n: int, seed: int, size: int = 16) -> NDArray[np.uint8]:
    """Smooth blobs of colour under a little noise: something that blur, noise and colour can change."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 200, (n, 4, 4, 3)).astype(np.uint8)
    coarse[..., 0] = np.clip(coarse[..., 0].astype(int) + 30, 0, 255)
    pixels = [np.array(Image.fromarray(one).resize((size, size), Image.Resampling.BICUBIC)) for one in coarse]
    noisy = np.stack(pixels) + rng.normal(0, 6, (n, size, size, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _votes(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Two members that look at the mean colour, one at the left half."""
    left = pixels[:, :, : pixels.shape[2] // 2]
    logits = np.stack([p.reshape(len(p), -1, 3).mean(1) for p in (pixels, left)]) / 12
    power = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(power / power.sum(-1, keepdims=True), np.float32)


def _sample(pixels: NDArray[np.uint8]) -> Sample:
    return sample_of(pixels, _votes(pixels))


def _blurred(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.stack([np.array(Image.fromarray(p).filter(ImageFilter.GaussianBlur(1))) for p in pixels])


def _noisy(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.clip(pixels + np.random.default_rng(1).normal(0, 15, pixels.shape), 0, 255).astype(np.uint8)


def _recoloured(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.clip(pixels * np.array([0.85, 1.0, 1.15]), 0, 255).astype(np.uint8)


# ---------------------------------------------------------------------- alarms


def test_of_halves_of_the_same_images_hardly_any_raises_an_alarm() -> None:
    sample, rng = _sample(_photographs(400, seed=0)), np.random.default_rng(0)
    alarms, low = 0, 0
    for draw in range(30):
        rows = rng.permutation(400)
        drift = measure_drift(sample.select(rows[:200]), sample.select(rows[200:]), seed=draw)
        alarms += drift.alarm
        low += min(test.adjusted for test in drift.tests) <= 0.2
    assert alarms <= 2
    assert low <= 12  # 6 are expected, and more than 12 come once in 300 runs of such a test


@pytest.mark.parametrize("change", [_blurred, _noisy, _recoloured])
def test_every_changed_copy_raises_an_alarm(change: Make) -> None:
    reference = _sample(_photographs(400, seed=0))
    for draw in range(5):
        new = change(_photographs(100, seed=10 + draw))
        drift = measure_drift(reference, _sample(new), seed=draw)
        assert drift.alarm
        assert next(t for t in drift.tests if t.name == "look of the images").alarm


def test_other_shares_of_the_classes_raise_an_alarm() -> None:
    sample = _sample(_photographs(800, seed=0))
    old, new = sample.select(np.arange(400)), sample.select(np.arange(400, 800))
    of_class = np.flatnonzero(new.predicted == 1)
    shifted = new.select(np.concatenate([of_class, np.flatnonzero(new.predicted == 0)[:20]]))
    drift = measure_drift(old, shifted)
    assert next(t for t in drift.tests if t.name == "predicted classes").alarm
    assert drift.psi_classes > 0.25


def test_accuracy_below_what_was_expected_raises_an_alarm() -> None:
    sample = _sample(_photographs(200, seed=0))
    old, new = sample.select(np.arange(100)), sample.select(np.arange(100, 200))
    fine = measure_drift(old, new, right=(88, 100), expected=(900, 1000))
    poor = measure_drift(old, new, right=(70, 100), expected=(900, 1000))
    better = measure_drift(old, new, right=(100, 100), expected=(900, 1000))
    assert [d.alarm for d in (fine, poor, better)] == [False, True, False]
    assert poor.accuracy is not None
    assert (poor.accuracy.value, poor.accuracy.expected) == (0.7, 0.9)
    assert poor.accuracy.low < 0.7 < poor.accuracy.high
    assert json.dumps(poor.to_dict())


def test_one_member_has_nobody_to_disagree_with() -> None:
    pixels = _photographs(100, seed=0)
    sample = sample_of(pixels, _votes(pixels)[:1])
    drift = measure_drift(sample, sample)
    assert [t.name for t in drift.tests] == [
        "look of the images",
        "answers",
        "confidence",
        "predicted classes",
    ]
    assert not drift.alarm


def test_a_small_threshold_can_be_passed() -> None:
    old, new = _sample(_photographs(60, seed=0)), _sample(255 - _photographs(40, seed=1))
    assert measure_drift(old, new, threshold=0.001).alarm


def test_of_many_images_the_costly_tests_see_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ensembler.bundle.monitor.drift.KERNEL_ROWS", 60)
    pixels = _photographs(300, seed=0)
    old, new = _sample(pixels[:150]), _sample(pixels[150:])
    same = measure_drift(old, new)
    assert not same.alarm
    assert measure_drift(old, new) == same
    assert measure_drift(old, _sample(_noisy(pixels[150:]))).alarm


# ---------------------------------------------------------------------- the tests


def test_p_values_are_even_where_nothing_differs() -> None:
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = {"mmd": [], "ks": [], "psi": []}
    for _ in range(200):
        a, b = rng.normal(size=(30, 3)).astype(np.float32), rng.normal(size=(20, 3)).astype(np.float32)
        found["mmd"].append(mmd(a, b, 99, rng).p_value)
        found["ks"].append(ks(a[:, 0].round(1), b[:, 0].round(1), 99, rng).p_value)  # with ties
        counts = [np.bincount(rng.integers(0, 4, n), minlength=4).tolist() for n in (60, 40)]
        found["psi"].append(psi(counts[0], counts[1], 99, rng).p_value)
    for values in found.values():
        assert stats.kstest(values, "uniform").pvalue > 0.001 or np.mean(np.array(values) <= 0.1) <= 0.1
        assert 0.005 <= np.mean(np.array(values) <= 0.05) <= 0.11


def test_the_stability_of_the_confidence_is_counted_in_tenths_of_the_reference() -> None:
    old, new = _sample(_photographs(400, seed=0)), _sample(_photographs(100, seed=1))
    tenths = np.quantile(old.confidence, np.arange(1, 10) / 10)
    counts = [np.bincount(np.searchsorted(tenths, s.confidence), minlength=10) for s in (old, new)]
    found = measure_drift(old, new).psi_confidence
    assert found == pytest.approx(float(psi_value(counts[0], counts[1])), rel=1e-6)
    assert 0 < found < 0.25


def test_statistics_are_those_of_the_textbook() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=40).astype(np.float32).round(1), rng.normal(1, size=30).astype(np.float32).round(1)
    found, expected = ks(a, b, 999, rng), stats.ks_2samp(a, b)
    assert found.statistic == pytest.approx(expected.statistic, abs=1e-6)
    assert found.p_value <= 0.02
    assert psi_value(np.array([50, 50]), np.array([20, 80])) == pytest.approx(0.41, abs=0.02)
    assert psi([10, 10, 0], [10, 10, 0], 99, rng).p_value == 1
    assert fewer_right(70, 100, 900, 1000) == pytest.approx(
        stats.fisher_exact([[70, 30], [900, 100]], alternative="less").pvalue
    )
    assert fewer_right(0, 5, 10, 10) == pytest.approx(
        stats.fisher_exact([[0, 5], [10, 0]], alternative="less").pvalue
    )
    interval = stats.binomtest(7, 20).proportion_ci(method="wilson")
    assert wilson(7, 20) == pytest.approx((interval.low, interval.high), abs=1e-6)
    assert wilson(0, 0) == (0.0, 1.0)
    same = np.ones((10, 2), np.float32)
    assert mmd(same, same, 99, rng).p_value == 1


def test_mmd_sees_what_the_means_do_not() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(0, 1, (300, 2)).astype(np.float32)
    b = (rng.choice([-1, 1], (300, 2)) + rng.normal(0, 0.1, (300, 2))).astype(np.float32)
    assert abs(a.mean(0) - b.mean(0)).max() < 0.2
    assert mmd(a, b, 499, rng).p_value == 0.002


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@settings(deadline=None, max_examples=50)
def test_holm_never_lowers_a_p_value_and_keeps_their_order(values: list[float]) -> None:
    adjusted = holm(values)
    assert all(a >= p for a, p in zip(adjusted, values, strict=True))
    order = np.argsort(values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()
    assert min(adjusted) == pytest.approx(min(1, len(values) * min(values)))


# ---------------------------------------------------------------------- what is looked at


def test_each_look_sees_what_its_name_says() -> None:
    pixels = _photographs(50, seed=0)
    plain = looks_of(pixels).mean(0)

    def moved(change: NDArray[np.uint8], *names: str) -> list[bool]:
        after = looks_of(change).mean(0)
        return [bool(after[LOOKS.index(n)] > plain[LOOKS.index(n)]) for n in names]

    assert moved(_blurred(pixels), "fine detail", "grain", "edges") == [False] * 3
    assert moved(_noisy(pixels), "fine detail", "grain", "edges") == [True] * 3
    assert moved(_recoloured(pixels), "red", "blue", "blue against yellow", "red against green") == [
        False, True, True, False]  # fmt: skip
    assert moved((pixels // 2).astype(np.uint8), "middle", "light end") == [False] * 2
    assert np.isfinite(looks_of(np.zeros((3, 2, 2, 3), np.uint8))).all()
    assert looks_of(pixels).shape == (50, len(LOOKS))
    np.testing.assert_array_equal(looks_of(pixels)[7:8], looks_of(pixels[7:8]))


def test_a_fold_depends_on_the_pixels_alone_and_folds_are_even() -> None:
    pixels = _photographs(600, seed=0)
    fold = fold_of(pixels, 3)
    np.testing.assert_array_equal(fold_of(pixels[::-1], 3), fold[::-1])
    assert np.bincount(fold).min() > 150
    said = np.random.default_rng(0).random((2, 3, 600, 4)).astype(np.float32)
    np.testing.assert_array_equal(one_fold(said, fold)[1, 5], said[1, fold[5], 5])


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch, colour_bundle: Make) -> Reference:
    """What a bundle that looks at colours says of images of noise."""
    bundle = colour_bundle()
    pixels = np.random.default_rng(9).integers(0, 256, (40, 8, 8, 3), np.uint8)
    sample, _ = observe(bundle, pixels, 2)
    made = Reference(sample, np.zeros(40, np.int64), 2)
    monkeypatch.setattr("ensembler.bundle.monitor.watch.read_reference", lambda path: made)
    return made


def test_where_a_whole_chunk_cannot_be_read_the_others_are_looked_at(
    colour_bundle: Make, colour_images: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = colour_images(30)
    for i in (1, 2, 3, 4):
        (folder / f"000{i}.png").write_bytes(b"x")
    monkeypatch.setattr("ensembler.bundle.monitor.observe.CHUNK", 4)
    batch = observe_files(colour_bundle(), [folder], 2)
    assert len(batch.paths) == len(batch.sample) == len(batch.proba) == 26
    assert [path.name for path, _ in batch.unreadable] == ["0001.png", "0002.png", "0003.png", "0004.png"]


@pytest.mark.usefixtures("reference")
def test_of_many_unreadable_images_some_are_named_and_all_are_counted(
    colour_bundle: Make, colour_images: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    colour_bundle().index |= {"scores": {}, "data": {}}
    folder = colour_images(33)
    for i in range(11):
        (folder / f"broken {i}.png").write_bytes(b"x")
    drift = monitor("b", [folder], output=tmp_path / "out")
    told = capsys.readouterr().err
    assert told.count("warning: left out: ") == 10
    assert "warning: 11 images cannot be read\n" in told
    assert drift.accuracy is None
    assert "11 more could not be read" in (tmp_path / "out" / "report-0001.html").read_text()


def test_a_page_of_one_member_draws_no_disagreement(tmp_path: Path) -> None:
    pixels = _photographs(60, seed=0)
    for members, drawn in ((1, False), (2, True)):
        sample = sample_of(pixels, _votes(pixels)[:members])
        reference = Reference(sample, np.zeros(60, np.int64), 0)
        batch = Batch([tmp_path / "<x>.png"] * 60, sample, sample.proba, [])
        page = report_page("b", ["a", "b", "c"], reference, batch, measure_drift(sample, sample), [])
        assert ("Disagreement of the members" in page) is drawn
        assert "&lt;x&gt;.png" in page


# ---------------------------------------------------------------------- from a run to an alarm


@pytest.fixture
def run(tmp_path: Path) -> RunStore:
    """A run whose decoded images are gone."""
    store = RunStore(tmp_path / "run")
    store.update_manifest(classes=["ant", "bee", "cow"], k=2)
    store.write_table(pd.DataFrame({"split": ["oof"] * 4, "label": ["ant"] * 4, "fold": [0, 1, 0, 1]}))
    return store


def _reference(run: RunStore, kind: str, oof: Make, test: Make = lambda: None) -> Reference | None:
    candidate = Candidate("test_resnet", "random", "full", kind=kind)
    one = Chosen({"name": "x"}, [("x", candidate)], None)
    return make_reference(run, one, run.path, stored=True, oof_pixels=oof, test_pixels=test)


def test_without_honest_rows_there_is_no_reference_and_one_is_told_why(
    run: RunStore, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone() -> Path:
        raise DataError("images: no such folder")

    assert _reference(run, "trained", gone) is None
    assert capsys.readouterr().err == "warning: the bundle cannot be monitored: images: no such folder\n"
    assert _reference(run, "refit", gone) is None
    assert "its networks have seen every row, and there is no test split" in capsys.readouterr().err


def test_rows_that_the_disk_does_not_give_end_the_export(run: RunStore) -> None:
    def broken() -> Path:
        with reading(run.path, "run again"):
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(StoreError, match="see to the disk"):
        _reference(run, "trained", broken)


def test_the_reference_is_what_fold_models_say_of_their_holdout(finished_run: Any, mean_bundle: Path) -> None:
    from ensembler.experiment import Experiment

    reference, bundle = read_reference(mean_bundle), Bundle.load(mean_bundle)
    experiment = Experiment.from_run(finished_run.run)
    table = experiment.store.table()
    table = table[table["split"] == "oof"]
    pixels = np.load(experiment.images().oof)
    said = bundle.fold_probabilities(pixels)
    expected = sample_of(pixels, one_fold(said, table["fold"].to_numpy(np.int64)))
    assert reference.folds == 2
    assert len(reference.sample) == len(table)
    np.testing.assert_allclose(reference.sample.proba, expected.proba, atol=2e-3)
    np.testing.assert_allclose(reference.sample.looks, expected.looks, atol=1e-6)
    assert [bundle.classes[i] for i in reference.labels] == table["label"].tolist()


def test_fold_models_are_no_surer_of_new_images_and_their_average_would_be_of_old_ones(
    finished_run: Any, mean_bundle: Path, draw_images: Make
) -> None:
    """The reason for the reference being what it is."""
    reference, bundle = read_reference(mean_bundle), Bundle.load(mean_bundle)
    pixels, _ = draw_images(300, seed=5)
    sample, _ = observe(bundle, pixels, reference.folds)
    drift = measure_drift(reference.sample, sample)
    confidence = next(t for t in drift.tests if t.name == "confidence")
    assert confidence.p_value > 0.001


def test_a_verb_with_a_report_a_history_and_an_exit_code(
    finished_run: Any, mean_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test, out = finished_run.images / "train", tmp_path / "out"
    command = ["monitor", str(mean_bundle), str(test), "-o", str(out), "--labels", "folders"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "No alarm: 60 images" in text
    assert re.search(r"accuracy \d\.\d+ \[", text)
    blue = tmp_path / "blue"
    shutil.copytree(test, blue)
    for file in blue.rglob("*.png"):
        Image.fromarray(np.array(Image.open(file)) // 4).save(file)
    (blue / "broken.png").write_bytes(b"x")
    assert main(["monitor", str(mean_bundle), str(blue), "-o", str(out)]) == 3
    captured = capsys.readouterr()
    assert "Alarm: look of the images" in captured.out
    assert "broken.png" in captured.err
    history = read_history(out)
    assert [record["alarm"] for record in history] == [False, True]
    assert history[1]["unreadable"] == 1
    first = history[0]
    assert list(first)[:5] == ["time", "bundle", "images", "unreadable", "confidence"]
    assert timedelta() <= datetime.now(UTC) - datetime.fromisoformat(first["time"]) < timedelta(hours=1)
    assert (first["bundle"], first["images"], first["unreadable"]) == (Bundle.load(mean_bundle).name, 60, 0)
    assert 1 / 3 < first["confidence"] <= 1
    assert history[0]["accuracy"]["n"] == 60
    page = (out / "report-0002.html").read_text()
    assert "Alarm: look of the images" in page
    assert "Smallest corrected p-value" in page
    assert page.count("<svg") >= 5
    assert not re.search(r"<script|<img|<link|(src|href)=|@import|url\(|https?://", page)


def test_a_bundle_without_a_reference_or_with_a_damaged_one_is_told(
    mean_bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "b"
    shutil.copytree(mean_bundle, folder)
    content = bytearray((folder / REFERENCE).read_bytes())
    content[-1] ^= 1
    (folder / REFERENCE).write_bytes(content)
    with pytest.raises(BundleError, match="altered since the export"):
        read_reference(folder)
    index = json.loads((folder / "bundle.json").read_text())
    del index["files"][REFERENCE]
    (folder / "bundle.json").write_text(json.dumps(index))
    with pytest.raises(BundleError, match="holds no reference to monitor with"):
        read_reference(folder)


def test_arrays_that_do_not_fit_are_refused() -> None:
    sample = _sample(_photographs(10, seed=0))
    reference = Reference(sample, np.zeros(10, np.int64), 3)
    arrays = reference.arrays()
    again = Reference.from_arrays(arrays, 3, 2)
    np.testing.assert_array_equal(again.sample.proba, sample.proba)  # float16 is what was looked at
    np.testing.assert_array_equal(again.sample.disagreement, sample.disagreement)
    broken = {
        "shapes": {**arrays, "looks": arrays["looks"][:5]},
        "finite": {**arrays, "proba": arrays["proba"] * np.float16(np.nan)},
        "labels": {**arrays, "labels": arrays["labels"] + 9},
    }
    for word, these in broken.items():
        with pytest.raises(ValueError, match=word):
            Reference.from_arrays(these, 3, 2)
    joined = concatenate([sample, sample])
    assert len(joined) == 20


def test_what_cannot_be_monitored_is_told(
    mean_bundle: Path, tmp_path: Path, colour_images: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    few = colour_images(5)
    assert main(["monitor", str(mean_bundle), str(few), "-o", str(tmp_path / "o")]) == 2
    assert "5 images can be read; give 20 or more" in capsys.readouterr().err
    assert main(["monitor", str(mean_bundle), str(few), "--threshold", "0"]) == 2
    assert "expected a rate of false alarms above 0" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
    assert issubclass(ConfigError, Exception)


def test_labels_find_their_images(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "1.png", tmp_path / "a" / "2.png", tmp_path / "b" / "1.png"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    file = tmp_path / "labels.csv"

    def write(*rows: tuple[str, str], head: tuple[str, str] = ("path", "label")) -> str:
        with file.open("w", newline="") as stream:
            csv.writer(stream).writerows([head, *rows])
        return str(file)

    classes = ["ant", "bee", "a", "b"]
    rows = [
        (str(paths[0]), "ant"),
        ("2.png", "bee"),
        ("b/1.png", "ant"),
        ("1.png", "bee"),
        ("gone.png", "ant"),
    ]
    assert read_labels(write(*rows), paths, classes).tolist() == [0, 1, 0]
    assert read_labels(write(("2.png", "bee")), paths, classes).tolist() == [-1, 1, -1]
    assert read_labels("folders", paths, classes).tolist() == [2, 2, 3]
    with pytest.raises(
        DataError,
        match=r"labels\.csv: \S+2\.png: label 'ent' is no class of the bundle; did you mean 'ant'\?",
    ):
        read_labels(write(("2.png", "ent")), paths, classes)
    with pytest.raises(DataError, match=r"^\S+/a/1\.png: its folder: label 'a' is no class of the bundle; "):
        read_labels("folders", paths, ["ant", "bee"])
    with pytest.raises(DataError, match="no path fits any of the 3 images"):
        read_labels(write(("1.png", "ant")), paths, classes)
    with pytest.raises(DataError, match="columns file, label; expected path and label"):
        read_labels(write(head=("file", "label")), paths, classes)
    with pytest.raises(DataError, match="cannot be read"):
        read_labels(str(tmp_path / "nowhere.csv"), paths, classes)


def test_a_line_cut_short_is_left_out_of_the_history(tmp_path: Path) -> None:
    append(tmp_path / "h", {"tests": [], "alarm": False})
    with (tmp_path / "h" / "history.jsonl").open("a") as stream:
        stream.write('{"tests": [')
        stream.write('\n{"alarm": true}\n[]\n')  # and lines of somebody else
    assert read_history(tmp_path / "h") == [{"tests": [], "alarm": False}]
    assert read_history(tmp_path / "nowhere") == []
