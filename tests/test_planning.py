"""What a config would train, counted and timed without training anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensembler import planning
from ensembler.config import Config
from ensembler.config_text import read_yaml
from ensembler.errors import ConfigError
from ensembler.planning import Speed, count_images, known_speeds, plan, require_source, workers_here
from ensembler.store import RunStore
from ensembler.training.candidate import Candidate, CellJob, CellResult, Epoch

TEXT = """
name: x
data: {source: digits, image_size: 32}
folds: {k: 4, monitor: 0.25}
backbones: [{a: {weights: random}}, {b: {weights: random}}]
search: {trials: 6, epochs: 10, scheduler: none}
keep: 3
ensembles: [mean]
"""


def read(text: str, folder: Path = Path("/nowhere")) -> Config:
    return Config.parse(text, folder / "x.yaml")


def steps(text: str) -> dict[str, tuple[int, int, int]]:
    found = plan(read(text), None, {}, 2).steps
    return {step.name: (step.candidates, step.trainings, step.epochs) for step in found}


def test_trials_are_counted_and_the_first_fold_of_what_is_kept_is_not_trained_twice() -> None:
    assert steps(TEXT) == {"search": (6, 6, 10), "crossval": (3, 3 * 3, 10), "combine": (3, 0, 0)}


def test_without_a_search_every_default_is_trained_on_every_fold() -> None:
    text = TEXT.replace("search: {trials: 6, epochs: 10, scheduler: none}", "search: null")
    assert steps(text)["crossval"] == (2, 2 * 4, 8)
    assert "search" not in steps(text)


def test_weights_bring_a_probe_on_every_fold_and_frozen_strategies_no_search() -> None:
    text = TEXT.replace("{a: {weights: random}}", "a")
    assert steps(text)["screen"] == (1, 4, 0)
    frozen = steps(text.replace("keep: 3", "keep: 3\nstrategies: [probe, ridge]"))
    assert frozen == {"screen": (2, 8, 0), "combine": (2, 0, 0)}


def test_every_backbone_is_tried_and_kept_once_whatever_was_asked_for() -> None:
    text = TEXT.replace("trials: 6", "trials: 1").replace("keep: 3", "keep: 1")
    assert steps(text)["search"][0] == 2
    assert steps(text)["crossval"][0] == 2


def test_what_follows_cross_validation_is_counted() -> None:
    text = TEXT + "boosted: {rounds: 2}\ncollapse: [folds, refit, distill]\n"
    text = text.replace("source: digits", "source: digits, test: 0.2")
    assert steps(text)["boosted"] == (2, 8, 10)
    assert steps(text)["collapse"] == (6, 6, 10)
    assert steps(text)["combine"][0] == 3 + 2


def test_the_longest_training_counts() -> None:
    assert steps(TEXT.replace("epochs: 10", "epochs: 10, space: {epochs: [5, 20]}"))["search"][2] == 20
    assert steps(TEXT.replace("keep: 3", "keep: 3\nrecipe: {epochs: 3}"))["search"][2] == 3
    assert steps(TEXT.replace("epochs: 10", "epochs: auto"))["search"][2] == 8


def test_the_time_is_that_of_all_epochs_on_all_workers() -> None:
    speeds = {"a": Speed(100.0, "old", 32), "b": Speed(50.0, "old", 32)}
    found = plan(read(TEXT), 1600, speeds, 2)
    by_name = {step.name: step.seconds for step in found.steps}
    rows = 1600 * 0.75 * 0.75  # train rows: three folds of four, less the monitor rows
    cell = {"a": 10 * rows / 100, "b": 10 * rows / 50}
    assert by_name["search"] == pytest.approx((3 * cell["a"] + 3 * cell["b"]) / 2)
    assert by_name["crossval"] == pytest.approx((2 * cell["a"] + cell["b"]) * 3 / 2)
    assert found.seconds == pytest.approx(
        planning.START_S + sum(s for s in by_name.values() if s is not None)
    )
    assert found.unknown == ()
    many = plan(read(TEXT), 1600, speeds, 1000)
    longest = {step.name: step.seconds for step in many.steps}["search"]
    assert longest == pytest.approx(cell["b"]), "no stage is over before its longest training"


def test_what_nobody_has_measured_is_unknown() -> None:
    one = plan(read(TEXT), 1600, {"a": Speed(100.0, "old", 32)}, 2)
    assert one.unknown == ("b",)
    assert one.seconds is None
    assert plan(read(TEXT), None, {n: Speed(9.0, "old", 32) for n in "ab"}, 2).seconds is None


# ---------------------------------------------------------------------- earlier runs


def make_run(folder: Path, name: str, size: int = 32, seconds: float = 20.0, **more: Any) -> RunStore:
    """A run with one Cell of two epochs of 500 images."""
    store = RunStore(folder / name)
    candidate = Candidate("a", "random", "full")
    epochs = tuple(Epoch(i, 1e-3, 1.0, 1.0, 0.5, 1.0, 5.0, 100.0) for i in (1, 2))
    proba = np.full((3, 2), 0.5, np.float32)
    weights = {"w": np.zeros(1, np.float32)}
    result = CellResult(CellJob(candidate, 0), proba, weights, 1.0, 1.0, 1, epochs, seconds, 100)
    store.commit_cell(result, "f")
    manifest = {
        "machine": {"cpus": os.cpu_count()},
        "identity": {"image_size": size},
        "candidates": [candidate.to_dict()],
        "numerics": {"a": {"images_per_s": {"fp32": 900.0}}, "c": {"images_per_s": {"x": 130.0, "y": 65.0}}},
        "images": 77,
    }
    store.update_manifest(**(manifest | more))
    return store


def test_speeds_are_those_of_whole_trainings_else_as_measured(tmp_path: Path) -> None:
    speeds = known_speeds([make_run(tmp_path, "old")], 32)
    assert speeds["a"] == Speed(2 * 500 / 20.0, "old", 32)
    assert speeds["c"].images_per_s == pytest.approx(130 / 1.3)


def test_another_image_size_is_scaled_unless_the_same_was_measured(tmp_path: Path) -> None:
    large, small = make_run(tmp_path, "large", 64, 40.0), make_run(tmp_path, "small", 32, 20.0)
    assert known_speeds([large], 32)["a"] == Speed(4 * 25.0, "large", 64)
    assert known_speeds([large, small], 32)["a"] == Speed(50.0, "small", 32)
    assert known_speeds([small, large], 32)["a"] == Speed(50.0, "small", 32)


def test_other_machines_and_damaged_runs_tell_nothing(tmp_path: Path) -> None:
    other = make_run(tmp_path, "other", machine={"cpus": 1000})
    broken = make_run(tmp_path, "broken")
    for file in broken.path.rglob("history.parquet"):
        file.write_bytes(b"no")
    lost = make_run(tmp_path, "lost", candidates=[{"no": "candidate"}])
    bare = RunStore(tmp_path / "bare")
    bare.update_manifest(name="bare")
    assert known_speeds([other, broken, lost, bare], 32) == {}


def test_images_are_those_of_an_earlier_run_on_the_same_data_else_counted(tmp_path: Path) -> None:
    assert count_images(read(TEXT), []) == 1797
    assert count_images(read(TEXT.replace("digits", "digits, test: 0.2")), []) == 1438
    known = make_run(tmp_path, "old")
    known.write_config(read(TEXT).resolved())
    assert count_images(read(TEXT), [known]) == 77
    assert count_images(read(TEXT.replace("digits", "digits, test: 0.2")), [known]) == 1438
    assert count_images(read(TEXT.replace("digits", "'torchvision:CIFAR10'")), []) is None


def test_files_of_a_folder_and_lines_of_a_manifest_are_counted(tmp_path: Path, write_images: Any) -> None:
    write_images(tmp_path / "images", 12)
    (tmp_path / "images" / "ant" / "notes.txt").write_text("no image")
    (tmp_path / "m.csv").write_text('path,label\na.png,"x\ny"\nb.png,z\n')
    assert count_images(read(TEXT.replace("digits", "images"), tmp_path), []) == 12
    assert count_images(read(TEXT.replace("digits", "m.csv"), tmp_path), []) == 2
    assert count_images(read(TEXT.replace("digits", "missing"), tmp_path), []) is None


@pytest.mark.parametrize("source", ["digits", "'torchvision:CIFAR10'", "images"])
def test_a_source_that_is_there_is_accepted(source: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    text = TEXT.replace("digits", source)
    path = tmp_path / "x.yaml"
    require_source(Config.parse(text, path), read_yaml(text, path)[1], path)


@pytest.mark.parametrize(
    ("key", "data"), [("source", "source: missing"), ("test", "source: digits, test: missing")]
)
def test_a_source_that_is_not_there_is_named_with_its_line(key: str, data: str, tmp_path: Path) -> None:
    text = TEXT.replace("source: digits", data)
    path = tmp_path / "x.yaml"
    with pytest.raises(
        ConfigError, match=rf"x.yaml:3 data.{key}: 'missing': there is no {tmp_path}/missing; .*relative"
    ):
        require_source(Config.parse(text, path), read_yaml(text, path)[1], path)


def test_workers_follow_the_resources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(Path, "glob", lambda *_: iter([]))
    assert workers_here(read(TEXT)) == 8
    assert workers_here(read(TEXT + "resources: {cpus: 3}\n")) == 2
    assert workers_here(read(TEXT + "resources: {cpus: 100}\n")) == 1
    monkeypatch.setattr(Path, "glob", lambda *_: iter([Path("/dev/nvidia0"), Path("/dev/nvidia1")]))
    assert workers_here(read(TEXT)) == 2
    assert workers_here(read(TEXT + "resources: {gpus: 0.5}\n")) == 4
    assert workers_here(read(TEXT + "resources: {gpus: 0}\n")) == 8


def test_the_plan_of_the_finished_run_is_what_it_trained(finished_run: Any) -> None:
    """The sweep itself is the reference: what it has trained is what would have been planned."""
    config = Config.load(finished_run.config)
    found = {step.name: step.trainings for step in planning.look(config, finished_run.home).steps}
    events = RunStore(finished_run.run).events()
    started = [e for e in events if e["kind"] == "trial" and e["state"] == "started"]
    trained = {name: sum(e["stage"] == name for e in started) for name in ("screen", "search", "crossval")}
    # Two of its four trials cannot be trained, so two candidates are kept of the three that it asks for.
    assert found | {"crossval": found["crossval"] - 1} == trained | {"combine": 0}


def test_planning_needs_neither_torch_nor_ray() -> None:
    code = (
        "import sys; from pathlib import Path; from ensembler import planning; from ensembler.config import Config\n"
        f"planning.look(Config.parse({TEXT!r}, Path('x.yaml')), Path('nowhere'))\n"
        "print(sorted({'torch', 'ray', 'timm', 'optuna', 'torchvision'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
