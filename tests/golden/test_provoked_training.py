"""What is said of backbones, weights, features and sweeps that nothing can be trained with."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ensembler.atomic import naming
from ensembler.errors import (
    BackboneError,
    EnsemblerError,
    NonFiniteLossError,
    StoreError,
    TrainingError,
    WeightsError,
)
from ensembler.metrics import get_metric
from ensembler.training import backbone, weights
from ensembler.training.gram import normal_equations
from ensembler.training.heads import fit_head
from ensembler.training.logistic import fit_logistic
from ensembler.tuning.execute import TrialResources, execute
from ensembler.tuning.plan import Chain, Stage
from ensembler.tuning.watchdog import NO_NODE_S, Standstill

# ---------------------------------------------------------------------- backbones and their weights


def test_a_backbone_that_its_library_cannot_build(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> object:
        raise RuntimeError("a patch is larger\nthan the picture")

    monkeypatch.setattr(backbone, "_with_drop_path", refuse)
    with pytest.raises(
        BackboneError,
        match="backbone 'test_vit': cannot be built: a patch is larger than the picture; choose another",
    ):
        backbone.create("test_vit", 3)


def test_weights_that_the_hub_does_not_give(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")

    def refuse(*_: object) -> str:
        raise ConnectionError("403 Forbidden for https://someone:secret@hub.example/timm\nRequest-Id")

    monkeypatch.setattr(weights, "hub_out_of_reach", lambda: None)
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(hub, "hf_hub_download", refuse)
    with pytest.raises(WeightsError) as caught:
        weights._from_hub("test_vit")
    assert str(caught.value) == (
        "backbone 'test_vit': the hub refused 'timm/test_vit.r160_in1k' (403 Forbidden for https://hub.example/timm); "
        "give `weights: FILE`, `weights: random`, or `weights: pretrained-or-random`"
    )


# ---------------------------------------------------------------------- features that are not finite

TRAIN = np.eye(4, dtype=np.float32)[np.arange(8) % 4]
LABELS = np.arange(8) % 2


@pytest.mark.parametrize(
    ("fit", "says"),
    [
        (
            lambda: normal_equations(
                torch.from_numpy(np.full_like(TRAIN, math.nan)), torch.from_numpy(LABELS), [np.arange(8)], 2
            ),
            "no head can be fitted: features of the backbone are not finite; take other weights",
        ),
        (
            lambda: fit_logistic(
                torch.full((8, 4), math.inf), torch.from_numpy(LABELS), torch.ones(4), torch.ones(1), 2
            ),
            "the loss of a logistic head is not finite, because the features of its backbone are not; take other "
            "weights",
        ),
        (
            lambda: fit_head(TRAIN, LABELS, np.full_like(TRAIN, math.inf), LABELS, 2),
            "no penalty can be chosen: logits of the monitor rows are not finite; take other weights",
        ),
    ],
    ids=["train rows", "rows of the solver", "monitor rows"],
)
def test_no_head_is_fitted_on_what_is_not_finite(fit: Callable[[], object], says: str) -> None:
    with pytest.raises(NonFiniteLossError) as caught:
        fit()
    assert str(caught.value) == says


# ---------------------------------------------------------------------- sweeps that end too early


class Tuner:
    """Stands for Ray Tune, which ends the sweep at once."""

    def __init__(self, *_: object, tune_config: Any, run_config: Any) -> None:
        self.searcher = tune_config.search_alg
        (self.watch,) = run_config.callbacks

    def fit(self) -> None:
        """Nothing is trained."""


class Asking(Tuner):
    def fit(self) -> None:
        """One trial keeps the worker busy while it starts, the next is asked for."""
        assert self.searcher.suggest("warm") != self.searcher.suggest("first")


class WithoutANode(Tuner):
    def fit(self) -> None:
        """The cluster shrinks to what cannot run a trial, and time passes."""
        standstill = Standstill(2, 0)
        for second in range(int(NO_NODE_S) + 1):
            self.watch.problem = standstill.problem(float(second), False, lambda: ({"CPU": 1.0}, {}))


def full() -> Stage:
    with naming(Path("run/manifest.json")):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("tuner", "error", "says"),
    [
        (
            Tuner,
            TrainingError,
            "Ray ended the sweep before its last trial; run the same command again to go on",
        ),
        (
            Asking,
            StoreError,
            "run/manifest.json: cannot be written: No space left on device; free space or choose another folder, "
            "then run the same command again",
        ),
        (
            WithoutANode,
            TrainingError,
            "Ray: no node is left that can run a trial, for 5 min 00 s: one wants 2 CPUs and 0 GPUs, all nodes "
            "together have 1 CPUs and 0 GPUs; start nodes, and run the same command again to go on",
        ),
    ],
)
def test_a_sweep_that_ends_too_early(
    tuner: type[Tuner], error: type[EnsemblerError], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray import tune

    monkeypatch.setattr(tune, "Tuner", tuner)
    monkeypatch.setattr(tune, "with_parameters", lambda *_, **__: None)  # Ray would start
    monkeypatch.setattr(tune, "with_resources", lambda *_: None)
    monkeypatch.setenv("TUNE_MAX_PENDING_TRIALS_PG", "1")
    nothing: Any = None
    with pytest.raises(error) as caught:
        execute(
            Chain([full]), nothing, nothing, TrialResources(2, 0), nothing, get_metric("log_loss"), slots=1
        )
    assert str(caught.value) == says
