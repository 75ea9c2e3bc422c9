"""A bundle asked about one image, by the process that the app starts: its answer is the bundle's own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensembler.bundle import Bundle
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


def test_what_cannot_be_answered_is_one_line(exported: Path, tmp_path: Path) -> None:
    for bundle, image, said in (
        (exported, b"no image", "the image: is no image"),
        (tmp_path, b"", "no bundle here"),
    ):
        done = asked(bundle, image)
        assert done.returncode == 2
        assert not done.stdout
        (line,) = done.stderr.decode().splitlines()
        assert line.startswith("error:")
        assert said in line
