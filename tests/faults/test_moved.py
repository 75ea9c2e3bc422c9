"""A run moved to another folder, another machine, another version; and forked where it cannot go on as it is."""

from __future__ import annotations

import dataclasses
import json
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ensembler.cli import main
from ensembler.errors import DataError, RunMismatchError, StoreError
from ensembler.experiment import Experiment
from ensembler.forking import take_over
from ensembler.store import RunStore
from ensembler.training.candidate import Candidate


@pytest.fixture
def copied(finished_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The finished run, its config and images; nothing may be trained."""
    import ray

    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    home = tmp_path / "home"
    shutil.copytree(finished_run.home, home)
    config = home / "small.yaml"
    config.write_text(
        config.read_text().replace("trials: 4", "trials: 2")
    )  # the others fail, and are tried again
    return dataclasses.replace(
        finished_run, home=home, config=config, run=home / "run", images=home / "images"
    )


def _tree(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def _scores(run: Path) -> list[Any]:
    return [(row["name"], row["cv"], row["test"]) for row in RunStore(run).leaderboard() or []]


def _proba(run: Path) -> dict[str, bytes]:
    return {name: data for name, data in _tree(run).items() if name.endswith("proba.npy")}


# ---------------------------------------------------------------------- moved


@pytest.mark.parametrize("verb", ["leaderboard", "combine", "compare"])
def test_a_run_in_another_folder_is_the_same_run(verb: str, copied: Any, tmp_path: Path) -> None:
    scores = _scores(copied.run)
    moved = copied.run.rename(tmp_path / "elsewhere")
    assert main([verb, str(moved)]) == 0
    assert _scores(moved) == scores


def test_on_another_machine_a_run_goes_on_with_its_own_arithmetic(
    copied: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another host, another cache, other paths of images, weights and run, other hardware."""
    numerics, cells = RunStore(copied.run).manifest()["numerics"], _proba(copied.run)
    scores = _scores(copied.run)
    new = tmp_path / "other" / "machine"
    shutil.copytree(copied.home, new)
    shutil.rmtree(copied.home)
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    monkeypatch.setenv("ENSEMBLER_CACHE", str(tmp_path / "empty"))
    assert main(["run", str(new / "small.yaml"), "-o", str(new / "run")]) == 0
    store = RunStore(new / "run")
    assert store.manifest()["numerics"] == numerics
    assert store.config()["data"]["source"] == str(new / "images" / "train")
    assert set(store.table()["path"].map(lambda p: Path(p).is_file())) == {True}
    assert _proba(new / "run") == cells
    assert _scores(new / "run") == scores


def test_who_has_the_run_alone_is_told_how_to_say_where_the_images_are(
    copied: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["run", str(copied.config), "-o", str(copied.run)]) == 0
    )  # the paths are those of the copy now
    away = copied.images.rename(copied.home / "away")
    own = copied.run / "config.yaml"
    assert main(["run", str(own), "-o", str(copied.run)]) == 2
    said = capsys.readouterr().err
    assert f"{copied.images}/train: no such folder; " in said
    assert "if the images have moved, say where they are now: data.source in run/config.yaml" in said
    settings = yaml.safe_load(own.read_text())
    settings["data"] |= {"source": str(away / "train"), "test": str(away / "test")}
    own.write_text(yaml.safe_dump(settings))
    assert main(["run", str(own), "-o", str(copied.run)]) == 0


def test_where_no_run_has_begun_a_wrong_source_is_a_wrong_source(copied: Any, tmp_path: Path) -> None:
    copied.images.rename(copied.home / "away")
    with pytest.raises(DataError) as caught:
        Experiment.from_config(copied.config, tmp_path / "new").run()
    assert "have moved" not in str(caught.value)


# ---------------------------------------------------------------------- changed, and forked


def _as_of(run: Path, **versions: str) -> None:
    """Lets a run have been made with other versions."""
    file = run / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["machine"]["versions"] |= versions
    file.write_text(json.dumps(manifest))


def test_another_version_is_refused_and_a_fork_keeps_the_trainings(
    copied: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _as_of(copied.run, torch="1.0.0")
    before, fork = _tree(copied.run), tmp_path / "fork"
    assert main(["run", str(copied.config), "-o", str(copied.run)]) == 2
    said = capsys.readouterr().err
    assert f"{copied.run}: made from something else: torch was 1.0.0, is " in said
    assert "take over what is still valid into a new run with --fork NEWRUN" in said
    assert main(["run", str(copied.config), "-o", str(copied.run), "--fork", str(fork)]) == 0
    assert f"6 trainings and 2 files of frozen features of {copied.run} are kept" in capsys.readouterr().err
    assert {n: d for n, d in _tree(copied.run).items() if n != ".lock"} == {
        n: d for n, d in before.items() if n != ".lock"
    }
    assert _proba(fork) == {n: d for n, d in _proba(copied.run).items() if n in _proba(fork)}
    assert _scores(fork) == _scores(copied.run)
    forked = RunStore(fork).manifest()["forked"]
    assert forked["run"] == str(copied.run)
    assert forked["changed"][0].startswith("torch was 1.0.0, is ")
    assert main(["report", str(fork)]) == 0
    assert (
        f"of {copied.run} are kept; changed: torch was 1.0.0" in (fork / "report" / "report.md").read_text()
    )
    # It is a run like any other now, and forking it again goes on with it.
    assert main(["run", str(copied.config), "-o", str(fork)]) == 0
    assert main(["run", str(copied.config), "-o", str(copied.run), "--fork", str(fork)]) == 0


def test_a_fork_takes_over_what_its_rows_allow(copied: Any, tmp_path: Path) -> None:
    origin = RunStore(copied.run)
    identity = origin.manifest()["identity"]
    n_cells = len(list(copied.run.glob("cells/*/*/result.json")))

    def taken(name: str, metric: str = "log_loss", **changed: Any) -> tuple[int, int]:
        fork = RunStore(tmp_path / name)
        fork.claim(identity | changed)
        forked = take_over(origin, fork, identity | changed, metric)
        assert len(list(fork.path.glob("cells/*/*/result.json"))) == forked["cells"]
        assert len(list(fork.path.glob("features/*"))) == forked["features"]
        return forked["cells"], forked["features"]

    assert taken("same") == (n_cells, 2)
    assert taken("folds", folds="other") == (0, 2)
    assert taken("seed", seed=5) == (0, 2)
    assert taken("metric", metric="accuracy") == (0, 2)
    assert taken("images", fingerprint="other") == (0, 0)
    assert taken("size", image_size=64) == (0, 0)


def test_a_damaged_cell_is_not_taken_over(copied: Any, tmp_path: Path) -> None:
    origin, fork = RunStore(copied.run), RunStore(tmp_path / "fork")
    candidate = Candidate.from_dict(origin.manifest()["candidates"][0])
    (origin.cell_path(candidate.id, 0) / "result.json").write_text("{")
    identity = origin.manifest()["identity"]
    fork.claim(identity)
    take_over(origin, fork, identity, "log_loss")
    assert not fork.cell_path(candidate.id, 0).exists()
    np.testing.assert_array_equal(fork.cell(candidate.id, 1).proba, origin.cell(candidate.id, 1).proba)


def test_a_fork_needs_a_run_and_a_folder_of_its_own(copied: Any, tmp_path: Path) -> None:
    experiment = Experiment.from_config(copied.config, copied.run)
    with pytest.raises(StoreError, match="a run cannot be forked into itself; give --fork another folder"):
        experiment.fork(copied.run)
    RunStore(tmp_path / "taken").update_manifest(name="taken")
    with pytest.raises(
        StoreError, match=r"there is a run already, which was not forked from .*; give --fork another"
    ):
        experiment.fork(tmp_path / "taken")
    with pytest.raises(StoreError, match="no run here"):
        Experiment.from_config(copied.config, tmp_path / "nothing").fork(tmp_path / "fork")


def test_another_metric_is_another_run(copied: Any) -> None:
    copied.config.write_text("metric: accuracy\n" + copied.config.read_text())
    with pytest.raises(
        RunMismatchError, match="made from something else: metric was log_loss, is accuracy; "
    ):
        Experiment.from_config(copied.config, copied.run).run()


# ---------------------------------------------------------------------- of another version


@pytest.mark.parametrize("verb", ["leaderboard", "combine", "compare", "report", "export"])
def test_a_run_of_a_later_version_is_refused_by_name(
    verb: str, copied: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    RunStore(copied.run).update_manifest(version=2)
    before = _tree(copied.run)
    assert main([verb, str(copied.run)]) == 2
    said = capsys.readouterr().err
    assert (
        f"{copied.run}/manifest.json: version 2, and ensembler 0.1.0 knows up to 1: a later one wrote this run"
        in said
    )
    assert said.rstrip().endswith("; install that, or choose another folder")
    assert _tree(copied.run) == before


def test_a_run_with_the_shorter_names_of_earlier_candidates_opens(
    copied: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Candidates were once told apart by four digits; the app says how the leaderboard comes to today's names."""
    from ensembler.app.reading import view

    store = RunStore(copied.run)
    records = store.leaderboard()
    assert records is not None
    candidates = {c.name for c in store.candidates()}
    shorter = [row | {"name": row["name"][:-2]} if row["name"] in candidates else row for row in records]
    store.write_leaderboard(shorter)
    assert main(["leaderboard", str(copied.run)]) == 0
    with pytest.raises(
        StoreError, match=f"another version wrote it; make it again with `ensembler combine {copied.run}`"
    ):
        view(store)
    assert main(["combine", str(copied.run)]) == 0
    capsys.readouterr()
    assert {row["name"] for row in view(store).board.to_records()} >= candidates
