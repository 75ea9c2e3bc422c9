"""A bundle asked about one image, by the process that the app starts: its answer is the bundle's own."""

from __future__ import annotations

import io
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensembler.bundle import Bundle
from ensembler.bundle.ask import ask, main
from ensembler.errors import BundleError
from ensembler.experiment import Experiment
from ensembler.store import RunStore


@pytest.fixture(scope="module")
def exported(finished_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Experiment.from_run(finished_run.run).export(tmp_path_factory.mktemp("bundles") / "b", "stacking")


def asked(bundle: Path, image: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "ensembler.bundle.ask", str(bundle)],
        input=image,
        capture_output=True,
        timeout=120,
        check=False,
    )


def test_the_answer_is_what_the_bundle_predicts_and_the_votes_are_its_members(
    finished_run: Any, exported: Path
) -> None:
    file = next((finished_run.images / "test").rglob("*.png"))
    done = asked(exported, file.read_bytes())
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    bundle = Bundle.load(exported)
    assert answer["classes"] == list(bundle.classes)
    np.testing.assert_array_equal(np.float32(answer["proba"]), bundle.predict([file])[0])
    assert [member["name"] for member in answer["members"]] == list(bundle.members)
    store = RunStore(finished_run.run)
    test = store.test_predictions()
    assert test is not None
    table = store.table()
    row = table[table["split"] == "test"]["path"].tolist().index(str(file))
    for member in answer["members"]:
        np.testing.assert_allclose(member["proba"], test.select([member["name"]]).proba[0, row], atol=1e-5)


def test_main_prints_the_answer_as_one_line_of_json(
    finished_run: Any, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = next((finished_run.images / "test").rglob("*.png")).read_bytes()
    assert main([str(exported)], image) == 0
    said = capsys.readouterr()
    (line,) = said.out.splitlines()
    answer = json.loads(line)
    assert answer == ask(Bundle.load(exported), image)
    assert sum(answer["proba"]) == pytest.approx(1, abs=1e-5)
    assert not said.err


def test_as_a_program_it_reads_the_image_from_standard_input(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "ensembler.bundle.ask")  # a program is imported by nobody before
    monkeypatch.setattr("sys.argv", ["ask", str(exported)])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"no image")))
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("ensembler.bundle.ask", run_name="__main__")
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: the image: is no image")


def test_what_cannot_be_answered_is_one_line(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said_of(bundle: Path, image: bytes) -> str:
        assert main([str(bundle)], image) == 2
        said = capsys.readouterr()
        assert not said.out
        (line,) = said.err.splitlines()
        return line

    assert said_of(exported, b"no image").startswith("error: the image: is no image")
    assert said_of(tmp_path, b"").startswith(f"error: {tmp_path}: no bundle here")

    def refuse(_: Path) -> Bundle:
        raise BundleError("two\nlines")

    monkeypatch.setattr(Bundle, "load", refuse)
    assert said_of(exported, b"") == "error: two\\nlines"
