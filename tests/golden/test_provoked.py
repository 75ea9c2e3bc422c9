"""Messages that no other test meets: rare, but a user who meets one has to know what to do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ensembler.errors import (
    BundleError,
    CombinerError,
    ConfigError,
    DataError,
    EnsemblerError,
    PredictionsError,
    StoreError,
    TrainingError,
    UnreadableImageError,
)
from ensembler.metrics import get_metric
from ensembler.predictions import Predictions


def predictions(labels: tuple[int, ...] = (0, 1, 0, 1), members: int = 2) -> Predictions:
    proba = np.tile([[0.7, 0.3], [0.4, 0.6]] * (len(labels) // 2), (members, 1, 1))
    return Predictions.from_arrays(proba, labels, np.arange(len(labels)) % 2)


# ---------------------------------------------------------------------- libraries that are not there


def test_no_onnxruntime(without: Callable[[str], None]) -> None:
    from ensembler.bundle.session import new_session

    without("onnxruntime")
    with pytest.raises(BundleError, match="onnxruntime is missing; pip install"):
        new_session(b"", "bundle/model.onnx")


def test_no_hub(without: Callable[[str], None]) -> None:
    from ensembler.bundle.hub import fetch

    without("huggingface_hub")
    with pytest.raises(BundleError, match="the Hub needs huggingface-hub: pip install"):
        fetch("hf:ada/clothing")


def test_no_pyarrow(tmp_path: Path, without: Callable[[str], None]) -> None:
    from ensembler.bundle.table import Table

    without("pyarrow")
    with pytest.raises(DataError, match="Parquet needs pyarrow, which is not installed"):
        Table(tmp_path / "t.parquet", ("a", "b"), "key")


# ---------------------------------------------------------------------- images that change or go while they are read


def test_an_image_that_goes_while_it_is_read(tmp_path: Path) -> None:
    from ensembler.data.cache import _decode, _Image

    with pytest.raises(
        DataError, match=r"a\.png: went away meanwhile: No such file or directory; start again"
    ):
        _decode(_Image(tmp_path / "a.png", "0"), 8)


def test_an_image_that_changes_while_it_is_read(tmp_path: Path) -> None:
    from ensembler.data.cache import _decode, _Image

    (tmp_path / "a.png").write_bytes(b"other bytes than were hashed")
    with pytest.raises(
        DataError, match=r"a\.png: changed while the images were read; start again once it rests"
    ):
        _decode(_Image(tmp_path / "a.png", "0"), 8)


def test_a_table_of_other_columns() -> None:
    import pandas as pd

    from ensembler.data.table import ImageTable

    with pytest.raises(DataError, match=r"image table: columns \['id', .*\] missing; found \['image'\]"):
        ImageTable(pd.DataFrame({"image": ["a.png"]}))


@pytest.mark.parametrize(
    ("labels", "k", "groups", "message"),
    [
        ([0, 1], 3, None, "folds: 2 images for 3 folds; lower k or add images"),
        ([0, 1] * 6, 3, ["a"] * 6 + ["b"] * 6, "groups: 2 for 3 folds; lower k or use finer groups"),
        ([0, 1] * 6, 3, ["a"], "groups: 1 values for 12 images; give one each"),
    ],
)
def test_folds_that_cannot_be(labels: list[int], k: int, groups: list[str] | None, message: str) -> None:
    from ensembler.folds import make_folds

    with pytest.raises(DataError, match=message):
        make_folds(labels, k, 0, groups=groups)


# ---------------------------------------------------------------------- combiners, evaluation


def test_what_search_under_limits_needs() -> None:
    from ensembler.combiners.constrained import Constrained
    from ensembler.evaluation.constrained import best_under

    metric = get_metric("log_loss")
    for given, lacking, options in (
        ("costs", "limit", {"costs": {"a": 1.0}}),
        ("limit", "costs", {"limit": 1.0}),
    ):
        with pytest.raises(
            CombinerError, match=f"constrained: {given} without {lacking}; give both, or neither"
        ):
            Constrained(**options)  # type: ignore[arg-type]
    with pytest.raises(CombinerError, match="both given; search under one, then under the other"):
        best_under(predictions(), metric, max_latency_ms=1, max_bytes=1)


def test_metrics_of_a_wrapper_and_of_levels_are_named_where_they_stand() -> None:
    from ensembler.combiners import make_combiner

    with pytest.raises(CombinerError, match="greedy: unknown metric 'acuracy'; did you mean 'accuracy'"):
        make_combiner("greedy", metric="acuracy")
    with pytest.raises(CombinerError, match="bagged: base: unknown combiner 'gredy'; did you mean 'greedy'"):
        make_combiner("bagged", base="gredy")
    with pytest.raises(
        CombinerError, match="levels: level 1: unknown combiner 'gredy'; did you mean 'greedy'"
    ):
        make_combiner("levels", levels=[["gredy"], ["mean"]])


def test_weights_of_another_number_than_members() -> None:
    from ensembler.evaluation.diversity import ambiguity

    with pytest.raises(
        PredictionsError, match=r"weights: \[1.0\]; expected 2 non-negative numbers, not all 0"
    ):
        ambiguity(predictions(), weights=[1.0])


def test_a_t_test_without_a_share() -> None:
    from ensembler.evaluation.hypothesis_tests import corrected_t_test

    with pytest.raises(
        PredictionsError, match="test_share: 0; expected rows tested over rows trained on, above 0"
    ):
        corrected_t_test([0.1, 0.2], 0)


def test_overfitting_beside_two_members() -> None:
    from ensembler.combiners import make_combiner
    from ensembler.evaluation.cross_fit import cross_fit
    from ensembler.evaluation.overfitting import overfitting

    metric = get_metric("log_loss")
    fit = cross_fit(make_combiner("mean"), predictions(), metric)
    with pytest.raises(
        PredictionsError, match=r"reference: has 2 members; expected one, as Predictions\.select"
    ):
        overfitting(fit, predictions(), metric)


def test_a_metric_that_is_undefined_on_these_rows() -> None:
    from ensembler.evaluation.subsets import MeanValue

    with pytest.raises(PredictionsError, match="roc_auc: undefined on these 4 rows; choose another metric"):
        MeanValue(predictions((1, 1, 1, 1)), get_metric("roc_auc"))


def test_sample_ids_in_a_square() -> None:
    with pytest.raises(PredictionsError, match="sample_ids: has 2 dimensions; expected 1"):
        Predictions.from_arrays([[[0.7, 0.3], [0.4, 0.6]]], [0, 1], [0, 1], sample_ids=np.array([["a", "b"]]))


def test_test_rows_without_labels(tmp_path: Path) -> None:
    arrays = predictions().arrays()
    np.savez(tmp_path / "p.npz", **arrays, test_proba=arrays["proba"])
    with pytest.raises(PredictionsError, match="array 'test_labels' missing beside 'test_proba'; give both"):
        Predictions.load(tmp_path / "p.npz")


def test_weights_for_other_members_in_the_lab() -> None:
    from ensembler.laboratory import Setup, _require

    with pytest.raises(CombinerError, match="weights: 1 for 2 members; give one each"):
        _require(Setup(members=("a", "b"), combiner="weighted", weights=(1.0,)))


# ---------------------------------------------------------------------- bundles


def test_a_weight_that_float16_cannot_hold() -> None:
    from onnx import helper, numpy_helper

    from ensembler.bundle.graph.precision import half_weights

    graph = helper.make_graph(
        [], "g", [], [], [numpy_helper.from_array(np.full((64, 64), 1e6, np.float32), "w")]
    )
    with pytest.raises(
        BundleError, match=r"a weight of 1e\+06 does not fit float16; export with --precision fp32"
    ):
        half_weights(helper.make_model(graph))


def test_a_network_whose_cell_is_gone(tmp_path: Path) -> None:
    from ensembler.bundle.choose import _collapsed
    from ensembler.store import RunStore

    with pytest.raises(BundleError, match="soup: its Cell is missing; run the experiment again"):
        _collapsed(RunStore(tmp_path), "soup")


# ---------------------------------------------------------------------- training


def test_a_policy_that_is_none() -> None:
    from ensembler.training.augment import BatchAugment

    with pytest.raises(ConfigError, match="policy: unknown policy 'rnd'; did you mean 'rand'"):
        BatchAugment((0.5, 0.5, 0.5), (0.2, 0.2, 0.2), policy="rnd")


def test_a_strategy_that_is_none() -> None:
    from ensembler.training.strategies import get_strategy

    with pytest.raises(ConfigError, match="unknown strategy 'prob'; did you mean 'probe'"):
        get_strategy("prob")


def test_a_head_that_does_not_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from ensembler.training import logistic

    monkeypatch.setattr(logistic, "MAX_STEPS", 0)
    with pytest.raises(
        TrainingError, match="a logistic head has not settled within 0 steps; take strategy ridge"
    ):
        logistic.fit_logistic(torch.eye(8), torch.arange(8) % 2, torch.ones(8), torch.ones(1), 2)


def test_too_many_pictures_for_a_preview(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ensembler.training.preview import main

    argv = ["--backbone", "resnet10t", "--recipe", "{}", "--size", "5000", "-o", str(tmp_path), "a.png"]
    assert main(argv) == 2
    assert "1 images of 5000 pixels, 4 draws: at most" in capsys.readouterr().err


# ---------------------------------------------------------------------- the app


def test_a_server_that_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ensembler.app import server

    monkeypatch.setattr(server, "command", lambda *_: [sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(EnsemblerError, match="the app's server ended with exit code 3; its last lines above"):
        server.launch(tmp_path, "127.0.0.1", 0, headless=True)


def test_a_run_that_is_being_worked_on_is_not_started_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ensembler.app import sweeps
    from ensembler.store import RunStore

    monkeypatch.setattr(sweeps, "_busy", lambda store: True)
    with pytest.raises(StoreError, match="runs already; wait, or stop it first"):
        sweeps.start(RunStore(tmp_path / "run"), tmp_path / "c.yaml")


def test_a_picture_whose_name_no_system_takes() -> None:
    from ensembler.app.thumbnails import _read

    with pytest.raises(UnreadableImageError, match="embedded null byte"):
        _read(Path("a\0.png"))


def test_a_picture_that_no_format_holds() -> None:
    from PIL import Image

    from ensembler.app.thumbnails import _uri

    with pytest.raises(DataError, match=r"a picture of \(0, 4\) pixels cannot be drawn"):
        _uri(Image.new("CMYK", (0, 4)))
