"""Strategies: what moves, where training starts, and that frozen features are made once."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from ensembler.errors import ConfigError, StoreError
from ensembler.training import backbone, features
from ensembler.training.backbone import create
from ensembler.training.candidate import Candidate, CellJob, TrainingData
from ensembler.training.features import ensure_features
from ensembler.training.heads import fit_head
from ensembler.training.loop import train_cell
from ensembler.training.strategies import STRATEGIES, get_strategy
from ensembler.training.strategies.base import Strategy
from ensembler.training.weights import find_weights

Job = Callable[..., CellJob]


@pytest.fixture
def pretrained(data: TrainingData, tmp_path: Path) -> tuple[TrainingData, str]:
    """The data with a weights file, and its label."""
    torch.manual_seed(5)
    file = tmp_path / "w.safetensors"
    save_file(backbone.to_arrays(create("test_resnet", 7).state_dict()), file)
    label = find_weights("test_resnet", str(file), tmp_path).label
    return dataclasses.replace(data, weights_files={label: file}), label


def _on(job: CellJob, label: str) -> CellJob:
    return dataclasses.replace(job, candidate=dataclasses.replace(job.candidate, weights=label))


def test_every_name_in_the_table_is_a_strategy_of_that_name() -> None:
    for name in STRATEGIES:
        strategy = get_strategy(name)
        assert isinstance(strategy, Strategy)
        assert strategy.name == name
    with pytest.raises(ConfigError, match="unknown strategy 'lpft'; did you mean 'lp-ft'"):
        get_strategy("lpft")


@pytest.mark.parametrize("strategy", ["full", "lp-ft"])
def test_full_and_lp_ft_move_body_and_head(strategy: str, pretrained: Any, job: Job) -> None:
    data, label = pretrained
    start = load_file(data.weights_files[label])
    result = train_cell(_on(job(strategy, epochs=2, batch_size=8, ema=0.0), label), data)
    model = create("test_resnet", 3)
    heads = set(backbone.head_names(model))
    for name, _ in model.named_parameters():
        if name not in heads:
            assert not np.array_equal(result.weights[name], start[name]), name
            np.testing.assert_allclose(result.weights[name], start[name], atol=0.1)  # but not far
    assert result.weights["fc.weight"].shape[0] == 3


def test_a_probe_stores_the_head_alone_and_moves_nothing_else(pretrained: Any, job: Job) -> None:
    data, label = pretrained
    result = train_cell(_on(job("probe"), label), data)
    assert set(result.weights) == {"fc.weight", "fc.bias"}
    assert (result.best_epoch, result.history) == (0, ())
    model = create("test_resnet", 3, data.weights_files[label])
    backbone.load_arrays(model, result.weights)
    rows = data.folds[0][2]
    from ensembler.probability import softmax
    from ensembler.training.augment import BatchAugment

    augment = BatchAugment(*backbone.normalisation("test_resnet"))
    logits = features.predict_logits(model.eval(), augment, np.load(data.pixels), rows, torch.device("cpu"))
    np.testing.assert_allclose(softmax(logits / result.temperature), result.proba, atol=1e-4)
    assert result.params == backbone.count_parameters(model)


def test_lp_ft_starts_from_the_fitted_head_and_the_pretrained_body(
    pretrained: Any, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, label = pretrained
    one = _on(job("lp-ft"), label)
    train, monitor, _ = data.folds[0]
    values = ensure_features(one.candidate, data, torch.device("cpu"))
    head = fit_head(values[train], data.labels[train], values[monitor], data.labels[monitor], 3)
    seen: dict[str, Any] = {}
    real = backbone.parameter_groups

    def groups(model: Any, *args: Any) -> Any:
        seen.update(backbone.to_arrays(model.state_dict()))
        return real(model, *args)

    monkeypatch.setattr(backbone, "parameter_groups", groups)
    train_cell(one, data)
    np.testing.assert_array_equal(seen["fc.weight"], head.weight)
    np.testing.assert_array_equal(seen["fc.bias"], head.bias)
    start = load_file(data.weights_files[label])
    np.testing.assert_array_equal(seen["layer1.0.conv1.weight"], start["layer1.0.conv1.weight"])


def test_full_starts_from_a_random_head_that_the_seed_decides(pretrained: Any, job: Job) -> None:
    data, label = pretrained
    start = train_cell(_on(job("full", epochs=1, lr=0.0, head_lr=0.0, ema=0.0), label), data).weights
    other = dataclasses.replace(_on(job("full", epochs=1, lr=0.0, head_lr=0.0, ema=0.0), label), seed=1)
    body = load_file(data.weights_files[label])
    assert np.array_equal(start["layer1.0.conv1.weight"], body["layer1.0.conv1.weight"])
    assert not np.array_equal(start["fc.weight"], train_cell(other, data).weights["fc.weight"])


@pytest.mark.parametrize("n_classes", [3, 7])
def test_a_head_in_the_weights_file_is_never_taken_over(pretrained: Any, n_classes: int) -> None:
    """The fixture's file has seven outputs: as many as we want by chance is no reason to keep them."""
    data, label = pretrained
    file = data.weights_files[label]
    torch.manual_seed(1)
    model = create("test_resnet", n_classes, file)
    assert backbone.head(model).weight.shape == (n_classes, 96)
    assert not np.array_equal(
        backbone.to_arrays(model.state_dict())["fc.weight"], load_file(file)["fc.weight"]
    )
    body = load_file(file)["layer1.0.conv1.weight"]
    assert np.array_equal(backbone.to_arrays(model.state_dict())["layer1.0.conv1.weight"], body)


@pytest.mark.parametrize("strategy", ["probe", "lp-ft"])
@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_frozen_features_of_every_family_at_the_images_own_size(
    strategy: str, name: str, data: TrainingData, job: Job
) -> None:
    """A ViT is built for one input size: it has to be told which."""
    result = train_cell(job(strategy, backbone=name, epochs=1), data)
    assert np.isfinite(result.proba).all()


# ---------------------------------------------------------------------- features on disk


def test_features_are_written_once_and_read_ever_after(
    data: TrainingData, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = job("probe").candidate
    first = np.array(ensure_features(one, data, torch.device("cpu")))
    stat = data.features_file(one).stat()
    monkeypatch.setattr(features, "extract", lambda *_: pytest.fail("computed again"))
    np.testing.assert_array_equal(ensure_features(one, data, torch.device("cpu")), first)
    again = data.features_file(one).stat()
    assert (again.st_ino, again.st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)
    assert [p.name for p in data.features.iterdir()] == [data.features_file(one).name]


def test_each_backbone_and_each_weights_file_has_features_of_its_own(data: TrainingData) -> None:
    names = {
        data.features_file(Candidate(b, w, "probe")).name
        for b in ("test_vit", "test_resnet")
        for w in ("random", "a.safetensors#1", "a.safetensors#2")
    }
    assert len(names) == 6
    assert data.features_file(Candidate("a", "w", "probe")) == data.features_file(
        Candidate("a", "w", "lp-ft")
    )


def test_two_writers_write_the_same_bytes(data: TrainingData, job: Job) -> None:
    one = job("probe").candidate
    ensure_features(one, data, torch.device("cpu"))
    first = data.features_file(one).read_bytes()
    shutil.rmtree(data.features)
    torch.manual_seed(77)
    ensure_features(one, data, torch.device("cpu"))
    assert data.features_file(one).read_bytes() == first


def test_a_full_disk_is_told_and_leaves_nothing(
    data: TrainingData, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(features, "write_array", full)
    with pytest.raises(StoreError, match="No space left on device"):
        ensure_features(job("probe").candidate, data, torch.device("cpu"))
    assert list(data.features.iterdir()) == []
