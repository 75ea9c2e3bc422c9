"""What is exported says what was scored: the graph, the networks and the leaderboard agree for every combiner."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml

from ensembler import comparison
from ensembler.bundle import Bundle
from ensembler.bundle.graph import check, merge
from ensembler.bundle.layout import CARD, COMBINER_MODEL, INDEX, MODEL
from ensembler.bundle.options import ExportOptions
from ensembler.bundle.staged import Stages
from ensembler.cli import main
from ensembler.combiners import COMBINERS
from ensembler.combiners.fold_models import combine_folds
from ensembler.errors import BundleError, ConfigError
from ensembler.experiment import Experiment
from ensembler.metrics import get_metric
from ensembler.store import RunStore
from tests.without_ray import without_ray

BOTH = ExportOptions(format="both")
EVERY = [*COMBINERS, {"isotonic": {"combiner": "calibrated", "method": "isotonic"}}]


@pytest.fixture(scope="module")
def every(finished_run: Any, once: Callable[..., Path]) -> RunStore:
    """The finished run with every combiner that there is."""

    def make(home: Path) -> None:
        shutil.copytree(finished_run.run, home / "run")
        config = yaml.safe_load(finished_run.config.read_text()) | {"ensembles": EVERY}
        (finished_run.home / "every.yaml").write_text(yaml.safe_dump(config))
        with without_ray():  # what failed is tried again
            Experiment.from_config(finished_run.home / "every.yaml", home / "run").run()

    return RunStore(once("every", make) / "run")


@pytest.fixture(scope="module")
def exported(every: RunStore, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Exports a row once in each way."""
    made: dict[Any, Path] = {}

    def export(name: str, options: ExportOptions = BOTH) -> Path:
        if (name, options) not in made:
            target = tmp_path_factory.mktemp("bundles") / "b"
            made[name, options] = Experiment.from_run(every.path).export(target, name, options)
        return made[name, options]

    return export


@pytest.fixture(scope="module")
def pixels(every: RunStore) -> np.ndarray:
    images = Experiment.from_run(every.path).images()
    assert images.test is not None
    return np.load(images.test)


def _single(store: RunStore, part: str) -> str:
    rows = comparison.read_leaderboard(store).to_records()
    return next(str(row["name"]) for row in rows if row["kind"] == "single" and part in row["name"])


# ---------------------------------------------------------------------- parity


@pytest.mark.parametrize("name", [*COMBINERS, "isotonic"])
def test_graph_networks_and_leaderboard_agree(
    name: str, every: RunStore, exported: Callable[..., Path], pixels: np.ndarray
) -> None:
    folder = exported(name)
    graph, networks = Bundle.load(folder), Bundle.load(folder, engine="torch")
    test, by_fold = every.test_predictions(), every.test_by_fold()
    assert test is not None
    assert by_fold is not None
    combiner = comparison.restored_combiner(every, name)
    rows = by_fold[[test.index(member) for member in combiner.members_]]
    scored = combine_folds(combiner, rows, combiner.members_, test.classes)
    # Quantiles of 60 rows are steep: PyTorch itself, asked for another batch, is 1e-5 from the leaderboard there.
    far = 1e-4 if name == "rank" else 1e-5
    np.testing.assert_allclose(networks.predict_pixels(pixels), scored, atol=far)
    np.testing.assert_allclose(graph.predict_pixels(pixels), scored, atol=far)
    row = next(r for r in comparison.read_leaderboard(every).to_records() if r["name"] == name)
    assert get_metric("log_loss")(test.labels, graph.predict_pixels(pixels)) == pytest.approx(
        row["test"], abs=1e-5
    )
    proba, votes = graph.answer(pixels)
    np.testing.assert_allclose(votes, networks.answer(pixels)[1], atol=1e-5)
    said = graph.fold_probabilities(pixels)
    np.testing.assert_allclose(networks.combine(said), proba, atol=2e-6)
    np.testing.assert_array_equal(graph.votes(said), votes)
    np.testing.assert_allclose(graph.combine(said), proba, atol=1e-6)


def test_a_cascade_runs_no_more_than_it_needs_and_its_card_says_what_that_saves(
    exported: Callable[..., Path], pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.load(exported("cascade"))
    assert sorted(bundle.index["graph"]["cascade"]["order"]) == list(range(len(bundle.members)))
    ran: list[tuple[int, int]] = []
    answer = Stages.answer

    def counted(self: Stages, run: Any, *sizes: int) -> Any:
        def one(rows: Any, wanted: Any) -> Any:
            ran.append((len(rows), int(wanted.sum())))
            return run(rows, wanted)

        return answer(self, one, *sizes)

    monkeypatch.setattr(Stages, "answer", counted)
    np.testing.assert_allclose(bundle.predict_pixels(pixels), bundle.answer(pixels)[0], atol=1e-6)
    assert sum(rows * networks for rows, networks in ran) < len(pixels) * len(bundle.members) * 3
    assert bundle.predict_pixels(pixels[:0]).shape == (0, len(bundle.classes))
    *curve, everything = bundle.index["trade_off"]
    assert everything["asked"] == len(bundle.members)
    assert all(1 <= point["asked"] <= everything["asked"] for point in curve)
    assert everything["latency_ms"] > 0
    card = (exported("cascade") / CARD).read_text()
    assert "## What the cascade saves" in card
    assert f"| all members, always | {everything['accuracy']:.4f} |" in card
    assert "What the cascade saves" not in (exported("mean") / CARD).read_text()


def test_a_cascade_that_is_not_of_its_graph_is_refused(exported: Callable[..., Path], tmp_path: Path) -> None:
    def loaded(kind: str, cascade: dict[str, Any]) -> None:
        folder = Path(shutil.copytree(exported(kind), tmp_path / "bundle", dirs_exist_ok=True))
        index = json.loads((folder / INDEX).read_text())
        index["graph"]["cascade"] = cascade
        (folder / INDEX).write_text(json.dumps(index))
        Bundle.load(folder, engine="onnx")

    with pytest.raises(
        BundleError, match=r"bundle\.json: cannot be used \(a cascade of 2 members in a bundle of"
    ):
        loaded("cascade", Stages((0, 1), (0.9,), (False, False)).to_index())
    n = len(Bundle.load(exported("mean")).members)
    with pytest.raises(
        BundleError, match=r"model\.onnx: has no input 'wanted' for the cascade of this bundle"
    ):
        loaded("mean", Stages(tuple(range(n)), (0.9,) * (n - 1), (False,) * n).to_index())


@pytest.mark.parametrize("part", ["probe", "lp-ft", "full"])
def test_a_single_model_is_a_graph_too(
    part: str, every: RunStore, exported: Callable[..., Path], pixels: np.ndarray
) -> None:
    name = _single(every, part)
    bundle = Bundle.load(exported(name, ExportOptions()))
    test = every.test_predictions()
    assert test is not None
    np.testing.assert_allclose(bundle.predict_pixels(pixels), test.proba[test.index(name)], atol=1e-5)
    for n in (1, 2, 7):  # whatever the batch
        np.testing.assert_allclose(
            bundle.predict_pixels(pixels[:n]), test.proba[test.index(name), :n], atol=1e-5
        )


def test_mirrored_members_see_both_images(draw_images: Callable[..., Any]) -> None:
    import torch

    from ensembler.bundle.member import FoldWeights, Member
    from ensembler.bundle.session import new_session, run_graph
    from ensembler.training.backbone import create, to_arrays

    torch.manual_seed(0)
    arrays = to_arrays(create("test_resnet", 3, hidden=(8,)).state_dict())
    member = Member("test_resnet", "abc", 32, [FoldWeights(arrays, 0.7)], mirror=True, hidden=(8,))
    images, _ = draw_images(5)
    model, networks = merge.ensemble_graph({"one": member}, None, 3)
    proba, said = run_graph(new_session(model.SerializeToString(), "graph"), images)
    np.testing.assert_allclose(proba, member.predict(images), atol=1e-5)
    np.testing.assert_allclose(said[0], member.predict_folds(images), atol=1e-5)
    assert set(networks) < {node.name for node in model.graph.node}


# ---------------------------------------------------------------------- what is in it


def test_by_default_a_bundle_is_a_graph_with_its_card(exported: Callable[..., Path]) -> None:
    folder = exported("stacking", ExportOptions())
    index = json.loads((folder / INDEX).read_text())
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {INDEX, CARD, MODEL, COMBINER_MODEL} <= files
    assert not [name for name in files if name.startswith(("members", "combiner.safe"))]
    assert index["graph"]["precision"] == "fp32"
    assert index["graph"]["against_torch"]["members"] <= 1e-5
    assert index["graph"]["against_torch"]["ensemble"] <= 1e-5
    assert "held against" not in (card := (folder / CARD).read_text())
    assert "Against PyTorch, on 60 images of the run" in card
    model = onnx.load(folder / MODEL)
    assert [value.name for value in model.graph.input] == ["images"]
    assert [value.name for value in model.graph.output] == ["probabilities", "members"]
    assert not model.metadata_props
    assert not any(
        node.metadata_props or node.doc_string for node in model.graph.node
    )  # of this machine, that is


def test_normalisation_is_shared_and_frozen_bodies_run_once(
    every: RunStore, exported: Callable[..., Path]
) -> None:
    model = onnx.load(exported("mean") / MODEL)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Sub") <= 2  # two normalisations at most, of three members
    index = json.loads((exported("mean") / INDEX).read_text())
    assert len({(*m["mean"], *m["std"]) for m in index["members"]}) == kinds.count("Sub")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_smaller_graphs_say_what_they_cost(
    precision: Any, every: RunStore, exported: Callable[..., Path], pixels: np.ndarray
) -> None:
    folder = exported("mean", ExportOptions(precision=precision))
    full = exported("mean") / MODEL
    assert (folder / MODEL).stat().st_size < 0.75 * full.stat().st_size
    bundle = Bundle.load(folder)
    found = bundle.index["graph"]["against_torch"]
    assert found["accuracy"] >= -check.ACCURACY_LOST[precision]
    assert found["members"] <= check.LARGEST[precision]
    if precision == "int8":  # seven bits of weights: sums of eight overflow on processors without VNNI
        tensors = [onnx.numpy_helper.to_array(t) for t in onnx.load(folder / MODEL).graph.initializer]
        weights = [t for t in tensors if t.dtype == np.int8 and t.ndim > 1]
        assert weights
        assert all(t.min() >= -64 and t.max() <= 64 for t in weights)
    card = (folder / CARD).read_text()
    assert f"in one graph ({precision})" in card
    assert "That changes the accuracy on their out-of-fold rows by " in card
    np.testing.assert_allclose(
        bundle.predict_pixels(pixels), Bundle.load(exported("mean")).predict_pixels(pixels), atol=0.2
    )


def test_a_zip_is_the_same_bundle_in_one_file(
    every: RunStore, exported: Callable[..., Path], pixels: np.ndarray, tmp_path: Path
) -> None:
    experiment = Experiment.from_run(every.path)
    target = experiment.export(tmp_path / "made" / "b.zip", "stacking", ExportOptions(format="both"))
    assert [p.name for p in target.parent.iterdir()] == ["b.zip"]
    expected = Bundle.load(exported("stacking")).predict_pixels(pixels)
    np.testing.assert_array_equal(Bundle.load(target).predict_pixels(pixels), expected)
    np.testing.assert_allclose(
        Bundle.load(target, engine="torch").predict_pixels(pixels), expected, atol=1e-5
    )
    experiment.export(target, "stacking")  # replaces a bundle
    (tmp_path / "other.zip").write_bytes(b"precious")
    with pytest.raises(BundleError, match=r"other\.zip: is no readable zip"):
        experiment.export(tmp_path / "other.zip", "mean")
    with zipfile.ZipFile(tmp_path / "foreign.zip", "w") as archive:
        archive.writestr("a", "precious")
    with pytest.raises(BundleError, match="exists and is no bundle"):
        experiment.export(tmp_path / "foreign.zip", "mean")


# ---------------------------------------------------------------------- what is refused


def test_a_graph_that_differs_is_refused_with_the_numbers(
    every: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = merge.ensemble_graph

    def off(*args: Any, **options: Any) -> Any:
        model, networks = build(*args, **options)
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 4:
                array = onnx.numpy_helper.to_array(tensor)
                tensor.CopyFrom(onnx.numpy_helper.from_array(array * np.float32(1.001), tensor.name))
        return model, networks

    monkeypatch.setattr("ensembler.bundle.graph.merge.ensemble_graph", off)
    with pytest.raises(
        BundleError, match=r"fp32 graph differs from PyTorch by \S+ on 60 images, .* at most 1e-05"
    ):
        Experiment.from_run(every.path).export(tmp_path / "b", "mean")
    assert not (tmp_path / "b").exists()


def test_ties_of_a_combiner_are_no_difference_of_the_graph() -> None:
    said = np.full((2, 1, 30, 2), 0.5, np.float32)
    said[:, 0, 10:] = [0.9, 0.1]

    def jump(proba: np.ndarray) -> np.ndarray:
        return np.eye(2, dtype=np.float32)[(proba[0, 0, :, 0] > 0.5).astype(int)]

    found = check.undecided(said, jump, 1e-5)
    assert found[:10].any()
    assert not found[10:].any()
    numbers = {"images": 30, "members": 1e-7, "ensemble": 1e-7, "accuracy": 0.0, "log_loss": 0.0}
    check.Difference(**numbers, on_edge=9, ties=1).refuse("fp32")
    with pytest.raises(BundleError, match="undecided at 9 of 30 images"):
        check.Difference(**numbers, on_edge=9, ties=9).refuse("fp32")
    for worse, expected in (
        ({"accuracy": -0.05}, "loses 5.00 points"),
        ({"log_loss": 0.2}, "adds 0.200 to the log loss"),
    ):
        with pytest.raises(BundleError, match=expected):
            check.Difference(**numbers | worse, on_edge=0, ties=0).refuse("int8")  # type: ignore[arg-type]


def test_what_torch_cannot_export_is_said_and_falls_back_where_nobody_chose(
    every: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise BundleError("net: torch cannot export it as ONNX (no such operator); use --format torch")

    monkeypatch.setattr("ensembler.bundle.graph.merge.ensemble_graph", fail)
    experiment = Experiment.from_run(every.path)
    with pytest.raises(BundleError, match="torch cannot export it"):
        experiment.export(tmp_path / "b", "mean", ExportOptions(format="onnx"))
    bundle = Bundle.load(experiment.export(tmp_path / "b", "mean"))
    assert bundle.index["graph"] is None
    assert "torch cannot export it" in bundle.index["note"]
    assert capsys.readouterr().err.startswith("warning: no graph is written: net: torch cannot export it")


def test_a_limit_on_the_latency_is_kept_or_refused(
    every: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = Experiment.from_run(every.path)
    monkeypatch.setattr("ensembler.bundle.export.latency_ms", lambda bundle: 10.0 * len(bundle.members))
    with pytest.raises(BundleError, match=r"mean: takes 30\.0 ms an image on this machine, and may take 15"):
        experiment.export(tmp_path / "b", "mean", ExportOptions(max_latency_ms=15))
    assert not (tmp_path / "b").exists()
    bundle = Bundle.load(experiment.export(tmp_path / "b", None, ExportOptions(max_latency_ms=15)))
    assert len(bundle.members) == 1
    best = comparison.read_leaderboard(every).verdict.winner
    if bundle.name != best:
        assert f"warning: {best}: takes " in capsys.readouterr().err


def test_what_the_run_has_not_trained_cannot_be_deployed(every: RunStore, tmp_path: Path) -> None:
    experiment = Experiment.from_run(every.path)
    for way in ("refit", "soup", "distill"):
        with pytest.raises(BundleError, match=rf"no network made by {way}; add `collapse: \[folds, {way}\]`"):
            experiment.export(tmp_path / "b", _single(every, "full"), ExportOptions(collapse=way))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"format": "pickle"}, "export format 'pickle': expected one of torch, onnx, both"),
        ({"precision": "int4"}, "export precision 'int4': expected one of fp32, fp16, int8"),
        ({"format": "torch", "precision": "int8"}, "safetensors files are as they were trained"),
        ({"max_latency_ms": 0}, "export max_latency_ms 0: expected milliseconds above 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        ExportOptions(**wrong)


def test_the_command_line_exports(
    every: RunStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "b.zip"
    command = ["export", str(every.path), "--ensemble", "mean", "-o", str(target), "--format", "both"]
    assert main([*command, "--max-latency-ms", "100000"]) == 0
    assert capsys.readouterr().out.strip() == str(target)
    assert Bundle.load(target).name == "mean"
